"""Reads a `.zip` of class folders with images (class/name.jpg). Images are decoded when a batch asks for them."""

import io
import struct
import threading
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import ModuleType
from typing import Literal

import numpy as np

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.data.source import Array, Labels, Stored
from worker.engine.ingest.archive import Archive

NAME = "x"
_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error)
"""What Pillow's decoders raise on damaged files."""
_DEEP_MODES = ("I", "F")
_LARGEST_FILE = 64 << 20
_MOST_PIXELS = 1 << 26
_HINT = "a .zip of folders named after the classes, each with that class's images: cat/1.jpg, dog/1.jpg"
_CLASS_DEPTH = 2


class ImageSource:
    """Classes are the folders in alphabetic order; one common root folder around them is fine.

    Images are uint8 H x W x 3 RGB. `resize` is applied while reading; without it all must be of one size.
    """

    format: Literal["npz", "images"] = "images"
    has_labels = True

    def __init__(self, archive: Archive, resize: tuple[int, int] | None) -> None:
        self._pillow = _import_pillow()
        self._archive, self._resize = archive, resize
        self._lock = threading.Lock()
        self._names = sorted(archive.names)
        if not self._names:
            raise SlimlineError("DATASET_EMPTY", "the archive holds no images", hint=_HINT)
        self._root = _find_root(self._names)
        found = [_class_of(name, self._root) for name in self._names]
        self.classes: list[str] | None = sorted(set(found))
        _refuse_empty_folders(archive.folders, self._root, self.classes)
        index = {name: label for label, name in enumerate(self.classes)}
        self._labels = np.array([index[name] for name in found], np.int64)
        self.samples = len(self._names)
        self.constants: Mapping[str, Array] = {}
        self.notes: list[str] = []
        height, width = resize or self._decode(self._names[0]).shape[:2]
        self.arrays: Mapping[str, Stored] = {NAME: Stored(np.dtype(np.uint8), (height, width, 3))}

    def read(self, name: str, indices: Array) -> Array:
        """Decode those images. Raises SlimlineError IMAGE_SIZES_DIFFER, IMAGE_BROKEN or IMAGE_TOO_LARGE."""
        if name != NAME:
            raise KeyError(name)
        images = [self._decode(self._names[index]) for index in indices]
        for image, index in zip(images, indices, strict=True):
            if image.shape != self.arrays[NAME].shape:
                raise self._refusal_of_size(self._names[index], image.shape)
        return np.stack(images)

    def labels(self, indices: Array) -> Labels:
        """The number of each image's folder, in alphabetic order."""
        return self._labels[indices]

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()

    def _decode(self, name: str) -> Array:
        """One image, H x W x 3, resized if asked. Raises SlimlineError IMAGE_BROKEN or IMAGE_TOO_LARGE."""
        with self._lock:  # threads may decode at once, but zipfile miscounts when they open members at once
            packed = io.BytesIO(self._archive.read(name, _LARGEST_FILE))
        try:
            with self._pillow.open(packed, formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise _refusal("IMAGE_TOO_LARGE", name, f"is {image.width} x {image.height} pixels")
                if image.mode.startswith(_DEEP_MODES):
                    raise _refusal("IMAGE_BROKEN", name, f"has {image.mode} pixels; 8 bits per channel are taken")
                rgb = image.convert("RGB")
                if self._resize:
                    rgb = rgb.resize(self._resize[::-1], self._pillow.Resampling.BILINEAR)
                return np.asarray(rgb)
        except (*_UNDECODABLE, self._pillow.DecompressionBombError) as error:
            # Pillow's message would name an object of ours.
            unknown = isinstance(error, self._pillow.UnidentifiedImageError)
            reason = "it is in no image format that is known here" if unknown else str(error)
            raise _refusal("IMAGE_BROKEN", name, f"cannot be decoded: {reason}") from error

    def _refusal_of_size(self, name: str, shape: tuple[int, ...]) -> SlimlineError:
        first = self.arrays[NAME].shape
        return SlimlineError(
            "IMAGE_SIZES_DIFFER",
            f"{name!r} is {shape[0]} x {shape[1]} pixels (height x width), "
            f"{self._names[0]!r} is {first[0]} x {first[1]}",
            node=name,
            hint='give a size for all: "preprocess": {"resize": [height, width]}',
        )


def _find_root(names: list[str]) -> int:
    """How many leading folders are common decoration: 1 where root/class/image is stored, else 0."""
    parts = [PurePosixPath(name).parts for name in names]
    return int(all(len(part) == _CLASS_DEPTH + 1 for part in parts) and len({part[0] for part in parts}) == 1)


def _class_of(name: str, root: int) -> str:
    path = PurePosixPath(name)
    if path.suffix.lower() not in _EXTENSIONS:
        raise _refusal("DATA_MEMBER_UNKNOWN", name, "is no image")
    if len(path.parts) != root + _CLASS_DEPTH:
        raise _refusal("DATA_MEMBER_UNKNOWN", name, "does not lie in a class folder")
    return path.parts[root]


def _refuse_empty_folders(folders: list[str], root: int, classes: list[str]) -> None:
    for folder in folders:
        parts = PurePosixPath(folder).parts
        if len(parts) == root + 1 and parts[root] not in classes:
            raise _refusal("CLASS_EMPTY", folder, "is a class folder without images")


def _refusal(code: str, name: str, what: str) -> SlimlineError:
    return SlimlineError(code, f"{name!r} {what}", node=name, hint=_HINT)


def _import_pillow() -> ModuleType:
    try:
        from PIL import Image  # noqa: PLC0415 - optional: only folders of images need it
    except ImportError as error:
        raise SlimlineError(
            "PILLOW_MISSING",
            "folders of images need Pillow, which is not installed here",
            kind=FaultKind.OURS,
            hint="pip install pillow, or send the samples as .npz",
        ) from error
    return Image
