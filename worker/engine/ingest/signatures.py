"""Recognises files by their first bytes, never by their name, and says which safe format to send instead."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_HEAD = 4096


@dataclass(frozen=True)
class Signature:
    """A kind of file. `code` and `instead` are the refusal where a model was expected."""

    what: str
    code: str
    instead: str


_TORCH = "load it where it was made and export it: torch.onnx.export(model, example_inputs, 'model.onnx', dynamo=True)"
_KERAS = "load it where it was made and export it: model.export('model.onnx', format='onnx')"
_TENSORFLOW = "convert it: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
_PLAIN = "send an ONNX model: one .onnx file, or a .zip of one .onnx and its external data files"
_UNPACKED = "unpack it and send the .onnx, or a .zip of one .onnx and its external data files"
_SKLEARN = "convert it: torch.onnx.export for networks, skl2onnx makes trees and pipelines, which are no networks"

EMPTY = Signature("an empty file", "MODEL_EMPTY", "the upload may have been cut off: send the file again")
ZIP = Signature("a zip archive", "MODEL_NOT_RECOGNIZED", _PLAIN)
UNKNOWN = Signature("of no kind that is known here", "MODEL_NOT_RECOGNIZED", _PLAIN)


def _other(what: str, instead: str = _PLAIN) -> Signature:
    return Signature(what, "MODEL_NOT_RECOGNIZED", instead)


_SIGNATURES: tuple[tuple[bytes, Signature], ...] = (
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", ZIP),
    (
        rb"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.",
        Signature("a PyTorch pickle, which could run code and is never opened", "MODEL_PICKLED", _TORCH),
    ),
    (
        rb"\x80[\x02-\x05][\x00-\xff]|c(os|posix|nt|builtins|__builtin__)\n|\(dp0|\(lp0",
        Signature("a Python pickle, which could run code and is never opened", "MODEL_PICKLED", _TORCH),
    ),
    (rb"\x89HDF\r\n\x1a\n", Signature("an HDF5 file (Keras .h5)", "MODEL_KERAS", _KERAS)),
    (rb".{5}\x00\x00\x00\{\s*\"", Signature("safetensors: weights without their graph", "MODEL_WEIGHTS_ONLY", _TORCH)),
    (rb"GGUF", Signature("GGUF: weights without their graph", "MODEL_WEIGHTS_ONLY", _TORCH)),
    (rb".{4}TFL3", Signature("a TensorFlow Lite model", "MODEL_TENSORFLOW", _TENSORFLOW)),
    (
        rb"\x08\x01\x12(?=.*(serve|tensorflow|StatefulPartitionedCall|VarHandleOp))",
        Signature("a TensorFlow SavedModel", "MODEL_TENSORFLOW", _TENSORFLOW),
    ),
    (
        rb"x[\x01\x5e\x9c\xda](?=.*[\x80-\xff])",
        Signature("zlib-compressed data, as joblib writes pickles", "MODEL_PICKLED", _SKLEARN),
    ),
    (
        rb"version https://git-lfs",
        _other("a Git LFS pointer, not the file itself", "run `git lfs pull` and send the file"),
    ),
    (
        rb"(?i)\s*<(!doctype html|html|head|body)",
        _other("an HTML page", "the download of the model may have failed: open it to see"),
    ),
    (rb"\s*<\?xml", _other("XML")),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|BM.{4}\x00{4}|II\*\x00|MM\x00\*", _other("an image")),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar",
        _other("a compressed archive other than zip", _UNPACKED),
    ),
    (rb"\x93NUMPY", _other("a NumPy array")),
    (rb"PAR1", _other("a Parquet file")),
    (rb"%PDF", _other("a PDF")),
    (rb"\x7fELF|MZ|#!", _other("a program")),
    (rb"\s*[\[{]\s*[\"\[{\]}]", _other("JSON")),
)
_COMPILED = tuple((re.compile(pattern, re.DOTALL), signature) for pattern, signature in _SIGNATURES)

_MEMBERS: tuple[tuple[str, Signature], ...] = (
    (r"(^|/)constants\.pkl$", Signature("a TorchScript archive", "MODEL_TORCHSCRIPT", _TORCH)),
    (r"\.pkl$|\.pickle$", Signature("a PyTorch archive with a pickle in it", "MODEL_PICKLED", _TORCH)),
    (r"(^|/)model\.weights\.h5$", Signature("a Keras archive", "MODEL_KERAS", _KERAS)),
    (r"(^|/)saved_model\.pb$", Signature("a TensorFlow SavedModel", "MODEL_TENSORFLOW", _TENSORFLOW)),
    (r"\.safetensors$", Signature("safetensors: weights without their graph", "MODEL_WEIGHTS_ONLY", _TORCH)),
    (
        r"(^|/)archive_format$|(^|/)models/model\.json$",
        Signature("a torch.export archive", "MODEL_TORCHSCRIPT", _TORCH),
    ),
    (r"\.npy$", _other("an .npz of NumPy arrays", "send it to /v1/datasets if it is data; " + _PLAIN)),
)


def recognize(path: Path) -> Signature:
    """What kind of file `path` is; UNKNOWN also for ONNX, which has no signature."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return EMPTY
    return next((signature for pattern, signature in _COMPILED if pattern.match(head)), UNKNOWN)


def recognize_members(names: Iterable[str]) -> Signature:
    """What a zip with these members is."""
    paths = [str(PurePosixPath(name)) for name in names]
    for pattern, signature in _MEMBERS:
        if any(re.search(pattern, path) for path in paths):
            return signature
    return ZIP
