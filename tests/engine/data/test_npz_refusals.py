"""Every `.npz`, and everything that is none, that is not let in."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.data import check_dataset

Pack = Callable[[dict[str, bytes]], Path]
X = np.ones((4, 3), np.float32)


def refusal_of(path: Path) -> tuple[str, str | None]:
    with pytest.raises(SlimlineError) as refusal:
        check_dataset(path, filename="upload")
    failure = refusal.value.failure
    assert failure.kind is FaultKind.USER
    assert failure.hint
    return failure.code, failure.node


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=allow_pickle)
    return packed.getvalue()


def with_value(value: float, at: int) -> np.ndarray:
    x = np.ones((200, 3), np.float32)
    x[at, 1] = value
    return x


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    ("arrays", "code", "node"),
    [
        ({"x": X, "y": np.zeros(3, np.int64)}, "DATA_LENGTHS_DIFFER", None),
        ({"x": X, "mask": np.ones((5, 3))}, "DATA_LENGTHS_DIFFER", None),
        ({"x": X[:0]}, "DATASET_EMPTY", None),
        ({"x": np.ones((4, 0))}, "DATASET_EMPTY", None),
        ({"y": np.zeros(4, np.int64)}, "DATASET_EMPTY", None),
        ({"scale": np.float32(1)}, "DATASET_EMPTY", None),
        ({"x": with_value(np.nan, 130)}, "DATA_NOT_FINITE", "x"),
        ({"x": with_value(-np.inf, 0)}, "DATA_NOT_FINITE", "x"),
        ({"x": X, "y": np.array([0, 1, -1, 2])}, "LABELS_INVALID", "y"),
        ({"x": X, "y": np.array([0.0, 1, 2, 3])}, "LABELS_INVALID", "y"),
        ({"x": X, "y": np.eye(4, dtype=np.float32)}, "LABELS_INVALID", "y"),
        ({"x": X, "y": np.array([[0.0], [1], [2], [3]])}, "LABELS_INVALID", "y"),
        ({"x": X, "y": np.array([0.5, 1, np.nan, 2])}, "DATA_NOT_FINITE", "y"),
        ({"x": X, "y": np.array([[0.5, 1], [np.inf, 2], [1, 1], [1, 1]])}, "DATA_NOT_FINITE", "y"),
        ({"x": X, "labels": np.array([True] * 4)}, "LABELS_INVALID", "labels"),
        ({"x": X.astype(np.complex64)}, "DATA_DTYPE_UNSUPPORTED", "x"),
        ({"x": np.array(["2020-01-01"], "datetime64[D]")}, "DATA_DTYPE_UNSUPPORTED", "x"),
    ],
)
def test_arrays_that_are_not_let_in(tmp_path: Path, arrays: dict[str, np.ndarray], code: str, node: str | None) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    assert refusal_of(tmp_path / "d.npz") == (code, node)


def test_the_first_bad_sample_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=with_value(np.nan, 130))
    with pytest.raises(SlimlineError, match="'x' holds NaN or infinity in sample 130"):
        check_dataset(tmp_path / "d.npz")


def test_python_objects_are_never_unpickled(tmp_path: Path, pack: Pack) -> None:
    mark = tmp_path / "owned"
    objects = npy(np.array([Evil(mark)], object), allow_pickle=True)
    assert refusal_of(pack({"x.npy": objects})) == ("DATA_PICKLED", "x")
    assert refusal_of(pack({"x.npy": npy(X), "y.npy": objects})) == ("DATA_PICKLED", "y")
    assert refusal_of(pack({"x.npy": pickle.dumps(Evil(mark))})) == ("DATA_BROKEN", "x")
    assert not mark.exists()


def header(text: str, data: bytes = b"") -> bytes:
    padded = text.encode() + b" " * (118 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "DATA_BROKEN"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "DATA_BROKEN"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }", bytes(47)), "DATA_TRUNCATED"),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 3000), }", bytes(48)),
            "DATA_TRUNCATED",
        ),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3), }", bytes(48)), "DATA_BROKEN"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 'a'), }", bytes(48)), "DATA_BROKEN"),
        (header("{'descr': '<f4', 'fortran_order': (((((((("), "DATA_BROKEN"),
        (header("(" * 110), "DATA_BROKEN"),
        (header("__import__('os').system('true')", bytes(48)), "DATA_BROKEN"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }", bytes(48)), "DATA_PICKLED"),
        (
            header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }", bytes(48)),
            "DATA_DTYPE_UNSUPPORTED",
        ),
    ],
)
def test_headers_that_lie(pack: Pack, content: bytes, code: str) -> None:
    assert refusal_of(pack({"x.npy": content})) == (code, "x")


def test_members_that_are_no_arrays(pack: Pack) -> None:
    assert refusal_of(pack({"x.npy": npy(X), "readme.txt": b"hello"})) == ("DATA_MEMBER_UNKNOWN", "readme.txt")


def test_paths_that_lead_out(pack: Pack) -> None:
    assert refusal_of(pack({"x.npy": npy(X), "../../y.npy": npy(X)}))[0] == "ARCHIVE_PATH_UNSAFE"


def test_a_bomb_of_zeros(tmp_path: Path) -> None:
    """Stopped after 256 MiB, however much more would come."""
    with (
        zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(header("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000,), }"))
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert refusal_of(tmp_path / "d.npz") == ("ARCHIVE_TOO_LARGE", "x.npy")


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated(tmp_path: Path, share: float) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).standard_normal((100, 10)))
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[: int(len(whole) * share)])
    assert refusal_of(tmp_path / "d.npz")[0] == "ARCHIVE_BROKEN"


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n1,2\n", pickle.dumps([1]), npy(X), b"\x89HDF\r\n\x1a\n", b"\x1f\x8b\x08", b"PAR1", b"<html>"],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.bin").write_bytes(content)
    assert refusal_of(tmp_path / "d.bin")[0] == "DATASET_NOT_RECOGNIZED"
