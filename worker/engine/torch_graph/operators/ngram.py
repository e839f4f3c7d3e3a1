"""Counts of n-grams in sequences of whole numbers. Text is refused: torch holds none."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

MODES = ("TF", "IDF", "TFIDF")


@dataclass(frozen=True)
class Depth:
    """One depth of the prefix tree of the pool. A key is parent * len(vocabulary) + place in the vocabulary."""

    keys: tuple[int, ...]
    """Sorted. A prefix is known by its place here."""
    coordinates: tuple[int, ...]
    """For each prefix the output it counts for, -1 where no n-gram ends."""


@dataclass(frozen=True)
class PrefixTree:
    """The pool as a tree of words."""

    vocabulary: tuple[int, ...]
    """Sorted."""
    depths: tuple[Depth, ...]


@operator("TfIdfVectorizer")
def tf_idf(node: Node) -> Run:
    """Count the n-grams of a pool in each row, with gaps of up to `max_skip_count` between their members.

    TF is the count, IDF the weight where it is not zero, TFIDF their product. Weights go with outputs.
    """
    if "pool_strings" in node.attributes:
        raise node.refuse("text is not run in torch", "map words to numbers first, and use pool_int64s")
    mode, weights = node.need("mode"), node.get("weights")
    if mode not in MODES:
        raise node.refuse(f"mode {mode!r}", f"one of {', '.join(MODES)}")
    shortest, longest, skips = map(node.need, ("min_gram_length", "max_gram_length", "max_skip_count"))
    size = max(node.need("ngram_indexes")) + 1
    tree = _prefix_tree(_pool(node, range(shortest, longest + 1)))

    def run(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)
        words = _places(rows, tree.vocabulary)
        counts = torch.zeros(rows.shape[0], size + 1, device=x.device)
        for gap in range(1, skips + 2):
            # Single words have no gap: they are counted in the first round alone.
            _count(counts, words, tree, gap, shortest if gap == 1 else max(shortest, 2))
        counts = counts[:, :size]
        if mode == "IDF":
            counts = (counts > 0).float()
        if mode != "TF" and weights:
            counts = counts * torch.tensor(weights, device=x.device)
        return counts.reshape(*x.shape[:-1], size)

    return run


def _pool(node: Node, lengths: range) -> dict[tuple[int, ...], int]:
    """n-gram -> output. A pool lists the single words, then the pairs and so on; `ngram_counts` says from where on."""
    words, starts, outputs = node.need("pool_int64s"), node.need("ngram_counts"), node.need("ngram_indexes")
    grams: dict[tuple[int, ...], int] = {}
    number = 0
    for length, (start, end) in enumerate(zip(starts, [*starts[1:], len(words)], strict=True), 1):
        for first in range(start, end - length + 1, length):
            if length in lengths:
                grams[tuple(words[first : first + length])] = outputs[number]
            number += 1
    return grams


def _prefix_tree(grams: dict[tuple[int, ...], int]) -> PrefixTree:
    vocabulary = tuple(sorted({word for gram in grams for word in gram}))
    place = {word: number for number, word in enumerate(vocabulary)}
    depths: list[Depth] = []
    parents: dict[tuple[int, ...], int] = {(): 0}
    for length in range(1, max(map(len, grams), default=0) + 1):
        prefixes = {gram[:length] for gram in grams if len(gram) >= length}
        keyed = sorted((parents[each[:-1]] * len(vocabulary) + place[each[-1]], each) for each in prefixes)
        depths.append(Depth(tuple(key for key, _ in keyed), tuple(grams.get(each, -1) for _, each in keyed)))
        parents = {each: number for number, (_, each) in enumerate(keyed)}
    return PrefixTree(vocabulary, tuple(depths))


def _places(values: torch.Tensor, ordered: Sequence[int]) -> torch.Tensor:
    """Where each value stands in `ordered`, -1 where it does not."""
    if not ordered:
        return torch.full_like(values, -1, dtype=torch.int64)
    table = torch.tensor(ordered, device=values.device)
    found = torch.searchsorted(table, values.long()).clamp(max=len(ordered) - 1)
    return torch.where(table[found] == values, found, -1)


def _count(counts: torch.Tensor, words: torch.Tensor, tree: PrefixTree, gap: int, shortest: int) -> None:
    """Add to `counts` the n-grams whose members are `gap` apart. Its last column takes what counts for nothing."""
    prefix = torch.zeros_like(words)
    for length, depth in enumerate(tree.depths, 1):
        starts = words.shape[1] - gap * (length - 1)
        if starts <= 0:
            return
        word = words[:, gap * (length - 1) :]
        prefix = prefix[:, :starts]
        key = prefix * len(tree.vocabulary) + word
        prefix = _places(torch.where((prefix < 0) | (word < 0), -1, key), depth.keys)
        if length >= shortest:
            table = torch.tensor((*depth.coordinates, -1), device=words.device)
            column = table[prefix]
            column = torch.where(column < 0, counts.shape[1] - 1, column)
            counts.scatter_add_(1, column, torch.ones_like(column, dtype=counts.dtype))
