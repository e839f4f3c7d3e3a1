"""A batch's images changed at random, and the labels that go with them."""

import numpy as np
import pytest
import torch

from app.contracts.failure import SlimlineError
from app.contracts.training import Augmentation
from worker.engine.training.augmentation import Augmenter
from worker.engine.training.batch import TrainingBatch

SIZE = (6, 5)
EVERYTHING = Augmentation(flip=True, crop=2, colour=0.3, mixup=0.4, cutmix=1.0)


def batch(inputs: torch.Tensor | list[torch.Tensor], labels: torch.Tensor | None = None) -> TrainingBatch:
    listed = inputs if isinstance(inputs, list) else [inputs]
    return TrainingBatch(listed, labels, torch.arange(len(listed[0])))


def images(count: int = 200, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, *SIZE, generator=torch.Generator().manual_seed(3))


def changed(options: Augmentation, before: TrainingBatch, seed: int = 0) -> TrainingBatch:
    return Augmenter(options, before)(before, np.random.default_rng(seed))


def test_every_other_image_is_mirrored() -> None:
    x = images()
    after = changed(Augmentation(flip=True), batch(x)).inputs[0]
    is_kept, is_flipped = ((after == each).all((1, 2, 3)) for each in (x, x.flip(3)))
    assert (is_kept ^ is_flipped).all()
    assert 70 < is_flipped.sum() < 130


def test_shifts_reach_everywhere_allowed() -> None:
    rows = torch.arange(6.0)[:, None].expand(200, 1, 6, 5)
    after = changed(Augmentation(crop=2), batch(rows)).inputs[0][:, 0, 2, 0]
    assert set(after.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_channels_last_are_changed_alike() -> None:
    x = images()
    first = changed(EVERYTHING, batch(x, torch.arange(200)))
    last = changed(EVERYTHING, batch(x.movedim(1, 3).contiguous(), torch.arange(200)))
    np.testing.assert_allclose(first.inputs[0], last.inputs[0].movedim(3, 1), atol=1e-6)
    assert first.share is not None
    assert last.share is not None
    np.testing.assert_array_equal(first.share, last.share)
    assert first.is_augmented


def test_the_batch_stays_as_it_was() -> None:
    x = images()
    before = batch(x.clone(), torch.arange(200))
    changed(EVERYTHING, before)
    np.testing.assert_array_equal(before.inputs[0], x)
    assert before.partner is None
    assert not before.is_augmented


def test_label_maps_move_with_their_image() -> None:
    maps = torch.randint(0, 9, (200, *SIZE), generator=torch.Generator().manual_seed(0))
    after = changed(Augmentation(flip=True, crop=2), batch(maps[:, None].float(), maps))
    assert after.labels is not None
    used = after.labels != 255
    assert 0.4 < used.float().mean() < 0.9
    np.testing.assert_array_equal(after.inputs[0][:, 0][used], after.labels[used].float())


def test_images_are_mixed_by_the_share_of_their_labels() -> None:
    x, labels = images(), torch.arange(200)
    after = changed(Augmentation(mixup=0.4), batch(x, labels))
    assert after.share is not None
    assert after.partner is not None
    share = after.share[:, None, None, None]
    np.testing.assert_allclose(after.inputs[0], share * x + (1 - share) * x[after.partner], atol=1e-6)
    np.testing.assert_array_equal(after.labels, labels)
    np.testing.assert_array_equal(after.partner.sort().values, labels)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)) = 0.139: four standard errors.
    assert abs(after.share.mean() - 0.5) < 4 * (0.139 / 200) ** 0.5
    assert abs(after.share.var() - 0.139) < 0.03


def test_the_share_of_a_pasted_box_is_what_can_be_seen() -> None:
    plain = torch.arange(200.0)[:, None, None, None].expand(200, 1, *SIZE)
    after = changed(Augmentation(cutmix=1.0), batch(plain, torch.arange(200)))
    assert after.share is not None
    own = after.inputs[0] == plain
    is_moved = after.partner != torch.arange(200)
    np.testing.assert_allclose(own.float().mean((1, 2, 3))[is_moved], after.share[is_moved], atol=1e-6)
    assert after.share.std() > 0.1


def test_a_coin_chooses_between_mixup_and_cutmix() -> None:
    plain = batch(torch.arange(4.0)[:, None, None, None].expand(4, 1, *SIZE), torch.arange(4))
    augmenter = Augmenter(Augmentation(mixup=1, cutmix=1), plain)
    are_pasted = [
        bool((after.inputs[0] == after.inputs[0].round()).all())
        for seed in range(100)
        if not torch.equal((after := augmenter(plain, np.random.default_rng(seed))).partner, torch.arange(4))
    ]
    assert 0.3 < np.mean(are_pasted) < 0.7


def test_without_labels_only_inputs_are_mixed() -> None:
    after = changed(EVERYTHING, batch(images()))
    assert (after.labels, after.partner, after.share) == (None, None, None)


def test_numbers_are_mixed_too() -> None:
    labels = torch.randn(200, 2)
    after = changed(Augmentation(flip=True, mixup=1), batch(images(), labels))
    assert after.partner is not None
    assert after.partner.shape == labels.shape
    np.testing.assert_array_equal(after.labels, labels)


def test_other_inputs_are_left_alone() -> None:
    state, rate = torch.randn(200, 4), torch.tensor(3)
    after = changed(Augmentation(flip=True, colour=0.5), batch([images(), state, rate]))
    assert after.inputs[1] is state
    assert after.inputs[2] is rate
    mixed = changed(Augmentation(mixup=1), batch([images(), rate]))
    assert mixed.inputs[1] is rate


def test_the_same_numbers_give_the_same_bits() -> None:
    before = batch(images(), torch.arange(200))
    assert torch.equal(changed(EVERYTHING, before, 7).inputs[0], changed(EVERYTHING, before, 7).inputs[0])
    assert not torch.equal(changed(EVERYTHING, before, 7).inputs[0], changed(EVERYTHING, before, 8).inputs[0])


FLIP, MIXUP = Augmentation(flip=True), Augmentation(mixup=1)
MAPS = torch.zeros(2, *SIZE, dtype=torch.int64)


@pytest.mark.parametrize(
    ("options", "inputs", "labels", "told"),
    [
        (FLIP, [torch.zeros(2, 7)], None, "of shape [7]"),
        (FLIP, [torch.zeros(2, 4, 6, 6)], None, "of shape [4, 6, 6]"),
        (FLIP, [torch.zeros(2, 3, 6, 6), torch.zeros(2, 3, 8, 8)], None, "differ in size"),
        (FLIP, [torch.zeros(2, 3, *SIZE)], torch.zeros(2, 3, 3, dtype=torch.int64), "flip and crop"),
        (FLIP, [torch.zeros(2, 3, *SIZE)], torch.zeros(2, *SIZE), "flip and crop"),
        (MIXUP, [torch.zeros(2, 3, *SIZE)], MAPS, "mixup and cutmix"),
        (Augmentation(cutmix=1), [torch.zeros(2, 3, *SIZE)], MAPS, "mixup and cutmix"),
        (MIXUP, [torch.zeros(2, 3, *SIZE), torch.zeros(2, 4)], None, "no images"),
    ],
)
def test_what_cannot_be_changed_is_refused(
    options: Augmentation, inputs: list[torch.Tensor], labels: torch.Tensor | None, told: str
) -> None:
    with pytest.raises(SlimlineError) as refusal:
        Augmenter(options, batch(inputs, labels))
    assert refusal.value.failure.code == "AUGMENTATION_NOT_IMAGES"
    assert told in refusal.value.failure.message
