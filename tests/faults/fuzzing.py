"""Fuzzing of uploads, as a confined child does it: damages real files by seed, and checks each as an upload.

Imported in the child by name. What a number makes of a folder's files is always the same.
"""

import io
import json
import random
import re
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from app.contracts.events import Log
from app.contracts.failure import FaultKind, SlimlineError
from worker.entries import GRAPH_FILE
from worker.pipe import Say

LONGEST = 10_000
"""Characters of a message: the child cuts it, but what cuts must not be needed for mere damage."""
HERE = (tempfile.gettempdir(), sys.prefix, sys.base_prefix, str(Path.home()), str(Path(__file__).parents[2]))
TELLTALES = re.compile(
    rf"Traceback|site-packages|File \"|\b0x[0-9a-f]{{6}}|{'|'.join(re.escape(f'{folder}/') for folder in HERE)}"
)
NUMBERS = (0, 1, -1, 2, 63, 64, 65, 127, 255, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, -(1 << 63))
TEXTS = (
    "",
    "x",
    "y",
    "..",
    "../../x",
    "/etc/passwd",
    "a\0b",
    "ü" * 50,
    "n" * 3000,
    "com.microsoft",
    "Loop",
    "%s%n",
    "*" * 9,
)

Rng = random.Random


def fuzz(arguments: dict[str, Any], say: Say) -> None:
    """Check a file damaged by each of the numbers from `start` to `stop`; one line of JSON for each."""
    files = sorted(path for path in Path.cwd().iterdir() if path.suffix in (".onnx", ".npz", ".zip"))
    bases = {path.name: path.read_bytes() for path in files}
    for number in range(arguments["start"], arguments["stop"]):
        rng = Rng(number)
        name = list(bases)[number % len(bases)]
        say(Log(message=json.dumps({"number": number, "name": name})))
        target = Path("damaged")
        target.write_bytes(damage(bases[name], rng, list(bases.values())))
        began = time.process_time()
        found = _judge(target, is_model=name.endswith(".onnx") or name.startswith("model"))
        told = {"number": number, "name": name, "found": found, "cpu_s": time.process_time() - began}
        say(Log(message=json.dumps(told)))


def _judge(path: Path, *, is_model: bool) -> str:
    """`accepted`, the code of a good refusal, or what is wrong, with an exclamation mark before it."""
    try:
        if is_model:
            _ingest(path)
        else:
            _check(path)
    except SlimlineError as error:
        failure = error.failure
        text = f"{failure.message} {failure.node} {failure.hint}"
        if failure.kind is not FaultKind.USER or not failure.hint or TELLTALES.search(text) or len(text) > LONGEST:
            return f"! {failure.kind} {failure.code}: {text[:2000]}"
        return failure.code
    except MemoryError:
        return "OUT_OF_MEMORY"
    except RecursionError:
        return "GRAPH_TOO_DEEP"
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"! {traceback.format_exc()}"
    return "accepted"


def _ingest(path: Path) -> None:
    from worker.engine.ingest import ingest_model
    from worker.engine.methods import applicability
    from worker.engine.pruning.report import describe_channels

    _, facts = ingest_model(path, output=Path(GRAPH_FILE), applicability=applicability, channels=describe_channels)
    facts.model_dump_json()


def _check(path: Path) -> None:
    from worker.engine.data import check_dataset

    check_dataset(path).model_dump_json()


def damage(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    """`content` with one to three things wrong in it: in its structure where it has one, or in its bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.choice([*BYTES, lambda content, rng, _: _restructure(content, rng, others)])
        content = change(content, rng, others)
    return content


def _restructure(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    if content.startswith(b"PK"):
        return _repack(content, rng, others)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        rng.choice(STRUCTURES)(model, rng)
        return bytes(model.SerializeToString())
    except Exception:  # noqa: BLE001 - it was damaged before, or does not take the change
        return _flip(content, rng, others)


def _repack(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    """A sound archive whose members are damaged."""
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
            for name in source.namelist():
                member = source.read(name)
                if rng.random() < 0.5:
                    member = rng.choice(BYTES)(member[:300], rng, others) + member[300:] if rng.random() < 0.7 else b""
                target.writestr(rng.choice(TEXTS) if rng.random() < 0.1 else name, member)
    except Exception:  # noqa: BLE001 - it was damaged before
        return _flip(content, rng, others)
    return packed.getvalue()


def _at(content: bytes, rng: Rng) -> int:
    """A place, often among the first bytes or the last, where headers are."""
    near = min(len(content), 200)
    return rng.choice(
        (rng.randrange(len(content) + 1), rng.randrange(near + 1), len(content) - rng.randrange(near + 1))
    )


def _flip(content: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content or b"\0")
    for _number in range(rng.choice((1, 2, 8))):
        changed[_at(changed[1:], rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    at = _at(content, rng)
    return rng.choice((content[:at], content[:at] + content[at + rng.choice((1, 4, 64)) :]))


def _insert(content: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    at = _at(content, rng)
    return content[:at] + rng.randbytes(rng.choice((1, 4, 16))) + content[at:]


def _splice(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    at, begin = _at(content, rng), rng.randrange(len(other))
    return content[:at] + other[begin : begin + rng.choice((8, 64, 1024))] + content[at + rng.choice((0, 8, 64)) :]


def _lie(content: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Overwrite what may be a length or a count."""
    at = _at(content, rng)
    number = (rng.choice(NUMBERS) % (1 << 64)).to_bytes(8, "little")[: rng.choice((1, 2, 4, 8))]
    return content[:at] + number + content[at + len(number) :]


def _change_node(model: onnx.ModelProto, rng: Rng) -> None:
    node = rng.choice(model.graph.node)
    match rng.randrange(6):
        case 0:
            node.op_type = rng.choice([*TEXTS, *(schema.name for schema in onnx.defs.get_all_schemas())])
        case 1:
            node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))
        case 2:
            node.output[0] = rng.choice(_names(model))
        case 3:
            del node.input[rng.randrange(len(node.input)) :]
        case 4:
            node.name = rng.choice(TEXTS)
        case _:
            node.domain = rng.choice(TEXTS)


def _change_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    attribute = rng.choice([each for node in model.graph.node for each in node.attribute])
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif rng.random() < 0.3:
        attribute.type = rng.choice((1, 2, 3, 4, 5, 6, 7, 8))
    elif rng.random() < 0.3:
        attribute.name = rng.choice((*TEXTS, "axis", "group", "pads"))
    else:
        attribute.i = rng.choice(NUMBERS)


def _change_tensor(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(5):
        case 0:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
        case 1:
            tensor.data_type = rng.randrange(25)
        case 2:  # numbers: sizes, axes and indices among them
            tensor.raw_data = b"".join(
                rng.choice((tensor.raw_data[:8], rng.randbytes(8))) for _ in range(0, len(tensor.raw_data), 8)
            )
        case 3:
            tensor.name = rng.choice(_names(model))
        case _:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key in ("location", "offset", "length"):
                tensor.external_data.add(key=key, value=rng.choice((*TEXTS, *map(str, NUMBERS), "damaged")))


def _change_value(model: onnx.ModelProto, rng: Rng) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    match rng.randrange(4):
        case 0:
            dims[rng.randrange(len(dims))].dim_value = rng.choice(NUMBERS)
        case 1:
            dims[rng.randrange(len(dims))].dim_param = rng.choice(TEXTS)
        case 2:
            value.type.tensor_type.elem_type = rng.randrange(25)
        case _:
            del dims[rng.randrange(len(dims)) :]


def _change_model(model: onnx.ModelProto, rng: Rng) -> None:
    match rng.randrange(5):
        case 0:
            model.opset_import[0].version = rng.choice((*range(1, 26), *NUMBERS))
        case 1:
            model.ir_version = rng.choice((*range(14), *NUMBERS))
        case 2:
            model.graph.node.append(rng.choice(model.graph.node))
        case 3:
            del model.graph.node[rng.randrange(len(model.graph.node))]
        case _:
            model.graph.metadata_props.add(key="slimline.source_names", value=rng.choice((*TEXTS, "[]", '{"a": 1}')))


def _names(model: onnx.ModelProto) -> list[str]:
    made = (name for node in model.graph.node for name in node.output)
    return [*made, *(tensor.name for tensor in model.graph.initializer), *TEXTS]


Change = Callable[[bytes, Rng, Sequence[bytes]], bytes]
BYTES: tuple[Change, ...] = (_flip, _flip, _cut, _insert, _splice, _lie)
STRUCTURES = (_change_node, _change_attribute, _change_tensor, _change_tensor, _change_value, _change_model)
