"""Which operators and versions are let in. Whether they are used rightly is for the ONNX checker and ONNX Runtime."""

from collections.abc import Iterable, Iterator, Mapping

import onnx

from app.contracts.failure import SlimlineError
from worker.engine.graph.structure import label

_DEFAULT = ("", "ai.onnx")
_CONTRIBUTED = "com.microsoft"
_CLASSIC = "ai.onnx.ml"
_POSITIVE = frozenset({"group", "strides", "dilations", "kernel_shape", "num_groups", "blocksize", "hidden_size"})
_LONGEST_EQUATION = 1024
_CONSTANTS: Mapping[str, int] = {
    "value": onnx.AttributeProto.TENSOR,
    "value_float": onnx.AttributeProto.FLOAT,
    "value_floats": onnx.AttributeProto.FLOATS,
    "value_int": onnx.AttributeProto.INT,
    "value_ints": onnx.AttributeProto.INTS,
    "value_string": onnx.AttributeProto.STRING,
    "value_strings": onnx.AttributeProto.STRINGS,
    "sparse_value": onnx.AttributeProto.SPARSE_TENSOR,
}
_MESSAGES: Mapping[int, str] = {onnx.AttributeProto.TENSOR: "t", onnx.AttributeProto.GRAPH: "g"}


def check_operators(model: onnx.ModelProto) -> None:
    """Raises SlimlineError for a version, operator or domain that is not let in, and for names that are no text."""
    for node in walk([*model.graph.node, *(node for function in model.functions for node in function.node)]):
        if not all(isinstance(text, str) for text in (node.op_type, node.domain, node.name, *node.input, *node.output)):
            raise SlimlineError(
                "MODEL_UNREADABLE",
                "the file is damaged: a node has a name that is no text",
                hint="send it again, or export the model again",
            )
    _check_versions(model)
    versions = _versions(model.opset_import)
    functions = {(function.domain, function.name) for function in model.functions}
    for function in model.functions:
        inner = _versions(function.opset_import)
        if any(inner.get(domain, version) != version for domain, version in versions.items()):
            raise SlimlineError(
                "OPSET_MIXED",
                f"function {function.name!r} imports another opset than the model",
                node=function.name,
                hint="export with one opset, or inline functions first: onnx.inliner.inline_local_functions",
            )
        _check_nodes(function.node, {**versions, **inner}, functions)
    _check_nodes(model.graph.node, versions, functions)


def _check_versions(model: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = _versions(model.opset_import).get("", 0)
    if model.ir_version > onnx.IR_VERSION or not 1 <= version <= newest:
        told = f"opset {version}" if version else "no opset"
        raise SlimlineError(
            "OPSET_UNSUPPORTED",
            f"the model has {told} and IR version {model.ir_version}; up to opset {newest} and IR version "
            f"{onnx.IR_VERSION} are understood",
            hint="export with opset_version=20",
        )


def _check_nodes(nodes: Iterable[onnx.NodeProto], versions: Mapping[str, int], functions: set[tuple[str, str]]) -> None:
    for node in walk(nodes):
        if (node.domain, node.op_type) in functions or node.domain == _CONTRIBUTED:
            continue
        if node.domain == _CLASSIC:
            raise SlimlineError(
                "MODEL_NOT_A_NETWORK",
                f"{node.op_type} is classic machine learning (trees, scalers), not a network",
                node=label(node),
                hint="send a neural network",
            )
        if node.domain not in _DEFAULT:
            raise SlimlineError(
                "DOMAIN_CUSTOM",
                f"{node.op_type} is of the custom domain {node.domain!r}; custom operators are never loaded",
                node=label(node),
                hint="export with standard ONNX operators only",
            )
        _check_attributes(node)
        if not onnx.defs.has(node.op_type, versions[""], ""):
            raise SlimlineError(
                "OPERATOR_UNKNOWN",
                f"ONNX has no operator {node.op_type!r} in opset {versions['']}",
                node=label(node),
                hint="export with standard ONNX operators only",
            )


def _check_attributes(node: onnx.NodeProto) -> None:
    """What neither the checker nor ONNX Runtime looks at before it divides by it, or takes it apart for minutes."""
    if node.op_type == "Constant" and not _has_one_value(node):
        raise _invalid(node, "it has no value, or one of another type than its name says")
    for attribute in node.attribute:
        if attribute.type in _MESSAGES and not attribute.HasField(_MESSAGES[attribute.type]):
            raise _invalid(node, f"its {attribute.name} is of another type than it says")
        numbers = (*attribute.ints, *([attribute.i] if attribute.HasField("i") else []))
        if attribute.name in _POSITIVE and min(numbers, default=1) < 1:
            raise _invalid(node, f"its {attribute.name} is not positive")
        if attribute.name == "equation" and len(attribute.s) > _LONGEST_EQUATION:
            raise _invalid(node, f"its equation has {len(attribute.s):,} characters")


def _has_one_value(node: onnx.NodeProto) -> bool:
    return len(node.attribute) == 1 and _CONSTANTS.get(node.attribute[0].name) == node.attribute[0].type


def _invalid(node: onnx.NodeProto, what: str) -> SlimlineError:
    name = label(node)
    return SlimlineError(
        "GRAPH_INVALID", f"{node.op_type} {name!r} cannot be: {what}", node=name, hint="export the model again"
    )


def walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes and those in their bodies."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from walk(body.node)


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {"" if each.domain in _DEFAULT else each.domain: each.version for each in imports}
