"""The whole vote as one file: standardising, every member and the aggregation, for uint8 images [N, C, H, W].

    export_ensemble(load_ensemble("runs/quickstart"), "onnx", Path("quickstart.onnx"))

Outputs: `probabilities` [N, K] float32 and `classes` [N] int64. The number of images is free. The file also names
the classes and says how many members vote. No file is written that has not been loaded and asked first, and found to
answer as the run does (see `export_check`).
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ensemble.data.pixel_rule import RESIZED, Resize
from ensemble.errors import ComputeError, first_line
from ensemble.inference.abstaining import silence
from ensemble.inference.export_check import Asker, Checked, ask_onnx, ask_torch_export, check_export
from ensemble.inference.network import VoteNetwork
from ensemble.inference.trained import TrainedEnsemble
from ensemble.outside.long_work import working
from ensemble.storage.atomic import write_bytes

Format = Literal["torch_export", "onnx"]
_ONNX_PACKAGES = ("onnx", "onnxscript")
_ONNX_OPSET = 20
_ONNX_MOST_BYTES = 2**31 - 2**20  # protobuf's limit for a message, less what the graph itself takes


@dataclass(frozen=True)
class Exported:
    """A file that was written: its size and what its comparison with the run found."""

    path: Path
    size: int
    checked: Checked


@dataclass(frozen=True)
class FileFormat:
    """One kind of file. write: network, example images and facts -> content; ask: loads such content for comparison."""

    suffix: str
    write: Callable[[VoteNetwork, torch.Tensor, dict[str, str]], bytes]
    ask: Callable[[bytes], Asker]


def export_ensemble(trained: TrainedEnsemble, file_format: Format, path: Path) -> Exported:
    """Write the file, once it has been compared with the run.

    Raises ComputeError when the packages of ONNX are not installed, when the network cannot be written in this format,
    or when the written file answers otherwise than the run; StorageError when the file cannot be written. `path` is
    touched only at the very end.
    """
    form = FORMATS[file_format]
    network = trained.network()
    example = torch.zeros((2, *trained.image_shape), dtype=torch.uint8)
    with working("writing the network"):
        content = form.write(network, example, _facts(trained))
    with working("comparing the file with the run"):
        checked = check_export(trained, form.ask(content), f"{path} (--format {file_format})")
    write_bytes(path, content)
    return Exported(path, len(content), checked)


def _facts(trained: TrainedEnsemble) -> dict[str, str]:
    """What the file says about itself. Names stand in JSON with escapes, so that any of them comes back as it was."""
    return {
        "class_names": json.dumps(trained.class_names),
        "members": str(len(trained.vote.members)),
        "vote": trained.vote.aggregator,
        "run": trained.vote.experiment.name,
        "input": f"images: uint8 [N, {', '.join(map(str, trained.image_shape))}]",
        "preprocessing": json.dumps(preprocessing(trained)),
        "silence": json.dumps(silence(trained.vote)),
    }


def preprocessing(trained: TrainedEnsemble) -> dict[str, Any]:
    """How pictures become the input, as `predict` does it: pixels by the run's rule, then the fitting to size.

    Plain JSON values; `resize` is crop, pad or squash, and `height` and `width` are in pixels.
    """
    rule = trained.vote.pixels
    resize: Resize = "crop" if rule is None else rule.resize
    _, height, width = trained.image_shape
    margin = 0 if rule is None else rule.margin
    size = f"{RESIZED[resize]}, bilinear; characters as `ensemble predict` places them"
    if margin:
        size = f"{RESIZED[resize]}, bilinear, for a size of {height + 2 * margin} x {width + 2 * margin} pixels; of that the middle {height} x {width}"
    return {
        "data_set": trained.vote.dataset,
        "pixels": rule.to_json() if rule is not None else "range and ground by each picture's own brightness",
        "orientation": "EXIF",
        "resize": resize,
        "height": height,
        "width": width,
        "size": size,
    }


def _torch_export(network: VoteNetwork, example: torch.Tensor, facts: dict[str, str]) -> bytes:
    try:
        program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    except Exception as error:  # the network may be a user's, and torch raises errors of many kinds
        reason = " ".join(str(error).split())[:500]
        raise ComputeError(
            f"--format torch_export: torch cannot write this network for any number of images: {type(error).__name__}: {reason}; its forward must not depend on values or on the number of images, such as len(x) does"
        ) from error
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own deprecated internals
        torch.export.save(program, buffer, extra_files={"ensemble.json": json.dumps(facts)})
    return buffer.getvalue()


def _onnx(network: VoteNetwork, example: torch.Tensor, facts: dict[str, str]) -> bytes:
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ComputeError(
            f"--format onnx needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            "pip install 'ensemble-trainer[onnx]', or use --format torch_export"
        )
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > _ONNX_MOST_BYTES:
        raise ComputeError(
            f"--format onnx: the members' weights take {size / 1e9:.1f} GB, and one ONNX file holds at most 2 GB; use "
            "--format torch_export"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own deprecated internals
        try:
            program: Any = torch.onnx.export(
                network,
                (example,),
                input_names=["images"],
                output_names=["probabilities", "classes"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                opset_version=_ONNX_OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = first_line(error)
            raise ComputeError(
                f"--format onnx: this network cannot be written as ONNX: {reason}; use --format torch_export"
            ) from error
    program.model.metadata_props.update(facts)
    content: bytes = program.model_proto.SerializeToString()
    return content


FORMATS: dict[Format, FileFormat] = {
    "torch_export": FileFormat(".pt2", _torch_export, ask_torch_export),
    "onnx": FileFormat(".onnx", _onnx, ask_onnx),
}
