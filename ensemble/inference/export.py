"""The whole vote as one file: standardising, every member and the aggregation, for uint8 images [N, C, H, W].

    export_ensemble(load_ensemble("runs/quickstart"), "onnx", Path("quickstart.onnx"))

Outputs: `probabilities` [N, K] float32 and `classes` [N] int64. The number of images is free. The file also names
the classes and says how many members vote. Files are written here and never read by this package.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch

from ensemble.errors import ComputeError
from ensemble.inference.network import VoteNetwork
from ensemble.inference.trained import TrainedEnsemble
from ensemble.storage.atomic import write_bytes

Format = Literal["torch_export", "onnx"]
SUFFIXES: dict[Format, str] = {"torch_export": ".pt2", "onnx": ".onnx"}
_ONNX_PACKAGES = ("onnx", "onnxscript")
_ONNX_OPSET = 20


def export_ensemble(trained: TrainedEnsemble, file_format: Format, path: Path) -> int:
    """Write the file; returns its size in bytes.

    Raises ComputeError when ONNX is asked for and its packages are not installed, StorageError when the file cannot
    be written.
    """
    network = trained.network()
    example = torch.zeros((2, *trained.image_shape), dtype=torch.uint8)
    facts = {
        "class_names": json.dumps(trained.class_names),
        "members": str(len(trained.vote.members)),
        "vote": trained.vote.aggregator,
        "run": trained.vote.experiment.name,
        "input": f"images: uint8 [N, {', '.join(map(str, trained.image_shape))}]",
        "preprocessing": json.dumps(preprocessing(trained)),
    }
    content = {"torch_export": _torch_export, "onnx": _onnx}[file_format](network, example, facts)
    write_bytes(path, content)
    return len(content)


def preprocessing(trained: TrainedEnsemble) -> dict[str, Any]:
    """How pictures become the input, as `predict` does it: pixels by the run's rule, then the fitting to size."""
    rule = trained.vote.pixels
    return {
        "data_set": trained.vote.dataset,
        "pixels": rule.to_json() if rule is not None else "range and ground by each picture's own brightness",
        "orientation": "EXIF",
        "size": "scaled until it covers the size, bilinear, its middle cut out; characters as `ensemble predict` places them",
    }


def _torch_export(network: VoteNetwork, example: torch.Tensor, facts: dict[str, str]) -> bytes:
    program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own deprecated internals
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
    program.model.metadata_props.update(facts)
    content: bytes = program.model_proto.SerializeToString()
    return content
