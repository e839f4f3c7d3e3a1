"""`Augmenter`: random changes of one training batch. What is done to the pixels is `tensors.augmentation`.

Legend: N samples, C channels, H height, W width.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from app.contracts.failure import SlimlineError
from app.contracts.training import Augmentation
from worker.engine.session import Array
from worker.engine.tensors import augmentation
from worker.engine.training.batch import TrainingBatch

_IMAGE_RANK, _MAP_RANK = 4, 3
_CHANNELS = (3, 1)
_LAST = 3
Change = Callable[[torch.Tensor], torch.Tensor]


class Augmenter:
    """Changes images, and the labels that go with them.

    Images are inputs of rank 4 with 3 or 1 channels at axis 1 or the last; several must be of one size, and are changed
    alike. Label maps of their size are moved with them. Labels that are numbers stay as they are.
    """

    def __init__(self, options: Augmentation, sample: TrainingBatch) -> None:
        """`sample` is any batch of the data. Raises SlimlineError AUGMENTATION_NOT_IMAGES."""
        self._options = options
        self._axes = [_channel_axis(each) for each in sample.inputs]
        sizes = {_size(*pair) for pair in zip(sample.inputs, self._axes, strict=True) if pair[1]}
        self._has_maps = sample.labels is not None and sample.labels.ndim == _MAP_RANK
        _check(options, sample, self._axes, sizes)
        self._size = next(iter(sizes))

    def __call__(self, batch: TrainingBatch, rng: np.random.Generator) -> TrainingBatch:
        """A changed batch on the same device; all that is random comes from `rng`."""
        options = self._options
        if options.flip or options.crop:
            batch = self._move(batch, rng)
        if options.colour:
            batch = self._recolour(batch, rng)
        if options.mixup or options.cutmix:
            batch = self._mix(batch, rng)
        return replace(batch, is_augmented=True)

    def _move(self, batch: TrainingBatch, rng: np.random.Generator) -> TrainingBatch:
        places = []
        for length in self._size:
            shift = rng.integers(-self._options.crop, self._options.crop + 1, (len(batch), 1))
            places.append(np.arange(length) + shift)
        if self._options.flip:
            places[1] = np.where(rng.random((len(batch), 1)) < 1 / 2, places[1][:, ::-1], places[1])
        rows, columns = (_drawn(each, batch) for each in places)
        pixels = augmentation.find_pixels(rows, columns)
        labels = batch.labels
        if self._has_maps and labels is not None:
            labels = augmentation.take_labels(labels, rows, columns)
        return replace(self._changed(batch, lambda images: augmentation.take_pixels(images, pixels)), labels=labels)

    def _recolour(self, batch: TrainingBatch, rng: np.random.Generator) -> TrainingBatch:
        change = self._options.colour
        brightness, contrast, saturation = _drawn(rng.uniform(-change, change, (3, len(batch))), batch)
        return self._changed(
            batch, lambda images: augmentation.recolour(images, brightness, 1 + contrast, 1 + saturation)
        )

    def _mix(self, batch: TrainingBatch, rng: np.random.Generator) -> TrainingBatch:
        """Mixup or CutMix; where both are asked for, a fair coin decides for the whole batch."""
        options = self._options
        other = _drawn(rng.permutation(len(batch)), batch)
        if not options.cutmix or (options.mixup and rng.random() < 1 / 2):
            share = _drawn(rng.beta(options.mixup, options.mixup, len(batch)), batch)
            mixed = self._changed(batch, lambda images: augmentation.blend(images, images[other], share))
        else:
            area = _drawn(rng.beta(options.cutmix, options.cutmix, len(batch)), batch)
            centres = _drawn(rng.random((len(batch), 2)), batch)
            boxes = augmentation.find_boxes(centres, area, self._size)
            mixed = self._changed(batch, lambda images: augmentation.paste(images, images[other], boxes))
            share = 1 - boxes.float().mean((1, 2))
        if batch.labels is None:
            return mixed
        return replace(mixed, partner=batch.labels[other], share=share)

    def _changed(self, batch: TrainingBatch, change: Change) -> TrainingBatch:
        inputs = [
            change(each.movedim(axis, 1)).movedim(1, axis).contiguous() if axis else each
            for each, axis in zip(batch.inputs, self._axes, strict=True)
        ]
        return replace(batch, inputs=inputs)


def _drawn(values: Array, batch: TrainingBatch) -> torch.Tensor:
    """Random numbers, drawn on the CPU so that they are the same everywhere, on the batch's device."""
    drawn = torch.from_numpy(np.ascontiguousarray(values)).to(batch.inputs[0].device)
    return drawn.float() if drawn.is_floating_point() else drawn


def _channel_axis(values: torch.Tensor) -> int | None:
    """Where an image has its channels; None for what is no image."""
    if values.ndim != _IMAGE_RANK:
        return None
    return next((axis for count in _CHANNELS for axis in (1, _LAST) if values.shape[axis] == count), None)


def _size(image: torch.Tensor, axis: int | None) -> tuple[int, int]:
    return (image.shape[1], image.shape[2]) if axis == _LAST else (image.shape[2], image.shape[3])


def _check(options: Augmentation, sample: TrainingBatch, axes: list[int | None], sizes: set[tuple[int, int]]) -> None:
    """Raises SlimlineError AUGMENTATION_NOT_IMAGES for the first thing that cannot be done."""
    labels = sample.labels
    are_moved, are_mixed = options.flip or options.crop, options.mixup or options.cutmix
    has_others = any(axis is None and each.ndim for each, axis in zip(sample.inputs, axes, strict=True))
    is_spatial = labels is not None and labels.ndim >= _MAP_RANK
    moves_along = labels is not None and not labels.is_floating_point() and tuple(labels.shape[1:]) in sizes
    shapes = ", ".join(str(list(each.shape[1:])) for each in sample.inputs)
    problems = {
        f"the samples are no images with 1 or 3 channels, but of shape {shapes}": not sizes,
        f"the images of one sample differ in size: {shapes}": len(sizes) > 1,
        "mixup and cutmix cannot mix the inputs that are no images": are_mixed and has_others,
        "mixup and cutmix are for labels of whole images, not for maps": are_mixed and is_spatial,
        "flip and crop cannot move labels that are no class map of the image's size": (
            are_moved and is_spatial and not moves_along
        ),
    }
    for what, is_so in problems.items():
        if is_so:
            raise SlimlineError("AUGMENTATION_NOT_IMAGES", what, hint="Leave that part of `augment` out.")
