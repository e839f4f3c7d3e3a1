"""State of a training in one file: tensors, bytes and plain values in nested mappings and lists. No code is stored.

An `.npz` without pickles: the entry `tree` is JSON, in which tensors and bytes are references to the other entries.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.session import Array

State = dict[str, Any]
_TREE = "tree"
_KIND, _KEY, _DTYPE, _ITEMS = "kind", "key", "dtype", "items"
_BITS = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.int8, torch.float8_e5m2: torch.int8}
"""Types that NumPy lacks, and those that hold their bits."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`; tensors may lie on any device. Raises TypeError for values that are neither data nor tensors."""
    arrays: dict[str, Array] = {}
    tree = json.dumps(_pack(state, arrays))
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_TREE: np.frombuffer(tree.encode(), np.uint8)}, **arrays)


def read_state(path: Path) -> State:
    """What was written, tensors on the CPU. Raises SlimlineError CHECKPOINT_BROKEN."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            tree = json.loads(stored[_TREE].tobytes())
            state: State = _unpack(tree, stored)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SlimlineError(
            "CHECKPOINT_BROKEN",
            f"the state of a training cannot be read: {error}",
            kind=FaultKind.TRANSIENT,
            hint="Run the job again.",
        ) from error
    return state


def _pack(value: Any, arrays: dict[str, Array]) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case torch.Tensor():
            held = value.detach().to("cpu", copy=False).contiguous()
            bits = held.view(_BITS[held.dtype]) if held.dtype in _BITS else held
            return _keep("tensor", bits.numpy(), arrays) | {_DTYPE: str(held.dtype).removeprefix("torch.")}
        case bytes():
            return _keep("bytes", np.frombuffer(value, np.uint8), arrays)
        case Mapping():
            # Keys may be numbers, as in the state of an optimizer.
            return {_KIND: "mapping", _ITEMS: [[key, _pack(each, arrays)] for key, each in value.items()]}
        case list() | tuple():
            return [_pack(each, arrays) for each in value]
        case _:
            raise TypeError(f"{type(value)} is no part of a state")


def _keep(kind: str, array: Array, arrays: dict[str, Array]) -> dict[str, str]:
    key = f"a{len(arrays)}"
    arrays[key] = array
    return {_KIND: kind, _KEY: key}


def _unpack(value: Any, arrays: Mapping[str, Array]) -> Any:
    match value:
        case {"kind": "mapping", "items": items}:
            return {key: _unpack(each, arrays) for key, each in items}
        case {"kind": "bytes", "key": key}:
            return arrays[key].tobytes()
        case {"kind": "tensor", "key": key, "dtype": dtype}:
            tensor, wanted = torch.from_numpy(arrays[key]), getattr(torch, dtype)
            return tensor.view(wanted) if wanted in _BITS else tensor
        case list():
            return [_unpack(each, arrays) for each in value]
        case _:
            return value
