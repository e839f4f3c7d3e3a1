"""Which samples make up which update, and that they come the same wherever one starts."""

import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from app.contracts.training import Augmentation, TrainingOptions
from worker.engine.data import Dataset, open_dataset
from worker.engine.graph import Graph
from worker.engine.training import decoded
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.batches import TrainingData, check_labels_vary

Make = Callable[..., TrainingData]
EVERYTHING = Augmentation(flip=True, crop=2, colour=0.2, mixup=0.3, cutmix=1)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def opened() -> Iterator[list[Dataset]]:
    datasets: list[Dataset] = []
    yield datasets
    for dataset in datasets:
        dataset.close()


@pytest.fixture
def make_data(tmp_path: Path, make_cnn: Callable[..., onnx.ModelProto], opened: list[Dataset]) -> Make:
    """Training data for a small network; every pixel of sample i is i, and its label i % 4 unless others are given."""

    def make(
        samples: int, *, batch: int | str = "batch", place: tuple[int, int] = (0, 1), **given: Any
    ) -> TrainingData:
        arrays = {"x": np.ones((samples, 3, 8, 8), np.float32) * np.arange(samples)[:, None, None, None]}
        labels = given.pop("labels", np.arange(samples) % 4)
        arrays |= {} if labels is None else {"y": labels}
        np.savez(tmp_path / "d.npz", **arrays)
        opened.append(open_dataset(tmp_path / "d.npz"))
        seed, device = given.pop("seed", 0), given.pop("device", "cpu")
        options = TrainingOptions(**{"validation": 0, **given})
        return TrainingData(opened[-1], Graph.from_proto(make_cnn(batch=batch)), options, seed, device, *place)

    return make


def indices(batches: Iterator[TrainingBatch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


def assert_equal(one: TrainingBatch, other: TrainingBatch) -> None:
    for name in ("labels", "partner", "share", "indices"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None and second is None) or torch.equal(first, second)
    assert all(torch.equal(*pair) for pair in zip(one.inputs, other.inputs, strict=True))


def test_an_epoch_has_every_sample_once(make_data: Make) -> None:
    data = make_data(40, batch_size=8)
    batches = list(data.epoch(0))
    assert (len(batches), data.steps_per_epoch, data.samples) == (5, 5, 40)
    assert sorted(indices(iter(batches))) == list(range(40))
    for batch in batches:
        assert batch.labels is not None
        np.testing.assert_array_equal(batch.inputs[0][:, 0, 0, 0], batch.indices)
        np.testing.assert_array_equal(batch.labels, batch.indices % 4)
        assert batch.labels.dtype == torch.int64


def test_every_epoch_has_its_own_order_and_the_seed_decides(make_data: Make) -> None:
    data = make_data(40, batch_size=8)
    assert indices(data.epoch(0)) == indices(data.epoch(0)) != indices(data.epoch(1))
    assert indices(make_data(40, batch_size=8, seed=1).epoch(0)) != indices(data.epoch(0))


def test_what_is_left_over_is_dropped_and_comes_in_another_epoch(make_data: Make) -> None:
    data = make_data(43, batch_size=8)
    epochs = [indices(data.epoch(number)) for number in range(6)]
    assert all(len(set(each)) == len(each) == 40 for each in epochs)
    assert {index for each in epochs for index in each} == set(range(43))


def test_the_rest_of_an_epoch_is_the_same_to_the_bit(make_data: Make) -> None:
    data = make_data(40, batch_size=8, augment=EVERYTHING)
    whole, rest = list(data.epoch(2)), list(make_data(40, batch_size=8, augment=EVERYTHING).epoch(2, start=3))
    assert len(rest) == 2
    for one, other in zip(whole[3:], rest, strict=True):
        assert one.is_augmented
        assert_equal(one, other)
    assert list(data.epoch(2, start=5)) == []


def test_every_batch_draws_its_own_changes(make_data: Make) -> None:
    data = make_data(40, batch_size=8, augment=Augmentation(mixup=1))
    drawn = [batch.share.tolist() for number in range(2) for batch in data.epoch(number) if batch.share is not None]
    drawn += [
        batch.share.tolist()
        for batch in make_data(40, batch_size=16, augment=Augmentation(mixup=1), place=(1, 2)).epoch(0)
        if batch.share is not None
    ]
    assert len({tuple(each) for each in drawn}) == len(drawn) == 12


def test_processes_share_every_update(make_data: Make) -> None:
    alone = make_data(40, batch_size=8)
    both = [make_data(40, batch_size=8, place=(rank, 2)) for rank in range(2)]
    assert [(each.batch_size, each.steps_per_epoch) for each in both] == [(4, 5), (4, 5)]
    for whole, *parts in zip(alone.epoch(1), *(each.epoch(1) for each in both), strict=True):
        assert torch.equal(whole.indices, torch.cat([part.indices for part in parts]))


@pytest.mark.parametrize(
    ("samples", "device", "size"),
    [(2000, "cpu", 64), (2000, "cuda", 128), (1000, "cuda", 64), (150, "cpu", 16), (10, "cpu", 2), (1, "cpu", 1)],
)
def test_the_batch_size_follows_the_samples(make_data: Make, samples: int, device: str, size: int) -> None:
    assert make_data(samples, device=device).batch_size == size


def test_fewer_samples_than_a_batch_are_one_batch(make_data: Make) -> None:
    data = make_data(5, batch_size=64)
    assert (data.batch_size, data.steps_per_epoch) == (5, 1)
    assert sorted(indices(data.epoch(0))) == [0, 1, 2, 3, 4]


def test_a_fixed_batch_is_always_whole(make_data: Make) -> None:
    data = make_data(40, batch=6, batch_size=20)
    assert (data.fixed_batch, data.batch_size, data.steps_per_epoch) == (6, 18, 2)
    for batch in data.epoch(0):
        assert [len(part.inputs[0]) for part in batch.split(6)] == [6, 6, 6]
    few = make_data(4, batch=6)
    (batch,) = few.epoch(0)
    assert (len(batch), len(batch.inputs[0]), set(batch.indices.tolist())) == (6, 6, {0, 1, 2, 3})
    np.testing.assert_array_equal(batch.labels, batch.indices)


def test_judges_of_a_fixed_batch_are_filled_up(make_data: Make) -> None:
    data = make_data(100, batch=6, validation=0.2)
    batches = list(data.held_out_batches())
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    assert all(batch.inputs[0].shape[0] == 6 for batch in batches)
    np.testing.assert_array_equal(batches[-1].inputs[0][:2, 0, 0, 0], batches[-1].indices)
    np.testing.assert_array_equal(batches[-1].labels, batches[-1].indices % 4)


def test_who_judges_is_not_trained_on(make_data: Make) -> None:
    data = make_data(400, validation=0.1, batch_size=30)
    judges = indices(data.held_out_batches())
    assert (data.held_out, data.samples, len(judges)) == (40, 360, 40)
    assert not set(judges) & set(indices(data.epoch(0)))
    assert np.bincount(np.array(judges) % 4).tolist() == [10, 10, 10, 10]
    assert judges == indices(make_data(400, validation=0.1).held_out_batches())
    assert judges != indices(make_data(400, validation=0.1, seed=1).held_out_batches())


def test_small_classes_judge_too_and_none_is_lost(make_data: Make) -> None:
    labels = np.repeat([0, 1, 2, 3, 10**12], [300, 77, 20, 2, 1])
    data = make_data(400, validation=0.1, labels=labels)
    held_out = labels[indices(data.held_out_batches())]
    np.testing.assert_allclose([(held_out == label).sum() for label in range(3)], [30, 7.7, 2], atol=1)
    trained = np.delete(labels, indices(data.held_out_batches()))
    assert set(trained) == {0, 1, 2, 3, 10**12}


def test_too_few_cannot_judge(make_data: Make) -> None:
    assert [make_data(n, validation=0.1).held_out for n in (150, 190, 200)] == [0, 0, 20]
    assert make_data(400, validation=0).held_out == 0
    assert make_data(50, labels=np.arange(50), validation=0.5).held_out == 0  # each of its own class
    assert list(make_data(150, validation=0.1).held_out_batches()) == []
    assert make_data(150, validation=0.1).samples == 150


def test_many_need_not_all_judge(make_data: Make) -> None:
    data = make_data(5000, validation=0.5, labels=None)
    assert (data.held_out, data.samples) == (2000, 3000)


@pytest.mark.parametrize("dtype", ["<f8", ">f4"])
def test_numbers_are_labels_of_a_regression(make_data: Make, dtype: str) -> None:
    labels = np.random.default_rng(0).normal(size=(300, 2)).astype(dtype)
    data = make_data(300, labels=labels, validation=0.1)
    batch = next(data.epoch(0))
    assert batch.labels is not None
    assert batch.labels.dtype == torch.float32
    np.testing.assert_allclose(batch.labels, labels[batch.indices], rtol=1e-7)
    assert data.held_out == 30


def test_statistics_see_unchanged_samples_that_are_trained_on(make_data: Make) -> None:
    data = make_data(400, validation=0.1, batch_size=16, augment=EVERYTHING)
    batches = list(data.training_batches(100))
    assert [len(batch) for batch in batches] == [16] * 6
    assert len(set(indices(iter(batches)))) == 96
    assert not set(indices(iter(batches))) & set(indices(data.held_out_batches()))
    assert not any(batch.is_augmented for batch in batches)
    np.testing.assert_array_equal(batches[0].inputs[0][:, 0, 0, 0], batches[0].indices)
    assert [len(batch) for batch in data.training_batches(1)] == [1]
    assert [len(batch) for batch in make_data(40, batch=6, batch_size=18).training_batches(20)] == [6, 6, 6]


def test_what_cannot_be_read_is_told_in_its_turn(tmp_path: Path, make_cnn: Callable[..., onnx.ModelProto]) -> None:
    x = np.ones((64, 3, 8, 8), np.float32)
    x[17] = np.nan
    np.savez(tmp_path / "d.npz", x=x)
    with open_dataset(tmp_path / "d.npz") as dataset:
        options = TrainingOptions(batch_size=8, validation=0)
        data = TrainingData(dataset, Graph.from_proto(make_cnn()), options, 0, "cpu")
        with pytest.raises(SlimlineError) as refusal:
            list(data.epoch(0))
    assert (refusal.value.failure.code, "sample 17" in refusal.value.failure.message) == ("DATA_NOT_FINITE", True)


def test_data_for_another_model_is_refused_at_once(make_data: Make, make_mlp: Callable[..., onnx.ModelProto]) -> None:
    dataset = make_data(8).dataset
    with pytest.raises(SlimlineError) as refusal:
        TrainingData(dataset, Graph.from_proto(make_mlp()), TrainingOptions(), 0, "cpu")
    assert refusal.value.failure.code == "DATA_SHAPE_MISMATCH"
    with pytest.raises(SlimlineError) as refusal:
        make_data(8, labels=np.zeros((8, 4, 4), np.int64), augment=Augmentation(mixup=1))
    assert refusal.value.failure.code == "AUGMENTATION_NOT_IMAGES"


def test_leaving_early_ends_the_threads(make_data: Make) -> None:
    data = make_data(400, batch_size=8)
    epoch = data.epoch(0)
    next(epoch)
    epoch.close()  # `no_thread_left` looks

    def consume() -> None:
        for _ in data.epoch(0):
            raise LookupError

    with pytest.raises(LookupError):
        consume()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """40 noisy pictures of two classes."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for number in range(40):
            packed = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(packed, "JPEG")
            archive.writestr(f"{'ab'[number % 2]}/{number}.jpg", packed.getvalue())
    return tmp_path / "d.zip"


def from_pictures(path: Path, graph: onnx.ModelProto) -> TrainingData:
    dataset = open_dataset(path, Preprocess(scale=1 / 255, mean=[0.5], std=[0.25]))
    return TrainingData(dataset, Graph.from_proto(graph), TrainingOptions(batch_size=8, validation=0), 0, "cpu")


def test_pictures_are_decoded_once(pictures: Path, make_cnn: Callable[..., onnx.ModelProto]) -> None:
    data = from_pictures(pictures, make_cnn())
    first, again = list(data.epoch(0)), []
    data.dataset.close()  # nothing can be decoded any more
    again = list(data.epoch(0))
    with open_dataset(pictures, data.dataset.preprocess) as dataset:
        stored = dataset.batch(data.graph.inputs, first[0].indices.numpy())
    np.testing.assert_array_equal(first[0].inputs[0], stored.feed["x"])
    for one, other in zip(first, again, strict=True):
        assert_equal(one, other)


def test_too_many_pictures_are_decoded_again(
    pictures: Path, make_cnn: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "LARGEST_BYTES", 40 * 8 * 8 * 3 - 1)
    data = from_pictures(pictures, make_cnn())
    first, again = list(data.epoch(0)), list(data.epoch(0))
    for one, other in zip(first, again, strict=True):
        assert_equal(one, other)
    data.dataset.close()
    with pytest.raises(SlimlineError):
        list(data.epoch(0))


def test_what_is_decoded_is_shared(pictures: Path) -> None:
    with open_dataset(pictures) as dataset:
        kept = decoded.keep_decoded(dataset)
        assert kept is not dataset
        assert decoded.keep_decoded(kept) is kept
        assert kept.facts == dataset.facts


def test_labels_of_one_class_are_refused(make_data: Make) -> None:
    lonely = make_data(9, labels=np.full(9, 3)).dataset
    with pytest.raises(SlimlineError, match="class 3") as refusal:
        check_labels_vary(lonely, None)
    assert refusal.value.failure.code == "ONE_CLASS_ONLY"
    check_labels_vary(lonely, "regression")
    check_labels_vary(make_data(9).dataset, "classification")
    check_labels_vary(make_data(9, labels=None).dataset, None)


def test_real_data_comes_in_full(shared: Path, make_cnn: Callable[..., onnx.ModelProto]) -> None:
    graph = Graph.from_proto(make_cnn(size=32, classes=10))
    with open_dataset(shared / "data" / "cifar10_jpeg_test.zip") as dataset:
        data = TrainingData(dataset, graph, TrainingOptions(), 0, "cpu")
        assert (data.held_out, data.samples, data.batch_size, data.steps_per_epoch) == (1000, 9000, 64, 140)
        batches = list(islice(data.epoch(0), 3))
    assert all(batch.inputs[0].shape == (64, 3, 32, 32) for batch in batches)
    assert all(not torch.equal(one.inputs[0], other.inputs[0]) for one, other in pairwise(batches))
