"""A small judgement, as evaluation.json holds it, for tests: three classes, two members, two disputed rows."""

from __future__ import annotations

from ensemble.evaluation.records import (
    Calibration,
    ClassResult,
    Contribution,
    DisputedRow,
    LeaderboardRow,
    ReliabilityBin,
    SizePoint,
    Verdict,
)

NAN = float("nan")
CONFUSION = [[9, 1, 0], [0, 10, 0], [2, 0, 8]]


def line(kind, name, error, headline=False, member=None):
    return LeaderboardRow(
        kind, name, headline, member, error, round(30 * error), error / 2, error * 2, error + 0.01, 0.2, 0.1, 0.03, 61706,
        12.5, NAN if member is not None else 0.25, NAN, None, None, None, NAN,
    )  # fmt: skip


LEADERBOARD = [
    line("vote", "soft", 0.1, headline=True),
    line("best_member", "member 0", 2 / 15, member=0),
    line("mean_member", "mean member", 0.15),
    line("member", "member 0", 2 / 15, member=0),
    line("member", "member 1", 1 / 6, member=1),
]
VERDICT = Verdict("not distinguishable", 0.05, 0.25, 1, 2, 0.1, 2 / 15, 0, -1 / 30, -0.1, 0.04, "It is not better.")
SIZES = [SizePoint(1, 0.15, 0.13, 0.17, 0.13, 0.17), SizePoint(2, 0.1, 0.1, 0.1, 0.1, 0.1)]
CLASSES = [ClassResult(name, 10, 1, 0.1, 0.02, 0.4) for name in ("0", "1", "2")]
CONTRIBUTIONS = [Contribution(0, 0.02, 0.0016), Contribution(1, -0.01, NAN)]
BINS = [ReliabilityBin(0.0, 0.5, 0, NAN, NAN), ReliabilityBin(0.5, 1.0, 30, 0.93, 0.9)]
DISPUTED = [
    DisputedRow(4, 2, 0, (1, 0, 1), (0, 2), 0.69, 0.4),
    DisputedRow(9, 1, 1, (0, 2, 0), (1, 1), 0.3, 0.1),
]


def keep_judgement(folder, content=None):
    """A run folder that lists a judgement, by default the one below."""
    import json

    from ensemble.storage.atomic import write_bytes
    from ensemble.storage.manifest import Entry, manifest_bytes

    contents = {"config.yaml": b"name: bag\n", "evaluation.json": content or json.dumps(judgement()).encode()}
    files = {name: Entry(sha256=write_bytes(folder / name, c), bytes=len(c)) for name, c in contents.items()}
    write_bytes(folder / "manifest.json", manifest_bytes(files))


def judgement():
    """The parts of evaluation.json that dashboards read, as its own code writes them: NaN as null."""
    import json

    from pydantic import TypeAdapter

    def plain(value, kind):
        return json.loads(TypeAdapter(kind).dump_json(value))

    return {
        "class_names": ["0", "1", "2"],
        "degraded": False,
        "verdict": plain(VERDICT, Verdict),
        "leaderboard": plain(LEADERBOARD, list[LeaderboardRow]),
        "confusion": CONFUSION,
        "classes": plain(CLASSES, list[ClassResult]),
        "size_curve": plain(SIZES, list[SizePoint]),
        "contributions": plain(CONTRIBUTIONS, list[Contribution]),
        "calibration": plain(Calibration(0.03, 0.04, tuple(BINS), tuple(BINS)), Calibration),
        "disputed": plain(DISPUTED, list[DisputedRow]),
    }
