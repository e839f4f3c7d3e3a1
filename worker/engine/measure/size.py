"""The size of a model as downloaded, plain and under zstd. External data counts."""

import importlib
import importlib.util
from pathlib import Path

ZSTD_LEVEL = 10
_CHUNK = 1 << 20


def file_bytes(path: Path) -> int:
    """Bytes of the model file and of the `.data` file beside it, if there is one."""
    return sum(part.stat().st_size for part in _parts(path))


def zstd_bytes(path: Path) -> int | None:
    """Bytes of the same under zstd level 10; None where the optional package zstandard is absent."""
    if importlib.util.find_spec("zstandard") is None:
        return None
    zstandard = importlib.import_module("zstandard")
    return sum(_compressed(part, zstandard.ZstdCompressor(level=ZSTD_LEVEL)) for part in _parts(path))


def _compressed(path: Path, compressor: object) -> int:
    stream = compressor.compressobj(size=path.stat().st_size)  # type: ignore[attr-defined]  # an optional, untyped package
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total += len(stream.compress(chunk))
    return total + len(stream.flush())


def _parts(path: Path) -> list[Path]:
    return [part for part in (path, path.with_name(path.name + ".data")) if part.is_file()]
