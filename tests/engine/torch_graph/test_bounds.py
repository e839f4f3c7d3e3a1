"""Graphs that ask for absurd sizes or never end are refused, naming the node, before they take memory or time.

They run in a process of their own whose memory and time are limited.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

LOOP = """g (float x) => (float y) <bool t = {{1}}, int64 n = {{{trips}}}> {{ [a] y = Loop ({inputs}, x) <
    body = b (int64 i, bool c, float s) => (bool d, float r) {{ d = Identity (c)  r = Add (s, s) }}> }}"""
MANY = 10**12
PAIR, IMAGE = [[[1.0, 1.0]]], [[[[1.0, 1.0], [1.0, 1.0]]]]
BIG: dict[str, tuple[str, str, list[Any]]] = {
    "ConstantOfShape": ("int64[1] s", "ConstantOfShape (s)", [[MANY]]),
    "Expand": ("float[1] x, int64[1] s", "Expand (x, s)", [[1.0], [MANY]]),
    "Tile": ("float[1] x, int64[1] s", "Tile (x, s)", [[1.0], [MANY]]),
    "Range": ("int64 a, int64 b, int64 c", "Range (a, b, c)", [0, MANY, 1]),
    "Range of floats": ("float a, float b, float c", "Range (a, b, c)", [0.0, 1e12, 1.0]),
    "Pad": ("float[1] x, int64[2] s", "Pad (x, s)", [[1.0], [0, MANY]]),
    "Pad with the edge": ("float[1] x, int64[2] s", 'Pad <mode = "edge"> (x, s)', [[1.0], [0, MANY]]),
    "Resize to sizes": ("float[1, 1, 2, 2] x, int64[4] s", "Resize (x, , , s)", [IMAGE, [1, 1, 10**6, 10**6]]),
    "Resize by scales": ("float[1, 1, 2, 2] x, float[4] s", "Resize (x, , s)", [IMAGE, [1.0, 1.0, 1e6, 1e6]]),
    "OneHot": ("int64[2] x, int64 d, float[2] v", "OneHot (x, d, v)", [[1, 1], MANY, [0.0, 1.0]]),
    "RandomNormal": ("", f"RandomNormal <shape = [{MANY}]> ()", []),
    "RandomUniform": ("", "RandomUniform <shape = [1000000, 1000000]> ()", []),
    "HannWindow": ("int64 s", "HannWindow (s)", [MANY]),
    "CenterCropPad": ("float[1] x, int64[1] s", "CenterCropPad (x, s)", [[1.0], [MANY]]),
    "MelWeightMatrix": (
        "int64 b, int64 n, int64 r, float l, float h",
        "MelWeightMatrix (b, n, r, l, h)",
        [10**6, 10**9, 8000, 0.0, 4000.0],
    ),
    "Multinomial": ("float[1, 2] x", f"Multinomial <sample_size = {MANY}> (x)", [[[1.0, 1.0]]]),
    "DFT": ("float[1, 2, 1] x, int64 n", "DFT (x, n)", [[[[1.0], [1.0]]], MANY]),
    "MaxUnpool": (
        "float[1, 1, 2] x, int64[1, 1, 2] i, int64[3] s",
        "MaxUnpool <kernel_shape = [2]> (x, i, s)",
        [PAIR, [[[0, 1]]], [1, 1, MANY]],
    ),
    "Conv with pads": ("float[1, 1, 2] x, float[1, 1, 1] w", f"Conv <pads = [0, {MANY}]> (x, w)", [PAIR, [[[1.0]]]]),
    "MaxPool with pads": (
        "float[1, 1, 2] x",
        f"MaxPool <kernel_shape = [{MANY}], pads = [0, {MANY - 1}]> (x)",
        [PAIR],
    ),
}
"""Name -> inputs, a node that would make a tensor of a trillion elements or so, what is fed."""
ENDLESS = {
    "a Loop without an end": (LOOP.format(trips=1, inputs=", t"), [1.0]),
    "a Loop with neither trips nor condition": (LOOP.format(trips=1, inputs=", "), [1.0]),
    "2 ** 62 trips": (LOOP.format(trips=2**62, inputs="n, t"), [1.0]),
    "Loops inside each other": (
        """g (float x) => (float y) <int64 n = {60000}> { y = Loop (n, , x) <
            body = b (int64 i, bool c, float s) => (bool d, float r) { d = Identity (c)  [a] r = Loop (n, , s) <
                body = bb (int64 j, bool e, float u) => (bool f, float v) { f = Identity (e)  v = Add (u, u) }> }> }""",
        [1.0],
    ),
    "a Scan of 10 ** 9 rows": (
        """g (int64[2] n, float[1, 1] x, float[1] s) => (float[1] y) { z = Expand (x, n)  [a] y = Scan (s, z) <
            num_scan_inputs = 1, body = b (float[1] s, float[1] r) => (float[1] t) { t = Add (s, r) }> }""",
        [[10**9, 1], [[1.0]], [1.0]],
    ),
}
PROGRAM = """
import json, resource, signal, sys
import torch
from onnx import parser
from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

torch.set_num_threads(1)
limit = 8 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, (text, inputs) in json.load(sys.stdin).items():
    before, answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, ["ran", None]
    signal.alarm(20)
    try:
        module = TorchGraph(Graph.from_proto(parser.parse_model(text)))
        with torch.no_grad():
            module(*map(torch.tensor, inputs))
    except SlimlineError as error:
        answer = [error.failure.code, error.failure.node]
    signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([name, answer, grown]), flush=True)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[list[str | None], int]]:
    """Name of a dangerous graph -> code and node, and the KiB by which the process grew, each bounded to 20 s."""
    header = '<ir_version: 10, opset_import: ["" : 20]>'
    cases = {name: (f"{header}\n{text}", inputs) for name, (text, inputs) in ENDLESS.items()}
    for name, (given, node, inputs) in BIG.items():
        text = f"g ({given}) => (int64[n] y) {{ [a] t = {node}  y = Shape (t) }}"
        cases[name] = f"{header}\n{text}", inputs
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (answer, grown) for name, answer, grown in lines}


@pytest.mark.parametrize("name", BIG)
def test_absurd_sizes_are_refused_before_memory_is_taken(name: str, answers: dict[str, Any]) -> None:
    assert name in answers, "the process ended before it answered"
    (code, node), grown_kib = answers[name]
    assert (code, node) == ("TENSOR_TOO_LARGE", "a")
    assert grown_kib < 256 * 1024


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_loops_are_refused(name: str, answers: dict[str, Any]) -> None:
    assert name in answers, "the process ended before it answered"
    (code, node), grown_kib = answers[name]
    assert (code, node) == ("LOOP_ENDLESS", "a")
    assert grown_kib < 256 * 1024


def test_a_declared_size_is_no_work() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
        g (float[10000000000] x) => (float[n] y) { [a] y = Add (x, x) }"""
    program = PROGRAM.replace("alarm(20)", "alarm(3)")
    case = json.dumps({"declared": (text, [[1.0]])})
    done = subprocess.run([sys.executable, "-c", program], input=case, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout or "null") == ["declared", ["INPUTS_MISMATCH", "x"], 0]
