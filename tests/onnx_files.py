"""A small ONNX model that needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from roofseg.mapping.onnx_predictor import OnnxMetadata

WINDOW = 8
TAGS = {"ROOFSEG_ATTEMPT": "grey", "ROOFSEG_WEIGHTS_SHA256": "0" * 64}
METADATA = OnnxMetadata(WINDOW, (0.3, 0.6), TAGS)


def write_model(
    path: Path,
    metadata: dict[str, str] | None = None,
    shape: Sequence[int] = (WINDOW, WINDOW, 3),
    name: str = "images",
    kind: int = TensorProto.UINT8,
) -> Path:
    """A model whose probability is the mean of the three colours on [0, 1]."""
    nodes = [
        helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info(name, kind, ["batch", *shape])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", *shape[:2]])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [3]),
            helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, METADATA.metadata() if metadata is None else metadata)
    onnx.save(model, path)
    return path
