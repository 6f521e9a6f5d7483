"""Names that people give, or that an attacker would: every output is tried with all of them."""

from __future__ import annotations

NASTY = (
    "from_$5_to_$9 and $10",
    "{x} {{ 7*7 }} %s %(y)d {0}",
    "a|b\\|c",
    "<img src=x onerror=alert(1)>&amp;",
    "two\nlines\r\nand\ta tab",
    "\x1b[31mred\x1b]0;owned\x07",
    "\"both' `quotes`",
    "K\u00e4se",
    "Ka\u0308se",
    "\u732b \u72d7",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "x" * 200,
    "[x](javascript:alert(1)) ~~s~~ *b* _i_",
    "\u202eevil\u2066\ufeff",
    "\U0001f9d1\u200d\U0001f33e",
    "nul\x00\x85\x9b31m",
    "z" * 100_000,
)
CONTROLS = tuple(chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))) + tuple("\u202e\u2066\ufeff\r")
