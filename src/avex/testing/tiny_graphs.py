"""Tiny graph files with the inputs and outputs of published ones; writing them needs the package onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avex._core.optional import require

WINDOW_SAMPLES = 160_000
EMBEDDING_DIM = 8
_STEPS, _BANDS = 16, 4  # time steps and frequency bands of Perch v2's embedding map


def write_perch(path: str | Path, *, seed: int = 0, num_classes: int | None = 3) -> None:
    """Write a graph that looks like Perch v2 from outside: a matrix product of blocks of samples, and its mean.

    Args:
        path: The `.onnx` file.
        seed: Seed of the matrices.
        num_classes: Number of logits; None for a graph without.

    Raises:
        MissingExtraError: The package onnx is not installed.
    """
    onnx = require("onnx", "onnx", "Writing a tiny graph")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(seed)
    block = WINDOW_SAMPLES // (_STEPS * _BANDS)
    constants = {
        "shape": np.array([-1, _STEPS, _BANDS, block], np.int64),
        "axes": np.array([1, 2], np.int64),
        "first": rng.standard_normal((block, EMBEDDING_DIM)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["inputs", "shape"], ["blocks"]),
        helper.make_node("MatMul", ["blocks", "first"], ["spatial_embedding"]),
        helper.make_node("ReduceMean", ["spatial_embedding", "axes"], ["embedding"], keepdims=0),
    ]
    outputs = {
        "embedding": ["batch", EMBEDDING_DIM],
        "spatial_embedding": ["batch", _STEPS, _BANDS, EMBEDDING_DIM],
    }
    if num_classes is not None:
        constants["second"] = rng.standard_normal((EMBEDDING_DIM, num_classes)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["embedding", "second"], ["label"]))
        outputs["label"] = ["batch", num_classes]
    graph = helper.make_graph(
        nodes,
        "tiny_perch",
        [helper.make_tensor_value_info("inputs", number, ["batch", WINDOW_SAMPLES])],
        [helper.make_tensor_value_info(name, number, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # An opset and a version of the format that every onnxruntime in use reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    Path(path).write_bytes(model.SerializeToString())
