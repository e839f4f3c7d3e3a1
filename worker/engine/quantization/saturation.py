"""Whether this CPU multiplies u8 by s8 exactly. Without VNNI, x86 adds pairs of products in 16 bits, which saturate."""

from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from worker.engine.session import open_session, run_session

_DEPTH = 64


@cache
def saturates() -> bool:
    """Whether ONNX Runtime loses part of a product of the largest codes here, on the CPU."""
    weight = np.full((_DEPTH, _DEPTH), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["codes", "weight"], ["sums"])],
        "largest",
        [helper.make_tensor_value_info("codes", onnx.TensorProto.UINT8, [_DEPTH, _DEPTH])],
        [helper.make_tensor_value_info("sums", onnx.TensorProto.INT32, [_DEPTH, _DEPTH])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    feed = {"codes": np.full((_DEPTH, _DEPTH), 255, np.uint8)}
    sums = run_session(open_session(model.SerializeToString()), feed)[0]
    return bool((sums != 255 * 127 * _DEPTH).any())
