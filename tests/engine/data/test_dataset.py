"""Feeding a graph: which array goes where, in what type, shape and order."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.contracts.facts import TensorSpec
from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from worker.engine.data import check_dataset, open_dataset

Pack = Callable[[dict[str, bytes]], Path]
Size = int | str | None


def spec(name: str = "x", shape: tuple[Size, ...] = ("n", 3), dtype: str = "float") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=list(shape))


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez_compressed(folder / "d.npz", **arrays)
    return folder / "d.npz"


@settings(deadline=None, max_examples=40)
@given(
    x=st.sampled_from([np.float32, np.float64, np.uint8, np.int64]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
            elements={"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else None,
        )
    ),
    fortran=st.booleans(),
    compressed=st.booleans(),
    batch_size=st.integers(1, 7),
    seed=st.none() | st.integers(0, 3),
)
def test_batches_hold_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory,
    x: np.ndarray,
    fortran: bool,
    compressed: bool,
    batch_size: int,
    seed: int | None,
) -> None:
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    y = np.arange(len(x))
    (np.savez_compressed if compressed else np.savez)(path, x=np.asfortranarray(x) if fortran else x, y=y)
    dtype = {"float32": "float", "float64": "double"}.get(str(x.dtype), str(x.dtype))
    with open_dataset(path) as dataset:
        specs = [spec("input", ("n", *x.shape[1:]), dtype)]
        batches = list(dataset.batches(specs, batch_size, seed=seed))
    order = np.concatenate([batch.labels for batch in batches])
    np.testing.assert_array_equal(np.sort(order), y)
    np.testing.assert_array_equal(np.concatenate([batch.feed["input"] for batch in batches]), x[order])
    assert seed is not None or (order == y).all()
    assert [batch.count for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_facts(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.ones((5, 3)), y=np.array([2, 0, 1, 1, 4], np.uint8), names=np.array(["a", "b"]))
    facts = check_dataset(path)
    assert (facts.format, facts.samples, facts.has_labels) == ("npz", 5, True)
    assert (facts.label_min, facts.label_max, facts.classes) == (0, 4, None)
    assert [array.model_dump() for array in facts.arrays] == [{"name": "x", "dtype": "double", "shape": [5, 3]}]
    assert facts.notes == ["text is not used: names"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2, 3)])
def test_floats_are_labels_of_a_regression(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    y = np.linspace(-3, 4, int(np.prod(shape))).reshape(shape).astype(dtype)
    path = saved(tmp_path, x=np.ones((5, 3)), y=y)
    facts = check_dataset(path)
    assert (facts.has_labels, facts.label_min, facts.label_max) == (True, None, None)
    with open_dataset(path) as dataset:
        dataset.check_for([spec()], [spec("scores", ("n", 2))])
        batches = list(dataset.batches([spec()], 2))
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), y)


@pytest.mark.parametrize("values", [[-1, 1, -1, 1], [0, 1, 2, 2.5]])
def test_floats_that_can_be_no_classes_are_let_in(tmp_path: Path, values: list[float]) -> None:
    assert check_dataset(saved(tmp_path, x=np.ones((4, 3)), y=np.array(values, np.float32))).has_labels


def test_a_limit_is_spread_over_the_file_or_shuffled(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.zeros((10, 3)), y=np.arange(10))
    with open_dataset(path) as dataset:
        spread = [label for batch in dataset.batches([spec()], 2, limit=5) for label in batch.labels]
        assert spread == [0, 2, 4, 6, 8]
        first = [list(batch.labels) for batch in dataset.batches([spec()], 4, limit=6, seed=1)]
        again = [list(batch.labels) for batch in dataset.batches([spec()], 4, limit=6, seed=1)]
        other = [list(batch.labels) for batch in dataset.batches([spec()], 4, limit=6, seed=2)]
    assert first == again != other
    assert len({label for batch in first for label in batch}) == 6


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.arange(15).reshape(5, 3).astype(np.float32), y=np.arange(5))
    with open_dataset(path) as dataset:
        batches = list(dataset.batches([spec(shape=(4, 3))], batch_size=2))
    assert [batch.count for batch in batches] == [4, 1]
    assert all(batch.feed["x"].shape == (4, 3) for batch in batches)
    np.testing.assert_array_equal(batches[1].feed["x"], np.tile([12, 13, 14], (4, 1)))
    np.testing.assert_array_equal(batches[1].labels, [4])


def test_several_inputs_and_a_scalar(tmp_path: Path) -> None:
    path = saved(tmp_path, image=np.full((2, 1, 4, 4), 255, np.uint8), state=np.ones((2, 3)), rate=np.int64(16000))
    specs = [spec("image", ("n", 1, 4, 4)), spec("state"), spec("rate", (), "int64")]
    with open_dataset(path, Preprocess(scale=1 / 255)) as dataset:
        (batch,) = dataset.batches(specs, 8)
    np.testing.assert_allclose(batch.feed["image"], 1)
    np.testing.assert_allclose(batch.feed["state"], 1)  # no image: not preprocessed
    assert (batch.feed["rate"].shape, int(batch.feed["rate"]), batch.labels) == ((), 16000, None)


@pytest.mark.parametrize(
    ("stored", "wanted", "is_let_in"),
    [
        ("float64", "float", True),
        ("float32", "float16", True),
        ("float16", "double", True),
        ("uint8", "float", True),
        ("int16", "float", True),
        ("int64", "int32", True),
        ("int32", "int64", True),
        ("uint8", "int64", True),
        ("bool", "bool", True),
        ("int64", "float", False),
        ("float32", "int64", False),
        ("float32", "bool", False),
    ],
)
def test_types(tmp_path: Path, stored: str, wanted: str, is_let_in: bool) -> None:
    path = saved(tmp_path, x=np.ones((2, 3), stored))
    with open_dataset(path) as dataset:
        if is_let_in:
            (batch,) = dataset.batches([spec(dtype=wanted)], 4)
            assert (batch.feed["x"] == 1).all()
            return
        with pytest.raises(SlimlineError) as refusal:
            dataset.check_for([spec(dtype=wanted)])
    assert refusal.value.failure.code == "DATA_DTYPE_MISMATCH"
    assert "astype" in refusal.value.failure.hint


def test_whole_numbers_that_do_not_fit_are_found_when_read(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.array([[1], [1 << 40]]))
    with open_dataset(path) as dataset, pytest.raises(SlimlineError) as refusal:
        list(dataset.batches([spec(shape=("n", 1), dtype="int32")], 1))
    assert refusal.value.failure.code == "DATA_DTYPE_MISMATCH"


def test_numbers_beyond_the_inputs_range(tmp_path: Path) -> None:
    with open_dataset(saved(tmp_path, x=np.full((1, 3), 1e300))) as dataset, pytest.raises(SlimlineError) as refusal:
        dataset.check_for([spec()])
    assert refusal.value.failure.code == "DATA_DTYPE_MISMATCH"


@pytest.mark.parametrize(
    ("specs", "code", "told"),
    [
        ([spec(shape=("n", 4))], "DATA_SHAPE_MISMATCH", ["[n, 4]", "[samples, 3]"]),
        ([spec(shape=("n", 1, 3))], "DATA_SHAPE_MISMATCH", ["[n, 1, 3]", "[samples, 3]"]),
        ([spec(shape=())], "DATA_SHAPE_MISMATCH", ["[]", "[samples, 3]"]),
        ([spec("a"), spec("b")], "DATA_ARRAYS_MISMATCH", ["it has x", "wants a, b"]),
        ([spec(), spec("z")], "DATA_ARRAYS_MISMATCH", ["'z'"]),
    ],
)
def test_what_does_not_fit_the_graph(tmp_path: Path, specs: list[TensorSpec], code: str, told: list[str]) -> None:
    with open_dataset(saved(tmp_path, x=np.ones((2, 3)))) as dataset, pytest.raises(SlimlineError) as refusal:
        dataset.check_for(specs)
    failure = refusal.value.failure
    assert failure.code == code
    assert all(part in failure.message for part in told)


def test_an_input_whose_first_axis_is_not_the_batch(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.ones((4, 3)), state=np.ones((4, 5)))
    with open_dataset(path) as dataset, pytest.raises(SlimlineError) as refusal:
        dataset.check_for([spec(), spec("state", (2, 5))])
    assert (refusal.value.failure.code, refusal.value.failure.node) == ("DATA_SHAPE_MISMATCH", "state")


def test_labels_out_of_the_models_range(tmp_path: Path) -> None:
    with open_dataset(saved(tmp_path, x=np.ones((2, 3)), y=np.array([0, 10]))) as dataset:
        dataset.check_for([spec()], [spec("scores", ("n", 11))])
        dataset.check_for([spec()], [spec("map", ("n", 4, 4))])
        with pytest.raises(SlimlineError) as refusal:
            dataset.check_for([spec()], [spec("scores", ("n", 10))])
    assert refusal.value.failure.code == "LABELS_OUT_OF_RANGE"
    assert "up to 10" in refusal.value.failure.message


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    peaks = []
    for count in (64, 4096):
        path = saved(tmp_path, x=np.zeros((count, 32, 32), np.float32), y=np.zeros(count, np.int64))
        tracemalloc.start()
        check_dataset(path)
        with open_dataset(path) as dataset:
            for _ in dataset.batches([spec(shape=("n", 32, 32))], 16):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 4 << 20  # the larger file holds 16 MiB


def test_closing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with open_dataset(saved(tmp_path, x=np.ones((2, 3)))):
        assert list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "tmp").iterdir())
    with pytest.raises(SlimlineError):
        open_dataset(saved(tmp_path, x=np.ones((2, 3)), y=np.ones(3, np.int64)))
    assert not list((tmp_path / "tmp").iterdir())
