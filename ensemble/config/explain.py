"""Turns pydantic's findings into lines a person can act on: file:line, key, value, expectation, nearest name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ensemble.config.base import Part
from ensemble.config.keys import all_keys, annotated, is_section, place_of, tags
from ensemble.config.list_spelling import list_spelling
from ensemble.config.yaml_source import COMMAND_LINE, KeyPath

# Names people bring from other tools, which no edit distance would find.
_OTHER_NAMES = {
    "learning_rate": "lr",
    "optimiser": "optimizer",
    "num_epochs": "epochs",
    "n_estimators": "num_members",
    "ensemble_size": "num_members",
    "dataset": "data",
    "num_workers": "slots",
    "batch": "batch_size",
    "voting": "aggregator",
    "scheduler": "schedule",
    "clip": "gradient_clip_norm",
    "augment": "augmentation",
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "random_erasing": "erasing_probability",
    "reprob": "erasing_probability",
    "random_resized_crop": "crop_area",
    "hflip": "horizontal_flip",
    "early_stopping": "early_stopping_epochs",
    "patience": "early_stopping_epochs",
    "warmup": "warmup_epochs",
    "ema": "ema_decay",
    "wd": "weight_decay",
    "criterion": "loss",
    "pretrained": "weights",
    "accumulate": "accumulation",
    "accumulation_steps": "accumulation",
    "gradient_accumulation_steps": "accumulation",
    "accumulate_grad_batches": "accumulation",
    "randaugment": "randaugment_operations",
    "rand_augment": "randaugment_operations",
    "gaussian_blur": "blur_probability",
    "grayscale": "grey_probability",
    "test_time_augmentation": "tta",
}


# pydantic's kinds of findings whose own words speak of Python.
_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "float_type": "a number",
}

# Its words, and those of a person.
_PLAINER = (
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "more than"),
)


def explain(error: ValidationError, where: str, places: dict[KeyPath, str]) -> str:
    """All findings, one line each, in the order of the file."""
    lines = [_line(details, where, places) for details in _meant(error.errors(include_url=False))]
    unique = list(dict.fromkeys(lines))
    head = f"{where}: {len(unique)} mistake{'s' if len(unique) > 1 else ''} in the configuration"
    return "\n".join([head, *(f"  {line}" for line in unique)])


def _in_a_file(value: object, choices: Sequence[str]) -> str:
    """How a function or class of one's own is named, for who gave its place as a name."""
    if "python" not in choices or not isinstance(value, str) or not re.fullmatch(r"[\w./-]+:\w+", value):
        return ""
    place, _, name = value.rpartition(":")
    file = place if place.endswith(".py") else place.replace(".", "/") + ".py"
    return f'; what is in a file beside this one is {{name: python, path: "{file}:{name}"}}'


def _meant(found: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Of a key that takes a word or a number, a list or a mapping only what is wrong with the form that was given.

    pydantic tries every form, and puts its own name of each into the place of what it finds.
    """
    tried: dict[tuple[str | int, ...], set[str]] = {}
    for details in found:
        if (at := _form_at(details["loc"])) is not None:
            tried.setdefault(details["loc"][:at], set()).add(_form(details["loc"][at]))
    given = {
        details["loc"][:-1]: details["input"]
        for details in found
        if _form_at(details["loc"]) == len(details["loc"]) - 1
    }
    words = {  # that may stand for a number
        details["loc"][:at]: str(details.get("ctx", {}).get("expected", ""))
        for details in found
        if details["type"] == "literal_error" and (at := _form_at(details["loc"])) is not None
    }
    for details in found:
        at = _form_at(details["loc"])
        if details["type"] == "too_short" and any(_within(other["loc"], details["loc"]) for other in found):
            continue  # it counts the entries without mistakes
        if at is None:
            yield details
            continue
        key, form = details["loc"][:at], _form(details["loc"][at])
        value = given.get(key)
        singles = [name for name in _SINGLE if name in tried[key]]
        if len(singles) > 1 and isinstance(value, int | float) and not isinstance(value, bool):
            singles.reverse()  # a number was meant as one
        single = next(iter(singles), "")
        wanted = "dict" if isinstance(value, dict) else "tuple" if isinstance(value, list | tuple) else single
        if form != (wanted if wanted in tried[key] else single):
            continue
        context = dict(details.get("ctx", {}))
        if form == single:
            context["or"] = [form_words for name, form_words in _FORMS.items() if name in tried[key]]
            if len(singles) > 1:
                context["or"].insert(0, "a whole number" if single == "literal" else words.get(key, ""))
        yield cast("ErrorDetails", {**details, "loc": (*key, *details["loc"][at + 1 :]), "ctx": context})


def _within(location: tuple[str | int, ...], outer: tuple[str | int, ...]) -> bool:
    return len(location) > len(outer) and location[: len(outer)] == outer


_SINGLE = ("literal", "constrained-int")  # forms of one value
_FORMS = {"tuple": "a list", "dict": "{NAME: NUMBER, ...}"}


def _form_at(location: tuple[str | int, ...]) -> int | None:
    """Where pydantic's name of a form stands in a place; None where there is none."""
    names = ("literal[", "constrained-int", "tuple[", "dict[")
    return next((i for i, part in enumerate(location) if isinstance(part, str) and part.startswith(names)), None)


def _form(part: str | int) -> str:
    return str(part).partition("[")[0]


def _line(details: ErrorDetails, where: str, places: dict[KeyPath, str]) -> str:
    path, _ = place_of(details["loc"])
    place = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), where)
    key = ".".join(map(str, path)) or "configuration"
    kind, context, value = details["type"], details.get("ctx", {}), details.get("input")
    if kind == "extra_forbidden":
        return f"{place}: {key}: unknown key{_nearest_key(details['loc'])}"
    if kind == "missing":
        return f"{place}: {key}: missing, and it has no default"
    if kind in ("literal_error", "union_tag_invalid"):
        choices, value = _choices(context), value if kind == "literal_error" else _tag_or(value)
        tag = str(context.get("discriminator", "name")).strip("'")
        named = f"{key}.{tag}" if kind == "union_tag_invalid" else key
        expected = ", ".join([*choices, *(f"or {form}" for form in context.get("or", ()))])
        near = _nearest(value if isinstance(value, str) else "", choices)
        return f"{place}: {named} = {shown(value)}: expected one of {expected}{near or _as_list(path, value, place, context)}{_in_a_file(value, choices)}"
    if kind in ("union_tag_not_found", "model_type", "model_attributes_type", "dict_type"):
        return f"{place}: {key}{_section_expected(path, value)}"
    if kind == "value_error":
        return f"{place}: {key}: {details['msg'].removeprefix('Value error, ')}"
    if kind == "tuple_type":
        return f"{place}: {key} = {shown(value)}: expected a list; write {list_spelling(path, value, place == COMMAND_LINE)}"
    others = "".join(f", or {form}" for form in context.get("or", ()))
    return f"{place}: {key} = {shown(value)}: expected {_expectation(kind, context, details['msg'], value)}{others}{_a_list(path, place, context)}"


def _as_list(path: KeyPath, value: Any, place: str, context: dict[str, Any]) -> str:
    """How a list would be written, of a key that takes one as well."""
    if _FORMS["tuple"] not in context.get("or", ()) or isinstance(value, list | tuple | dict):
        return ""
    return f": {list_spelling(path, value, place == COMMAND_LINE)}"


def _a_list(path: KeyPath, place: str, context: dict[str, Any]) -> str:
    """An example of the list that a key of sizes takes as well; not of the value, which would be as wrong within it."""
    if _FORMS["tuple"] not in context.get("or", ()) or path[-1:] != ("image_size",):
        return ""
    key = ".".join(map(str, path))
    return f": {key}=[160,224]" if place == COMMAND_LINE else f": {key}: [160, 224]"


def shown(value: Any) -> str:
    """A value as a configuration would have it: null and true, lists in brackets, text in quotes."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _expectation(kind: str, context: dict[str, Any], message: str, value: Any) -> str:
    if kind in ("too_short", "too_long"):
        bound, number = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        entries = "entry" if context[number] == 1 else "entries"
        return f"{bound} {context[number]} {entries}, found {context['actual_length']}"
    if kind == "string_pattern_mismatch":
        return f"letters, digits, dots, dashes and underscores that match {context['pattern']}"
    if kind in ("int_type", "int_from_float"):
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return "a whole number" + (f"; write {int(value)}" if whole else "")
    for theirs, plainer in _PLAINER:
        message = message.replace(theirs, plainer)
    return _EXPECTED.get(kind, message.removeprefix("Input should be "))


def _section_expected(path: KeyPath, value: Any) -> str:
    """What to write where a section of keys is wanted and something else was found."""
    models = [a for a in annotated(path) if is_section(a)]
    named = any(tags(model) for model in models)
    if not isinstance(value, str):
        found = "" if isinstance(value, dict) else f", found {shown(value)}"
        return f": expected a section of keys{' with a name' if named else ''}{found}"
    key = ".".join(map(str, path))
    if named:
        return f" = {value!r}: expected a section of keys; write {key}.name or {key}: {{name: {value}}}"
    holders = [
        name for model in models for name, info in model.model_fields.items()
        if get_origin(info.annotation) is Literal and value in get_args(info.annotation)
    ]  # fmt: skip
    if holders:
        return f" = {value!r}: expected a section of keys; did you mean {key}.{holders[0]}: {value}?"
    known = ", ".join(name for model in models for name in model.model_fields)
    return f" = {value!r}: expected a section of keys: {known}"


def _tag_or(value: Any) -> Any:
    return value.get("name", value.get("kind")) if isinstance(value, dict) else value


def _choices(context: dict[str, Any]) -> list[str]:
    text = str(context.get("expected_tags", context.get("expected", "")))
    return [word.strip().strip("'") for word in text.replace(" or ", ", ").split(",") if word.strip()]


def _nearest(word: str, choices: list[str]) -> str:
    found = closest(word, choices)
    return f"; did you mean {found}?" if found else ""


def _nearest_key(location: tuple[str | int, ...]) -> str:
    """The keys beside it come first, then the same name elsewhere, then like ones elsewhere."""
    parent, models = place_of(location[:-1])
    refused = str(location[-1])
    siblings = list(dict.fromkeys(name for model in models for name in model.model_fields))
    name = _OTHER_NAMES.get(refused, refused)
    # What a name stands for is known; only what was typed can be mistyped.
    if near := name if name in siblings else closest(refused, siblings):
        return f"; did you mean {'.'.join(map(str, (*parent, near)))}?"
    here = tuple(part for part in parent if isinstance(part, str))
    others = [part for model in models if issubclass(model, Part) and model.alike for part in model.choices()]
    if near := closest(name, sorted({key for part in others for key in part.model_fields})):
        having = list(dict.fromkeys(tag for part in others if near in part.model_fields for tag in tags(part)))
        takes = (
            f"{having[0]} takes"
            if len(having) == 1
            else f"{', '.join(having[:3])}{' and others' * (len(having) > 3)} take"
        )
        return f"; did you mean {'.'.join(map(str, (*parent, near)))}, which {takes}?"
    if name != refused and (below := [key for key in all_keys() if key[-1] == name and key[: len(here)] == here]):
        return f"; did you mean {'.'.join(below[0])}?"
    # A key that one network lacks and another has is no help: only what lies in other sections.
    elsewhere = [key for key in all_keys() if key[0] != "members" and (key[: len(here)] != here or not here)]
    near = closest(name, sorted({key[-1] for key in elsewhere}))
    if found := [key for key in elsewhere if key[-1] == near]:
        return f"; did you mean {'.'.join(found[0])}?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def closest(word: str, choices: list[str]) -> str | None:
    """The choice nearest to a word: at most two edits away, one for a short word; None where there is none."""
    allowed = 2 if len(word) > 4 else 1
    distances = {choice: edits(word, choice, allowed) for choice in choices}
    near = min(distances, key=lambda choice: distances[choice], default=None)
    return near if near is not None and distances[near] <= allowed else None


def edits(one: str, other: str, most: int) -> int:
    """How many letters must be put in, left out, replaced or swapped with their neighbour; `most` + 1 for more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        last, before, row = before, row, [i + 1]
        for j, aim in enumerate(other):
            cost = min(before[j] + (letter != aim), before[j + 1] + 1, row[j] + 1)
            if i and j and letter == other[j - 1] and one[i - 1] == aim:
                cost = min(cost, last[j - 1] + 1)
            row.append(cost)
    return row[-1]
