"""Datasets: `open_dataset` gives batches a graph can be fed with, `check_dataset` looks at every sample once."""

from pathlib import Path

from app.contracts.facts import DatasetFacts
from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from worker.engine.data.dataset import Batch, Dataset
from worker.engine.data.facts import check_every_sample
from worker.engine.data.images import ImageSource
from worker.engine.data.npz import NpzSource
from worker.engine.data.source import Source
from worker.engine.ingest.archive import Archive
from worker.engine.ingest.signatures import ZIP, recognize

__all__ = ["Batch", "Dataset", "check_dataset", "open_dataset"]


def open_dataset(path: str | Path, preprocess: Preprocess | None = None, *, filename: str | None = None) -> Dataset:
    """The `.npz`, or the `.zip` of class folders with images, at `path`; `filename` is what the user calls it.

    Raises SlimlineError for what is neither, unsafe or inconsistent. Sample values are looked at when they are read.
    """
    path = Path(path)
    found = recognize(path)
    if found is not ZIP:
        raise SlimlineError(
            "DATASET_NOT_RECOGNIZED",
            f"{filename or path.name!r} is {found.what}, not a .npz or a .zip of images",
            hint="send an .npz with x (and y), or a .zip of class folders with images",
        )
    return Dataset(_open_source(path, preprocess), preprocess, path)


def check_dataset(
    path: str | Path, preprocess: Preprocess | None = None, *, filename: str | None = None
) -> DatasetFacts:
    """Facts about a dataset, every sample read once. Raises SlimlineError for the first that is unusable."""
    with open_dataset(path, preprocess, filename=filename) as dataset:
        check_every_sample(dataset.source)
        return dataset.facts


def _open_source(path: Path, preprocess: Preprocess | None) -> Source:
    archive = Archive(path)
    try:
        if any(name.endswith(".npy") for name in archive.names):
            with archive:
                return NpzSource(archive)
        return ImageSource(archive, preprocess.resize if preprocess else None)
    except SlimlineError:
        archive.close()
        raise
