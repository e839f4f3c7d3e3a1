"""File names that clients send."""

import pytest

from app.uploads.filename import clean_filename, filename_of


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("model.onnx", "model.onnx"),
        ("../../etc/passwd", "passwd"),
        ("C:\\models\\net.onnx", "net.onnx"),
        ("a\r\nX-Evil: 1", "aX-Evil: 1"),
        ("..", ""),
        ("dir/", ""),
        ("x" * 300 + ".onnx", "x" * 250 + ".onnx"),
    ],
)
def test_clean(sent: str, kept: str) -> None:
    assert clean_filename(sent) == kept


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, ""),
        ("attachment", ""),
        ('attachment; filename="a b.npz"', "a b.npz"),
        ("attachment; filename*=UTF-8''%E2%82%AC.npz", "€.npz"),
        ('attachment; filename="../x"', "x"),
    ],
)
def test_from_content_disposition(header: str | None, name: str) -> None:
    assert filename_of(header) == name
