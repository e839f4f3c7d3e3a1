"""Builders of small datasets."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Pack = Callable[[dict[str, bytes]], Path]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Writes a zip of these members."""

    def write(members: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return tmp_path / "data.zip"

    return write


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """A picture of one colour."""

    def draw(colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (4, 6), kind: str = "PNG") -> bytes:
        packed = io.BytesIO()
        Image.fromarray(np.full((*size, 3), colour, np.uint8)).save(packed, kind)
        return packed.getvalue()

    return draw
