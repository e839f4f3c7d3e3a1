"""What is trained and on what: sample models with data, divided so that nothing is tested on what was trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.comparison.data import Split, load_cifar, load_digits

CALIBRATED = 512
"""Samples to calibrate with, of those to train on."""
DIGITS = ("digits32_resnet18", "digits32_mbv2hard", "digits32_vit")
RESNET20, RESNET56 = "resnet20_cifar10_jpegtuned", "resnet56_cifar10"
_DIGITS_POOL, _DIGITS_MORE = 256, 700
"""Samples of the calibration data and, of the evaluation data, those to train on; the others test."""


@dataclass(frozen=True)
class Material:
    """A model, files of samples to train and to calibrate it with, and what it is tested on."""

    model: Path
    train: Path
    calibrate: Path
    test: Split

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.stem


def prepare_cifar(shared: Path, samples: int, tested: int | None, folder: Path) -> Material:
    """ResNet-20 and CIFAR-10 as JPEG: `samples` to train on, and of the test set all or `tested`."""
    train, test = load_cifar(shared, samples)
    files = _save(train, folder, "cifar")
    return Material(shared / "models" / f"{RESNET20}.onnx", *files, test.sample(tested))


def prepare_digits(shared: Path, folder: Path) -> list[Material]:
    """The three networks for digits, which share their data."""
    pool, rest = load_digits(shared, _DIGITS_POOL)
    assert pool.y is not None
    assert rest.y is not None
    train = Split(np.concatenate([pool.x, rest.x[:_DIGITS_MORE]]), np.concatenate([pool.y, rest.y[:_DIGITS_MORE]]))
    files = _save(train, folder, "digits")
    test = Split(rest.x[_DIGITS_MORE:], rest.y[_DIGITS_MORE:])
    return [Material(shared / "models" / f"{name}.onnx", *files, test) for name in DIGITS]


def _save(train: Split, folder: Path, name: str) -> tuple[Path, Path]:
    """All of it, and what to calibrate with."""
    return train.save(folder / f"{name}-train.npz"), train.sample(CALIBRATED).save(folder / f"{name}-calibrate.npz")
