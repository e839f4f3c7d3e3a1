"""Runs single nodes through TorchGraph beside ONNX Runtime, where that is the only implementation of a form."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

NodeRunner = Callable[..., list[np.ndarray]]


def run_in_runtime(
    node: onnx.NodeProto, feed: Mapping[str, np.ndarray], versions: Mapping[str, int]
) -> list[np.ndarray]:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feed.items()
    ]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "one", inputs, outputs),
        opset_imports=[helper.make_opsetid(*each) for each in versions.items()],
        ir_version=9,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # some kernels split the samples between threads, with other results
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


@pytest.fixture(scope="session")
def expect_runtime(run_node: NodeRunner) -> NodeRunner:
    """As `run_node`, and the outputs are what ONNX Runtime's CPU kernel gives."""

    def expect(
        op: str,
        inputs: Sequence[np.ndarray | None],
        *,
        outputs: int = 1,
        opset: int = 17,
        domain: str = "",
        **attributes: Any,
    ) -> list[np.ndarray]:
        got = run_node(op, inputs, outputs=outputs, opset=opset, domain=domain, **attributes)
        names = ["" if each is None else f"x{index}" for index, each in enumerate(inputs)]
        node = helper.make_node(op, names, [f"y{index}" for index in range(outputs)], domain=domain, **attributes)
        feed = {name: each for name, each in zip(names, inputs, strict=True) if each is not None}
        wanted = run_in_runtime(node, feed, {"": opset, domain: 1} if domain else {"": opset})
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6, strict=True)
        return got

    return expect
