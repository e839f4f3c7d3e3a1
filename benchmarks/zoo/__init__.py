"""A zoo of small models with random weights, for the trainable graph. Nothing is downloaded or measured here."""

from benchmarks.zoo.entry import Entry
from benchmarks.zoo.table import LEGACY, Size, zoo

__all__ = ["LEGACY", "Entry", "Size", "zoo"]
