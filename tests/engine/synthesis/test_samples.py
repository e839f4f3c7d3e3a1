"""Samples that are held in memory."""

import numpy as np

from app.contracts.facts import TensorSpec
from worker.engine.samples import Samples, Synthetic


def test_they_are_given_in_the_feeds_they_were_made_in() -> None:
    feeds = [{"x": np.full((4, 2), number, np.float32)} for number in range(3)]
    samples = Samples([TensorSpec(name="x", dtype="float", shape=["n", 2])], Synthetic(feeds, 4), "made")
    assert (len(samples), samples.are_labelled) == (12, False)
    assert [batch.count for batch in samples.batches()] == [4, 4, 4]
    assert [int(batch.feed["x"][0, 0]) for batch in samples.batches(limit=5)] == [0, 1]
    assert np.array_equal(samples.first()["x"], feeds[0]["x"])
