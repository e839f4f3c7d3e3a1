"""Fixtures every test may use: where the sample models and data lie."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with sample models and data beside the checkout; SLIMLINE_SHARED names another."""
    folder = Path(os.environ.get("SLIMLINE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no sample models: {folder} is absent")
    return folder
