"""The official ONNX node tests through TorchGraph: which pass, which are refused and why. None may be wrong.

    python -m benchmarks.conformance            print the table
    python -m benchmarks.conformance --write    write docs/conformance.md

A case passes where types and shapes are equal and numbers within the tolerance the case states, 1e-6 at least; for
bfloat16 within one rounding of numbers around 1. Random operators are judged by type and shape. The expected
numbers are those of onnx's ReferenceEvaluator.
"""

import argparse
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph
from worker.engine.torch_graph.dtypes import to_torch
from worker.engine.torch_graph.table import find_operator

PAGE = Path("docs/conformance.md")
NOISE = 1e-6
"""Absolute tolerance where a case states less: three do not allow for float32 sums in another order."""
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
REFUSED: Mapping[str, tuple[str, ...]] = {
    "text has no place in a tensor library": (
        "LabelEncoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit",
    ),
    "classic machine learning, no network": ("ArrayFeatureExtractor", "Binarizer", "TreeEnsemble"),
    "an optimizer: training is done by torch's": ("Adagrad", "Adam", "Gradient", "Momentum"),
}  # fmt: skip
"""Operators that are refused, by reason."""
REFUSED_CASES: Mapping[str, str] = {
    "test_equal_string": "text has no place in a tensor library",
    "test_equal_string_broadcast": "text has no place in a tensor library",
}
"""Cases of other operators that are refused."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    name: str
    operators: frozenset[str]
    verdict: str
    """passed, refused or wrong."""
    detail: str = ""

    @property
    def expected_reason(self) -> str | None:
        """Why it is known to be refused, None where it should pass."""
        for reason, operators in REFUSED.items():
            if not self.operators.isdisjoint(operators):
                return reason
        return REFUSED_CASES.get(self.name)


@cache
def run_all() -> tuple[Outcome, ...]:
    """Every official node test; takes about 15 s."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cases' own makers: overflow that they mean
        return tuple(_run(case) for case in load_model_tests(kind="node"))


def _run(case: TestCase) -> Outcome:
    used = frozenset(_operators(case.model.graph))
    try:
        for inputs, outputs in case.data_sets:
            module = TorchGraph(Graph.from_proto(onnx.ModelProto.FromString(case.model.SerializeToString())))
            with torch.no_grad():
                got = module(*map(_value, inputs))
            for index, (wanted, given) in enumerate(zip(map(_value, outputs), got, strict=True)):
                _compare(wanted, given, (case.rtol, case.atol), f"output {index}", numbers=used.isdisjoint(RANDOM))
    except SlimlineError as error:
        return Outcome(case.name, used, "refused", f"{error.failure.code}: {error}")
    except AssertionError as error:
        return Outcome(case.name, used, "wrong", " ".join(str(error).split())[:200])
    return Outcome(case.name, used, "passed")


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def _value(proto: Any) -> Any:
    """A case's tensor, sequence or optional as TorchGraph takes and gives it; text and what is empty as None."""
    value: Any = None
    match proto:
        case None | onnx.TensorProto(data_type=onnx.TensorProto.STRING):
            pass
        case onnx.TensorProto():
            value = to_torch(ir.serde.deserialize_tensor(proto))
        case onnx.SequenceProto():
            value = [_value(each) for each in (*proto.tensor_values, *proto.sequence_values)]
        case onnx.OptionalProto(elem_type=onnx.OptionalProto.TENSOR):
            value = _value(proto.tensor_value)
        case onnx.OptionalProto(elem_type=onnx.OptionalProto.SEQUENCE):
            value = _value(proto.sequence_value)
        case list():
            value = [_value(each) for each in proto]
        case np.ndarray() | np.generic() | float() | int():
            value = to_torch(ir.tensor(np.asarray(proto)))
    return value


def _compare(wanted: Any, given: Any, within: tuple[float, float], where: str, *, numbers: bool) -> None:
    if wanted is None or isinstance(wanted, list):
        assert type(given) is type(wanted), f"{where} is {type(given).__name__}"
        for index, (one, other) in enumerate(zip(wanted or (), given or (), strict=True)):
            _compare(one, other, within, f"{where}[{index}]", numbers=numbers)
        return
    assert isinstance(given, torch.Tensor), f"{where} is {type(given).__name__}"
    kinds = [(each.dtype, list(each.shape)) for each in (wanted, given)]
    assert kinds[0] == kinds[1], f"{where} is {kinds[1]}, not {kinds[0]}"
    if numbers:
        wide = torch.complex128 if wanted.is_complex() else torch.float64
        # One rounding of bfloat16 is more than the cases allow: the reference rounds partial sums, kernels the sum.
        step = torch.finfo(torch.bfloat16).eps if wanted.dtype is torch.bfloat16 else 0.0
        rtol, atol = within[0], max(within[1], NOISE, step)
        torch.testing.assert_close(given.to(wide), wanted.to(wide), rtol=rtol, atol=atol, equal_nan=True)


def by_operator(outcomes: Sequence[Outcome]) -> dict[str, Counter[str]]:
    """Verdicts of the cases each operator appears in. `_expanded` cases count for the operators they consist of."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for name in outcome.operators:
            table[name][outcome.verdict] += 1
    return table


def page(outcomes: Sequence[Outcome]) -> str:
    """The conformance page."""
    total = Counter(outcome.verdict for outcome in outcomes)
    scope = [outcome for outcome in outcomes if outcome.expected_reason is None]
    passed = sum(outcome.verdict == "passed" for outcome in scope)
    lines = [
        "# Which ONNX operators run in torch",
        "",
        "Written by `python -m benchmarks.conformance --write`; a test keeps it true. The official node tests of onnx",
        f"{onnx.__version__}, up to opset {onnx.defs.onnx_opset_version()}, through `TorchGraph`:",
        "",
        f"- {total['passed']:,} of {len(outcomes):,} pass, {total['wrong']} are wrong, {total['refused']} are refused;",
        f"- {passed:,} of the {len(scope):,} in scope ({passed / len(scope):.1%}) pass: no text, trees or optimizers.",
        "  Random operators are judged by type and shape, bfloat16 to one rounding of numbers around 1.",
        "",
        "An operator runs by an entry of its own in the table, or by the function body that ONNX gives for it; both",
        "can be trained. *cases* counts the tests it appears in.",
        "",
        "| operator | runs by | cases | passed | refused | wrong |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, count in sorted(by_operator(outcomes).items()):
        row = (sum(count.values()), count["passed"], count["refused"], count["wrong"])
        lines.append(f"| {name} | {_runs_by(name)} | " + " | ".join(map(str, row)) + " |")
    lines += ["", "## Refused", "", "| case | reason |", "|---|---|"]
    lines += [
        f"| {each.name} | {each.expected_reason or each.detail} |" for each in outcomes if each.verdict == "refused"
    ]
    return "\n".join(lines) + "\n"


def _runs_by(name: str) -> str:
    for reason, operators in REFUSED.items():
        if name in operators:
            return f"refused: {reason}"
    if name in ("If", "Loop", "Scan", "Constant"):
        return "the planner"
    return "its own entry" if find_operator("", name) else "its function body"


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    outcomes = run_all()
    text = page(outcomes)
    if parser.parse_args().write:
        PAGE.write_text(text)
    else:
        print(text)
    for outcome in outcomes:
        if outcome.verdict != "passed" and outcome.expected_reason is None:
            print(f"{outcome.verdict}: {outcome.name}: {outcome.detail}")


if __name__ == "__main__":
    main()
