"""Random inputs of the models in the zoo, by name, for a batch size."""

import torch
from torch import Tensor

from benchmarks.zoo.entry import Scale
from benchmarks.zoo.sequential import FEATURES
from benchmarks.zoo.transformers_models import MEL_BINS, VOCABULARY

FIRST_WORD = 3
"""Tokens below it mean padding, begin and end."""


def pictures(scale: Scale, batch: int) -> dict[str, Tensor]:
    """One picture, by the name that torch models use."""
    return {"input": torch.randn(batch, 3, scale.extent, scale.extent)}


def x_pictures(scale: Scale, batch: int) -> dict[str, Tensor]:
    """One picture, x."""
    return {"x": torch.randn(batch, 3, scale.extent, scale.extent)}


def pixels(scale: Scale, batch: int) -> dict[str, Tensor]:
    """One picture, by the name that transformers uses."""
    return {"pixel_values": torch.randn(batch, 3, scale.extent, scale.extent)}


def masked_pixels(scale: Scale, batch: int) -> dict[str, Tensor]:
    """A picture whose right edge is padding."""
    mask = torch.ones(batch, scale.extent, scale.extent, dtype=torch.int64)
    mask[:, :, -scale.extent // 4 :] = 0
    return {**pixels(scale, batch), "pixel_mask": mask}


def sequences(scale: Scale, batch: int) -> dict[str, Tensor]:
    """Features over time."""
    return {"x": torch.randn(batch, scale.extent, FEATURES)}


def text(scale: Scale, batch: int) -> dict[str, Tensor]:
    """Tokens."""
    return {"input_ids": torch.randint(FIRST_WORD, VOCABULARY - 1, (batch, scale.extent))}


def padded_text(scale: Scale, batch: int) -> dict[str, Tensor]:
    """Tokens, of which every second text has two less."""
    mask = torch.ones(batch, scale.extent, dtype=torch.int64)
    mask[1::2, -2:] = 0
    return {**text(scale, batch), "attention_mask": mask}


def text_pair(scale: Scale, batch: int) -> dict[str, Tensor]:
    """What is read, and what was written so far."""
    written = torch.randint(FIRST_WORD, VOCABULARY - 1, (batch, scale.extent // 2))
    return {**text(scale, batch), "decoder_input_ids": written}


def sound(scale: Scale, batch: int) -> dict[str, Tensor]:
    """A spectrogram, and what was written so far."""
    written = torch.randint(FIRST_WORD, VOCABULARY - 1, (batch, scale.extent // 2))
    return {"input_features": torch.randn(batch, MEL_BINS, scale.extent), "decoder_input_ids": written}


def captioned_pixels(scale: Scale, batch: int) -> dict[str, Tensor]:
    """A text of eight tokens that ends, and a picture."""
    words = torch.randint(FIRST_WORD, VOCABULARY - 1, (batch, 7))
    return {"input_ids": torch.cat([words, torch.full((batch, 1), VOCABULARY - 1)], 1), **pixels(scale, batch)}
