"""CIFAR-10 as the GPU's benchmark trains on it, and the options that all contenders share.

Legend: N samples, H height, W width, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PREPROCESS: Mapping[str, Any] = {"scale": 1 / 255, "mean": MEAN, "std": STD, "stored_layout": "nhwc"}
CROP = 4
AUGMENT: Mapping[str, Any] = {"flip": True, "crop": CROP}


@dataclass(frozen=True)
class Pictures:
    """Files of pictures [N, H, W, C] 0..255 with labels [N]."""

    train: Path
    test: Path

    @classmethod
    def find(cls, folder: Path) -> "Pictures | None":
        """None where they were not prepared."""
        found = cls(folder / "cifar10_jpeg_train.npz", folder / "cifar10_jpeg_test.npz")
        return found if found.train.is_file() and found.test.is_file() else None


def load(path: Path, device: str) -> tuple[Tensor, Tensor]:
    """Pictures [N, C, H, W] as the models take them, and labels [N]."""
    with np.load(path) as stored:
        pixels, labels = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"])
    mean, std = (torch.tensor(each, device=device)[:, None, None] for each in (MEAN, STD))
    return (pixels.to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std, labels.long().to(device)
