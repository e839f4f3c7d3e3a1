"""Data of the sample models as the models take it. Which model has which data is said by each benchmark.

Legend: N samples, C channels, H height, W width.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
SEED = 0
CIFAR_MEAN, CIFAR_STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
SPEECH_HELD_OUT, PICTURES_HELD_OUT = 744, 5


@dataclass(frozen=True)
class Split:
    """Inputs as a model takes them, samples first, and their labels where there are any."""

    x: Array
    y: Array | None

    def sample(self, count: int | None) -> "Split":
        """At most `count` samples, drawn by a fixed seed."""
        chosen = np.random.default_rng(SEED).permutation(len(self.x))[:count]
        return Split(self.x[chosen], None if self.y is None else self.y[chosen])

    def save(self, path: Path) -> Path:
        """As an .npz with x and, with labels, y."""
        arrays = {"x": self.x} | ({} if self.y is None else {"y": self.y})
        np.savez(path, allow_pickle=False, **arrays)
        return path


def load_digits(shared: Path, samples: int) -> tuple[Split, Split]:
    """32 x 32 pictures of digits, stored as the models take them."""
    pool, held_out = (np.load(shared / "data" / f"digits32_{name}.npz") for name in ("calibrate", "evaluate"))
    return Split(pool["x"], pool["y"]).sample(samples), Split(held_out["x"], held_out["y"])


def load_cifar(shared: Path, samples: int) -> tuple[Split, Split]:
    """CIFAR-10 as JPEG, in zip files of class folders."""
    train, test = (shared / "data" / f"cifar10_jpeg_{name}.zip" for name in ("train", "test"))
    return _read_pictures(train, samples), _read_pictures(test, None)


def load_mnist(shared: Path, samples: int) -> tuple[Split, Split]:
    """N x 28 x 28 rows of pixels in 0..1."""
    parts = (np.load(shared / "data" / f"mnist_{name}.npz") for name in ("train10k", "test"))
    pool, held_out = (Split(part["x"].astype(np.float32) / 255, part["y"].astype(np.int64)) for part in parts)
    return pool.sample(samples), held_out


def load_speech(shared: Path, samples: int) -> tuple[Split, Split]:
    """N x 1 x 49 x 10 MFCCs, stored as int8 with a scale; the file is split in two."""
    stored = np.load(shared / "data" / "kws_mfcc_test1000.npz")
    x = (stored["x_int8"].astype(np.float32) - np.float32(stored["zero_point"])) * stored["scale"]
    mixed = Split(x[:, None], stored["y"].astype(np.int64)).sample(None)
    return _divide(mixed, SPEECH_HELD_OUT, samples)


def load_photographs(shared: Path, samples: int) -> tuple[Split, Split]:
    """Eleven photographs without labels: six to calibrate, five to measure fidelity on."""
    x = np.load(shared / "data" / "sample_pictures_224.npz")["x"].astype(np.float32)
    return _divide(Split(np.moveaxis((x / 255 - 0.5) / 0.5, -1, 1), None), PICTURES_HELD_OUT, samples)


def _divide(whole: Split, held_out: int, samples: int) -> tuple[Split, Split]:
    labels = (None, None) if whole.y is None else (whole.y[:-held_out], whole.y[-held_out:])
    return Split(whole.x[:-held_out], labels[0]).sample(samples), Split(whole.x[-held_out:], labels[1])


def _read_pictures(path: Path, samples: int | None) -> Split:
    """N x 3 x H x W, normalized; labels count the class folders by name."""
    with zipfile.ZipFile(path) as archive:
        names = np.array(sorted(name for name in archive.namelist() if name.endswith(".jpg")))
        chosen = Split(names, None).sample(samples).x
        classes = sorted({name.partition("/")[0] for name in names})
        stored = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in chosen])
    x = (stored.astype(np.float32) / 255 - CIFAR_MEAN) / CIFAR_STD
    labels = np.array([classes.index(name.partition("/")[0]) for name in chosen])
    return Split(np.ascontiguousarray(np.moveaxis(x, -1, 1)), labels)
