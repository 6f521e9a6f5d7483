"""The judgement of a run, as evaluation.json holds it, cut into what a W&B run can show: figures, curves and tables.

Plain values in and out; the numbers are those of evaluation.json, none is worked out anew. A figure that does not exist
(null) is left out of figures and curves and stays empty in tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ensemble.outside.names import shown
from ensemble.tracking.instructions import TableData
from ensemble.types import ByteArray

Json = Mapping[str, Any]
MATRIX_UP_TO = 50  # classes, as on the report's page
CONFUSIONS_SHOWN = 1000


def figures(evaluation: Json) -> dict[str, Any]:
    """The summary a dashboard sorts ensembles by; rates are fractions, losses nats."""
    headline = next(row for row in evaluation["leaderboard"] if row["headline"])
    by_kind = {row["kind"]: row for row in evaluation["leaderboard"]}
    verdict = evaluation["verdict"]
    found = {
        "error/test": headline["test_error"],
        "error/test_lower": headline["lower"],
        "error/test_upper": headline["upper"],
        "error/validation": headline["validation_error"],
        "error/mean_member": by_kind.get("mean_member", {}).get("test_error"),
        "error/baseline": by_kind.get("baseline", {}).get("test_error"),
        "error/longer": by_kind.get("longer", {}).get("test_error"),
        "error/wider": by_kind.get("wider", {}).get("test_error"),
        "error/best_member": by_kind.get("best_member", {}).get("test_error"),
        "nll/test": headline["nll"],
        "brier/test": headline["brier"],
        "ece/test": headline["ece"],
        "num_parameters": headline["num_parameters"],
        "train_seconds": headline["train_seconds"],
        "prediction/one_image_ms": headline.get("one_image_ms"),
        "prediction/image_of_batch_ms": headline.get("image_of_batch_ms"),
        "verdict/outcome": verdict["outcome"],
        "verdict/p_value": verdict["p_value"],
        "verdict/difference": verdict["difference"],
        "verdict/sentence": verdict["sentence"],
        "degraded": evaluation["degraded"],
        "smooth_ece/test": evaluation["calibration"].get("smooth_ece"),
        **_further_figures(evaluation),
    }
    return {name: value for name, value in found.items() if value is not None}


def _further_figures(evaluation: Json) -> dict[str, Any]:
    """Of shifted and unknown images, and of answering only when certain; judgements of earlier versions have none of these."""
    found: dict[str, Any] = {}
    for one in evaluation.get("shifted", ()):
        for name in ("vote_error", "member_error", "difference", "p_value", "relative_gain", "vote_nll", "vote_ece"):
            found[f"shifted/{one['name']}/{name}"] = one[name]
        for network in one.get("beside", ()):
            for name in ("error", "difference", "p_value"):
                found[f"shifted/{one['name']}/{network['which']}_{name}"] = network[name]
    for one in evaluation.get("unknown", ()):
        score = next(score for score in one["scores"] if score["score"] == one["chosen"])
        for name in ("auroc", "member_auroc", "fpr95", "p_value"):
            found[f"unknown/{one['name']}/{name}"] = score[name]
        for network in one.get("beside", ()):
            for name in ("auroc", "difference", "p_value"):
                found[f"unknown/{one['name']}/{network['which']}_{name}"] = network[name]
    selective = evaluation.get("selective") or {}
    return found | {
        f"selective/{name}": selective.get(name) for name in ("aurc", "augrc", "coverage_at_1", "member_aurc")
    }


def curves(evaluation: Json) -> list[dict[str, float]]:
    """Test error against the number of members, one row per size, under size/*."""
    names = {
        "size": "members",
        "mean": "error",
        **{name: f"error_{name}" for name in ("lower", "upper", "best", "worst")},
    }
    return [
        {f"size/{new}": point[old] for old, new in names.items() if point[old] is not None}
        for point in evaluation["size_curve"]
    ]


def tables(evaluation: Json, images: Mapping[int, ByteArray]) -> list[TableData]:
    """Leaderboard, classes, confusion, calibration, contributions and, with `images` (test row -> HW or HWC), disputes."""
    classes = [shown(name) for name in evaluation["class_names"]]
    parts = [
        _records("leaderboard", evaluation["leaderboard"]),
        _records("classes", [{**record, "name": shown(record["name"])} for record in evaluation["classes"]]),
        _records("contributions", evaluation["contributions"]),
        _records("calibration", evaluation["calibration"]["equal_width"]),
        _records("shifted", _named(evaluation.get("shifted", ()), "parts")),
        _records("unknown", _named(evaluation.get("unknown", ()), "scores")),
        _records("shifted_one_network", _named(evaluation.get("shifted", ()), "beside")),
        _records("unknown_one_network", _named(evaluation.get("unknown", ()), "beside")),
        _records("promises_with_unknown", _named(evaluation.get("unknown", ()), "mixed")),
        _records("promises", (evaluation.get("selective") or {}).get("promises", ())),
        _records("prediction_sets", (evaluation.get("conformal") or {}).get("rules", ())),
        _size_chart(evaluation["size_curve"]),
        _calibration_chart(evaluation["calibration"]["equal_width"]),
        _disputed(evaluation["disputed"], classes, images),
    ]
    return [_confusion(evaluation["confusion"], classes), *(part for part in parts if part.rows)]


def _named(sets: Sequence[Json], key: str) -> list[Json]:
    """The records of all sets, each with the name of its set."""
    return [{"set": one["name"], **record} for one in sets for record in one.get(key, ())]


def _records(name: str, records: Sequence[Json]) -> TableData:
    columns = tuple(records[0]) if records else ()
    return TableData(name, columns, tuple(tuple(record[column] for column in columns) for record in records))


def _confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> TableData:
    """The whole matrix, drawn as one too, or of many classes the most frequent confusions, the diagonal left out."""
    columns = ("actual", "predicted", "rows")
    if len(classes) > MATRIX_UP_TO:
        cells = [
            (classes[actual], classes[predicted], count)
            for actual, row in enumerate(counts)
            for predicted, count in enumerate(row)
            if count and actual != predicted
        ]
        largest = sorted(cells, key=lambda cell: -cell[2])[:CONFUSIONS_SHOWN]
        name = "confusion" if len(largest) == len(cells) else f"confusion_largest_{len(largest)}_of_{len(cells)}"
        return TableData(name, columns, tuple(largest))
    rows = tuple(
        (classes[actual], classes[predicted], count)
        for actual, row in enumerate(counts)
        for predicted, count in enumerate(row)
    )
    return TableData("confusion", columns, rows, "confusion", "confusion")


def _size_chart(points: Sequence[Json]) -> TableData:
    """Test error by number of members as lines: mean, percentiles and extremes over random orders of the members."""
    lines = {"mean": "mean", "5th percentile": "lower", "95th percentile": "upper", "best": "best", "worst": "worst"}
    rows = _long((point["size"], line, point[key]) for line, key in lines.items() for point in points)
    return TableData(
        "error_by_size", ("members", "line", "test error"), rows, "lines", "Test error by number of members"
    )


def _calibration_chart(bins: Sequence[Json]) -> TableData:
    """Accuracy by mean confidence, bin by bin, and what both would be if they were equal."""
    filled = [each for each in bins if each["confidence"] is not None and each["accuracy"] is not None]
    vote = ((each["confidence"], "vote", each["accuracy"]) for each in filled)
    rows = (*_long(vote), (0.0, "calibrated", 0.0), (1.0, "calibrated", 1.0)) if filled else ()
    return TableData("reliability", ("confidence", "line", "accuracy"), rows, "lines", "Calibration on test images")


def _long(cells: Iterable[tuple[Any, str, Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(cell for cell in cells if cell[2] is not None)


def _disputed(records: Sequence[Json], classes: Sequence[str], images: Mapping[int, ByteArray]) -> TableData:
    with_image = bool(images)
    columns = ("row", "label", "predicted", "votes", "entropy", "mutual_information")
    rows = []
    for record in records:
        votes = sorted(((count, -index) for index, count in enumerate(record["votes"]) if count), reverse=True)
        cells: tuple[Any, ...] = (
            record["row"],
            classes[record["label"]],
            classes[record["predicted"]],
            ", ".join(f"{classes[-index]}: {count}" for count, index in votes),
            record["entropy"],
            record["mutual_information"],
        )
        rows.append((images.get(record["row"]), *cells) if with_image else cells)
    return TableData("disputed", (("image",) if with_image else ()) + columns, tuple(rows))
