"""The model card of a run as Markdown (Mitchell et al. 2019, in the form the Hugging Face hub reads).

Every field comes from the run's folder; what a run cannot know (a licence, an intended use) has no field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ensemble.config.data import DataConfig
from ensemble.config.groups import stored_groups
from ensemble.config.method import MethodSection
from ensemble.config.tta import TtaConfig
from ensemble.data import DATASETS
from ensemble.data.pixel_rule import RESIZED, Resize
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.shown_sections import shown_sections
from ensemble.outside.names import fenced, in_markdown, markdown_text, shell_word, shown
from ensemble.report import wording
from ensemble.report.further_wording import chosen_score
from ensemble.report.run_facts import RunFacts, read_run
from ensemble.report.tables import leaderboard_markdown
from ensemble.storage import RunFolder

CLASSES_NAMED = 200
VOTES = {
    "soft": "soft vote: mean of the members' probabilities",
    "hard": "hard vote: share of the members whose favourite the class is",
    "weighted": "weighted vote: mean of the probabilities, weighted by member",
    "geometric": "geometric vote: normalised product of the probabilities",
    "additive": "additive vote: softmax of the weighted sum of the members' outputs",
}


def model_card(path: Path) -> str:
    """The card of a judged run. Raises StorageError where there is none or a file is damaged."""
    run, folder = read_run(path), RunFolder.read(path)
    dataset = json.loads(folder.read_bytes("dataset.json"))
    rows = len(folder.load_labels().train_rows)
    sections = [
        _front_matter(run),
        f"# {run.name}",
        f"An ensemble of {wording.plural(len(run.evaluation.members), 'image classifier')} on {in_markdown(run.evaluation.dataset)}. "
        + run.evaluation.verdict.sentence,
        *_warnings(run.evaluation),
        "## Model",
        _table(("", ""), _model_rows(run, dataset)),
        "## Data",
        _table(("", ""), _data_rows(run, dataset, rows)),
        "## Training",
        fenced("yaml", _recipe(run)),
        _table(("", ""), _training_rows(run)),
        "## Evaluation",
        f"On {run.evaluation.test_rows:,} test images, which nothing was chosen by. Intervals are 95 %.",
        _table(("figure", "value"), _figure_rows(run.evaluation)),
        "### By class",
        _table(("class", "test images", "wrong", "error %", "95 % interval"), _class_rows(run.evaluation)),
        "### Against other votes and single members",
        leaderboard_markdown(run.evaluation, run.costs).rstrip(),
        "## Limits",
        _bullets(_limits(run.evaluation, dataset)),
        "## Use",
        *([] if _without_network(run) else [fenced("python", _python(run))]),
        fenced("sh", "\n".join(f"{command}  # {what}" for command, what in _commands(run))),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(run: RunFacts) -> str:
    headline = run.evaluation.headline
    figures = {
        "accuracy": 1 - headline.test_error, "nll": headline.nll, "brier": headline.brier, "ece": headline.ece,
    }  # fmt: skip
    metrics = [{"type": name, "value": round(value, 6)} for name, value in figures.items() if math.isfinite(value)]
    data = {"name": run.evaluation.dataset, "type": run.evaluation.dataset, "split": "test"}
    task = {"type": "image-classification"}
    content = {
        "library_name": "ensemble-trainer",
        "pipeline_tag": "image-classification",
        "tags": ["ensemble", str(run.config["method"]["name"]), *_recipes(run.evaluation)],
        "datasets": [run.evaluation.dataset],
        "metrics": ["accuracy"],
        "model-index": [{"name": run.name, "results": [{"task": task, "dataset": data, "metrics": metrics}]}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _warnings(evaluation: Evaluation) -> list[str]:
    return [f"> Warning: {line}" for line in wording.cautions(evaluation)]


def _model_rows(run: RunFacts, dataset: dict[str, Any]) -> list[tuple[str, str]]:
    evaluation = run.evaluation
    channels, height, width = dataset["image_shape"]
    counts = {name: sum(m.recipe == name for m in evaluation.members) for name in _recipes(evaluation)}
    parameters = {m.recipe: m.num_parameters for m in evaluation.members}
    members = [
        f"{count} x {name} with {parameters[name]:,} parameters each"
        if parameters[name]
        else f"{name} without a network"
        for name, count in counts.items()
    ]
    method = str(run.config["method"]["name"])
    known = MethodSection.registry.find(method)
    rows = [
        ("members", "; ".join(members)),
        ("method", (known and known.in_short) or in_markdown(method)),
        ("vote", VOTES[evaluation.aggregator]),
        *_view_rows(run),
        ("input", f"{channels} x {height} x {width} pixels (channels, height, width), bytes or floats in [0, 1]"),
    ]
    if "mean" in dataset and not (run.config.get("model") or {}).get("mean"):
        rows.append(("standardised with", f"mean {_numbers(dataset['mean'])}, deviation {_numbers(dataset['std'])}"))
    return [
        *rows,
        *_start_rows(run),
        ("output", f"a probability for each of {len(evaluation.class_names)} classes"),
        ("classes", _class_list(evaluation.class_names)),
        ("parameters in all", wording.count(evaluation.headline.num_parameters)),
    ]


def _view_rows(run: RunFacts) -> Iterator[tuple[str, str]]:
    """On what the members vote, where that is more than the image itself."""
    tta = TtaConfig.model_validate((run.config.get("evaluation") or {}).get("tta") or {})
    if tta.active:
        what = [f"{tta.crops} fixed crops"] if tta.crops else []
        what += [f"moves by {wording.plural(tta.shift, 'pixel')}"] if tta.shift else []
        what += ["all of them mirrored"] if tta.horizontal_flip else []
        yield (
            "what a member says",
            f"the mean over {tta.views} views of each image: as it is, {', '.join(what)} (evaluation.tta)",
        )


def _start_rows(run: RunFacts) -> Iterator[tuple[str, str]]:
    """What the members of each group began with, and what of it was not trained."""
    groups = list(stored_groups(run.config)) or [(range(0), run.config)]
    recipes = {member.index: member.recipe for member in run.evaluation.members}
    for members, group in groups:
        model, finished = group.get("model"), bool(group.get("finished"))
        known_as = next((recipes[index] for index in members if index in recipes), None)
        if known_as is None and len(groups) > 1:
            continue  # none of them votes
        to_whom = f" of {in_markdown(str(known_as))}" if len(groups) > 1 else ""
        if not model:
            digest, file = str(group.get("probabilities_sha256"))[:16], str(group["probabilities"]).rpartition("/")[2]
            yield (
                f"votes{to_whom}",
                f"the probabilities in {in_markdown(file)} (SHA-256 {digest}...), without a network",
            )
            continue
        if given := model.get("weights"):
            digest = model.get("weights_sha256")
            known = f" (SHA-256 {digest[:16]}...)" if digest else ""
            when = "trained elsewhere, which vote as they are" if finished else "at the start"
            yield f"weights{to_whom} {when}", in_markdown(str(given).rpartition("/")[2]) + known
        elif model.get("pretrained"):
            yield f"weights{to_whom} at the start", "timm's"
        if (frozen := model.get("freeze", "none")) != "none":
            what = "all but the last layer" if frozen == "backbone" else in_markdown(", ".join(frozen))
            yield f"not trained{to_whom}", what
        if model.get("mean"):
            scale = f"mean {_numbers(model['mean'])}, deviation {_numbers(model['std'])}"
            yield f"standardised{to_whom} with", scale


def _margin(margin: int, height: int, width: int) -> str:
    kept = f"{height + 2 * margin} x {width + 2 * margin}"
    return (
        f"pictures are brought to {kept} pixels; members were trained on windows of {height} x {width} of them, drawn anew for every image "
        "and epoch, and vote on the middle one"
    )


def _data_rows(run: RunFacts, dataset: dict[str, Any], train_rows: int) -> list[tuple[str, str]]:
    info = DATASETS.get(dataset["name"])
    rows = [("data set", shown(run.evaluation.dataset) + (f", {info.title}" if info else ", the trainer's own images"))]
    if info:
        rows.append(("source", info.source))
    if run.config["data"].get("image_size") is not None:
        pixels = dataset.get("pixels") or {}
        resize: Resize = pixels.get("resize", "crop")
        rows.append(("pictures of other proportions", f"{RESIZED[resize]}, at training and by `ensemble predict`"))
        if margin := pixels.get("margin"):
            rows.append(("margin", _margin(margin, *dataset["image_shape"][1:])))
    rows += [
        ("training images", f"{train_rows:,}"),
        (
            "validation images",
            f"{run.evaluation.validation_rows:,}, held back from training; every choice was made on them",
        ),
        ("test images", f"{run.evaluation.test_rows:,}"),
    ]
    if "images_sha256" in dataset:
        rows.append(("SHA-256 of all pixels", str(dataset["images_sha256"])))
    return rows


def _recipe(run: RunFacts) -> str:
    """What decides about the members, as configured; where the files lay is nobody's business."""
    wanted = ("seed", "num_members", "method", "data", "model", "training", "members")
    chosen = {key: run.config[key] for key in wanted if run.config.get(key) not in (None, [], ())}
    source = DataConfig.registry.find(str(chosen["data"].get("name"))) or DataConfig
    places = source.places(chosen["data"])
    chosen["data"] = {k: value for k, value in chosen["data"].items() if k not in (*places, "download")}
    chosen = _with_names_of_files(chosen)
    if "members" in chosen:
        chosen["members"] = [_with_names_of_files(group) for group in chosen["members"]]
    return yaml.safe_dump(_without_nothing(chosen), sort_keys=False, default_flow_style=None, width=100).rstrip()


def _with_names_of_files(holder: dict[str, Any]) -> dict[str, Any]:
    """A run or a group whose weights lay in a file: its name without the folders. Of a network that was given as it is, its class says enough."""
    model = {key: value for key, value in (holder.get("model") or {}).items() if key != "built"}
    if holder.get("probabilities"):
        return {**holder, "probabilities": Path(holder["probabilities"]).name}
    if not model.get("weights_sha256"):
        return {**holder, "model": model} if model else holder
    return {**holder, "model": {**model, "weights": Path(model["weights"]).name}}


def _training_rows(run: RunFacts) -> list[tuple[str, str]]:
    environment = run.environment
    seconds = sum(member.train_seconds for member in run.evaluation.members)
    kept = [member.kept_epoch for member in run.evaluation.members if member.kept_epoch]
    elsewhere = len(run.evaluation.members) - len(kept)
    epochs = "" if not kept else str(kept[0]) if min(kept) == max(kept) else f"{min(kept)} to {max(kept)}"
    packages = environment.get("packages", {})
    versions = ", ".join(f"{name} {found}" for name, found in packages.items() if found)
    rows = [
        ("training time", f"{wording.seconds(seconds)} s over all members"),
        ("epoch whose weights vote", epochs),
        ("members trained elsewhere", f"{elsewhere}, on images that this run does not know of" if elsewhere else ""),
        ("executor", run.executor),
        ("places", "; ".join(run.places)),
        ("processor", str(environment.get("processor", ""))),
        ("system", f"{environment.get('system', '')}, Python {environment.get('python', '')}"),
        ("packages", versions),
        ("commit", str(environment.get("commit") or "")),
        ("members that failed", str(len({failure.member for failure in run.failures if not failure.finished_later}))),
    ]
    return [row for row in rows if row[1]]


def _figure_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    headline = evaluation.headline
    rows = [
        (
            "test error %",
            f"{wording.percent(headline.test_error)} ({wording.percent_interval(headline.lower, headline.upper)})",
        ),
        ("wrong", f"{wording.count(headline.wrong)} of {evaluation.test_rows:,}"),
        ("validation error %", wording.percent(headline.validation_error)),
        ("negative log-likelihood, nats", wording.loss(headline.nll)),
        ("Brier score", wording.loss(headline.brier)),
        ("expected calibration error (15 equal bins)", wording.loss(headline.ece)),
        ("best single member by validation, test error %", wording.percent(evaluation.verdict.member_error)),
    ]
    for section in shown_sections(evaluation):
        rows += section.card_rows
    for shifted in evaluation.shifted:
        rows.append((f"error % on shifted images, {shifted.name}", wording.percent(shifted.vote_error)))
        rows += [(f"the same of {one.name}", wording.percent(one.error)) for one in shifted.beside]
    for unknown in evaluation.unknown:
        score = chosen_score(unknown)
        rows.append((f"AUROC for unknown images, {unknown.name}", wording.loss(score.auroc)))
        rows += [(f"the same of {one.name}", wording.loss(one.auroc)) for one in unknown.beside]
    return [row for row in rows if row[1] != wording.NONE]


def _class_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            shown(result.name), f"{result.rows:,}", f"{result.wrong:,}", wording.percent(result.error),
            wording.percent_interval(result.lower, result.upper),
        )
        for result in evaluation.classes
    ]  # fmt: skip


def _limits(evaluation: Evaluation, dataset: dict[str, Any]) -> list[str]:
    """What the figures themselves say about where not to trust the model."""
    channels, height, width = dataset["image_shape"]
    lines = [
        f"Every image is given one of these {len(evaluation.class_names)} classes, also one that shows none of them.",
        f"Trained and judged on {shown(evaluation.dataset)} alone, images of {height} x {width} pixels with "
        f"{wording.plural(channels, 'channel')}; figures for other images are {'unknown' if not evaluation.shifted else 'those of the shifted sets above'}.",
    ]
    confused = max(
        (
            (count, evaluation.class_names[true], evaluation.class_names[said])
            for true, counts in enumerate(evaluation.confusion)
            for said, count in enumerate(counts)
            if true != said
        ),
        key=lambda item: item[0],
    )
    if confused[0]:
        lines.append(
            f"Most frequent confusion: {shown(confused[1])} taken for {shown(confused[2])}, {confused[0]:,} times."
        )
    lines += [line for section in shown_sections(evaluation) for line in section.limits]
    return lines


def _commands(run: RunFacts) -> Iterable[tuple[str, str]]:
    path = shell_word(run.place)
    if not _without_network(run):
        yield f"ensemble predict {path} IMAGE", "class, probability and every member's vote"
        yield f"ensemble export {path} --format onnx", "the whole vote as one file"
    yield run.commands[0]
    yield run.commands[1]


def _without_network(run: RunFacts) -> bool:
    """Whether a member votes by probabilities from a file, so that nothing can be predicted with the vote."""
    return any(group.get("probabilities") for group in run.config.get("members") or ())


def _python(run: RunFacts) -> str:
    return f"from ensemble import load_ensemble\n\nprobs = load_ensemble({json.dumps(run.place)}).predict_proba(images)"


def _recipes(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(member.recipe for member in evaluation.members))


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return [_without_nothing(inner) for inner in value] if isinstance(value, list | tuple) else value


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(markdown_text, line)) + " |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def _class_list(names: Sequence[str]) -> str:
    """The names of the classes, of very many the first."""
    listed = ", ".join(shown(name, 40) for name in names[:CLASSES_NAMED])
    return f"{listed} and {len(names) - CLASSES_NAMED:,} more" if len(names) > CLASSES_NAMED else listed
