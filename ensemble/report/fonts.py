"""Which fonts a figure needs for the names in it, and what is said where no font has their signs.

matplotlib's own font has Latin, Greek, Cyrillic and some more. For other signs the fonts of this machine are searched;
a sign that none of them has is drawn as a box in the PNG, of which matplotlib would warn once for every place.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

OWN_FONT = "DejaVu Sans"
_MISSING = re.compile(r"^Glyph (\d+) .*missing from")
_SIGNS_NAMED = 12


def fonts_for(texts: Iterable[str]) -> list[str]:
    """matplotlib's own font and, for signs it does not have, fonts of this machine that have them, the best first."""
    wanted = {ord(sign) for text in texts for sign in text if sign.isprintable()}
    if max(wanted, default=0) < 0x250:  # Latin: the common case searches nothing
        return [OWN_FONT]
    from matplotlib.font_manager import FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font

    wanted -= FT2Font(findfont(FontProperties(family=OWN_FONT))).get_charmap().keys()
    found = [OWN_FONT]
    if not wanted:
        return found
    offers: dict[str, set[int]] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        if entry.name in offers or entry.style != "normal":
            continue
        try:
            offers[entry.name] = wanted & FT2Font(entry.fname).get_charmap().keys()
        except (OSError, RuntimeError):  # in matplotlib's list, but gone or broken since: no offer
            offers[entry.name] = set()
    while wanted and offers:
        best = max(offers, key=lambda name: len(offers[name] & wanted))
        if not offers[best] & wanted:
            break
        wanted -= offers.pop(best)
        found.append(best)
    return found


@contextmanager
def noting_missing_signs(missing: set[str]) -> Iterator[None]:
    """Inside, signs without a glyph are added to `missing` instead of warned of; any other warning stays one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        found = _MISSING.match(str(warning.message))
        if found:
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def missing_note(missing: set[str]) -> str:
    """The one line about them; "" where nothing is missing."""
    if not missing:
        return ""
    signs = "".join(sorted(missing)[:_SIGNS_NAMED]) + ("…" if len(missing) > _SIGNS_NAMED else "")
    return (
        f"figures: no font of this machine has {len(missing)} of the signs in the names ({signs}), so the PNG files show "
        "boxes there; the page and the SVG files show them where the reader's machine has a font. Installing one, such "
        "as Noto Sans CJK, mends the PNG files"
    )
