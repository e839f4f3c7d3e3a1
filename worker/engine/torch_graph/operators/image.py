"""ImageDecoder: a compressed image in a tensor of bytes. Resizing is in `resize.py`."""

import importlib.util
from io import BytesIO

import numpy as np
import torch

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

_FORMATS = ["BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]
_MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}


@operator("ImageDecoder", fixed=(0,))
def image_decoder(node: Node) -> Run:
    """Bytes of an image file to its pixels, uint8, height x width x channels."""
    pixel_format = node.get("pixel_format", "RGB")
    if pixel_format not in _MODES:
        raise node.refuse(f"pixel format {pixel_format!r}", "use RGB, BGR or Grayscale")
    if importlib.util.find_spec("PIL") is None:
        raise node.refuse("images are decoded by Pillow, which is not installed", "pip install pillow")
    from PIL import Image  # noqa: PLC0415 - the engine runs without it

    def run(encoded: torch.Tensor) -> torch.Tensor:
        try:
            with Image.open(BytesIO(encoded.cpu().numpy().tobytes()), formats=_FORMATS) as image:
                pixels = np.array(image.convert(_MODES[pixel_format]))
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"the bytes are no image that is read: {error}") from error
        if pixel_format == "Grayscale":
            pixels = pixels[..., None]
        if pixel_format == "BGR":
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        return torch.from_numpy(pixels).to(encoded.device)

    return run
