"""What a machine without exporters and image readers is given: exported models with inputs, and pictures as arrays.

Legend: N samples, H height, W width, C channels.
"""

import contextlib
import io
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.zoo import Size, zoo
from worker.engine.ingest import ingest_model

BATCH = 8
"""Samples of the inputs that come with a model."""
TRAINED, IN_THE_PAPER = "resnet20_cifar10_jpegtuned", "resnet56_cifar10"
SAMPLE_MODELS = (TRAINED, IN_THE_PAPER)
PICTURES = ("cifar10_jpeg_train", "cifar10_jpeg_test")


@dataclass(frozen=True)
class Subject:
    """A model of the zoo as Slimline takes it in, and inputs in its order."""

    name: str
    model: Path
    inputs: Path

    def load_inputs(self) -> list[Tensor]:
        """On the CPU."""
        with np.load(self.inputs) as stored:
            return [torch.from_numpy(stored[name]) for name in stored.files]


def prepare_models(folder: Path, size: Size, names: Collection[str]) -> None:
    """Export them into `folder`, with inputs. Needs what the zoo and the exporter need."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        entry = zoo(size)[name]
        model = folder / f"{name}.onnx"
        with tempfile.TemporaryDirectory() as scratch:
            exported = Path(scratch) / model.name
            entry.program(is_optimized=False).save(exported)
            ingest_model(exported, output=model)
        inputs = {key: value.numpy() for key, value in entry.example(BATCH).items()}
        np.savez(folder / f"{name}.npz", allow_pickle=False, **inputs)


def prepare_sample_models(folder: Path, shared: Path) -> None:
    """Take them in where constants can be folded: without that, nobody can count their MACs."""
    for name in SAMPLE_MODELS:
        ingest_model(shared / "models" / f"{name}.onnx", output=find_sample_model(folder, name))


def find_sample_model(folder: Path, name: str) -> Path:
    """Where it lies in a prepared folder."""
    return folder / "samples" / f"{name}.onnx"


def prepare_pictures(folder: Path, shared: Path, most: int | None) -> None:
    """At most so many of each set, as arrays in `folder`. Needs Pillow."""
    for name in PICTURES:
        x, y = _read_pictures(shared / "data" / f"{name}.zip", most)
        np.savez_compressed(folder / f"{name}.npz", x=x, y=y)


def find_subjects(folder: Path) -> list[Subject]:
    """Every model there."""
    return [Subject(path.stem, path, path.with_suffix(".npz")) for path in sorted(folder.glob("*.onnx"))]


@contextlib.contextmanager
def prepared_or_made(given: Path | None, size: Size, names: Collection[str]) -> Iterator[Path]:
    """The folder given, else one that is filled now. Raises ImportError where that takes what is not installed."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="slimline-gpu-") as folder:
        prepare_models(Path(folder), size, names)
        yield Path(folder)


def _read_pictures(path: Path, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """[N, H, W, C] 0..255 and labels [N], which count the class folders by name."""
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.partition("/")[0] for name in names})
        chosen = [names[index] for index in np.random.default_rng(0).permutation(len(names))[:most]]
        pictures = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in chosen]
    return np.stack(pictures), np.array([classes.index(name.partition("/")[0]) for name in chosen])
