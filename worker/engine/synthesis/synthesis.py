"""`synthesize`: calibration samples for a graph that came without any. What it is made of lies in files beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.data.fit import fixed_batch
from worker.engine.graph import Graph
from worker.engine.quantization.calibration import to_tensors
from worker.engine.samples import Guess, Samples, Synthetic, make_up
from worker.engine.session import Array, Device, open_graph
from worker.engine.synthesis.critic import Critic
from worker.engine.synthesis.distill import Batch, Distilled, Run, distill, find_scale
from worker.engine.synthesis.effort import Effort, plan, rows_for
from worker.engine.synthesis.inputs import Draw, Part, Role, draw, find_parts
from worker.engine.synthesis.targets import Target, find_targets
from worker.engine.torch_graph.dtypes import to_array
from worker.engine.wording import counted


@dataclass(frozen=True)
class SynthesisRun:
    """How inputs are made: about `count` of them; the same for the same seed on the CPU."""

    seed: int = 0
    device: Device = "cpu"
    count: int = 64
    progress: Callable[[float], None] = lambda _: None


def synthesize(graph: Graph, run: SynthesisRun) -> Samples:
    """Inputs on which `graph` behaves as it tells that it did on real ones; the note says how they were made.

    They begin as smooth noise and are optimized by gradient (Cai et al. 2020, arXiv:2001.00281; Haroush et al. 2020,
    arXiv:1912.01274) towards the statistics that BatchNormalization stored. Other layers, such as convolutions that
    one was folded into, are to be spread around zero, and classifiers to be sure of labels drawn evenly (Yin et al.
    2020, arXiv:1912.08795). Tokens, masks and other whole numbers are drawn once and stay.

    Measured on six image and speech models without BatchNormalization in the file, quantized to 8 bits: the SQNR of the
    outputs was 3 to 22 dB above that with standard normal noise, and 1 to 11 dB below that with real samples.

    Raises SlimlineError SAMPLES_NEEDED where no made-up input runs, or as `TorchGraph` does.
    """
    targets = find_targets(graph)
    maker = _Maker(graph, Critic(graph, targets, run.device), run)
    rows = maker.rows_that_run()
    effort = plan(graph, rows, run.count) if maker.can_distill else Effort(rows, -(-run.count // rows), 0)
    batches = maker.make(effort)
    feeds = [maker.feed(batch.inputs) for batch in batches]
    return Samples(graph.inputs, Synthetic(feeds, rows), _note(targets, effort, batches))


class _Maker:
    """Draws batches of inputs for a graph and improves them."""

    def __init__(self, graph: Graph, critic: Critic, run: SynthesisRun) -> None:
        self._graph, self._critic, self._run = graph, critic, run
        self._parts = find_parts(graph)
        self._guess = _find_sizes(graph, run.seed)
        self._channels = {index: part.channels for index, part in enumerate(self._parts) if _is_improvable(part)}

    @property
    def can_distill(self) -> bool:
        """Whether there is an input that a gradient can improve, and something to improve it towards."""
        return bool(self._channels) and self._critic.can_judge

    def rows_that_run(self) -> int:
        """Samples in a batch: what the graph insists on, what keeps memory flat, or 1 where it takes no batches."""
        fixed = fixed_batch(self._graph.inputs)
        if fixed:
            return fixed
        one = self._drawn(1, np.random.default_rng(self._run.seed))
        rows = rows_for(sum(each.element_size() * each.numel() for each in one))
        try:
            with torch.inference_mode():
                self._critic.judge(self._drawn(rows, np.random.default_rng(self._run.seed)), None)
        except SlimlineError:
            return 1
        return rows

    def make(self, effort: Effort) -> list[Distilled]:
        """All batches."""
        generator = np.random.default_rng(self._run.seed)
        labels = _even_labels(self._critic.classes, effort.samples, generator)
        made, scale = list[Distilled](), None
        for number in range(effort.batches):
            start = number * effort.rows
            part = None if labels is None else labels[start : start + effort.rows].to(self._run.device)
            batch = Batch(self._drawn(effort.rows, generator), self._channels, part)
            if not effort.steps:
                made.append(Distilled(batch.inputs, None, None))
                continue
            scale = find_scale(self._critic, batch) if scale is None else scale
            made.append(distill(self._critic, batch, scale, Run(effort.steps, self._progress(number, effort.batches))))
        self._run.progress(1.0)
        return made

    def feed(self, inputs: Sequence[torch.Tensor]) -> dict[str, Array]:
        """Arrays by name, in the types that the graph declares."""
        pairs = zip(self._parts, inputs, strict=True)
        return {part.spec.name: to_array(each, ir.DataType[part.spec.dtype.upper()]) for part, each in pairs}

    def _progress(self, done: int, batches: int) -> Callable[[float], None]:
        """What takes the progress of one batch, when `done` of them are."""
        return lambda share: self._run.progress((done + share) / batches)

    def _drawn(self, rows: int, generator: np.random.Generator) -> list[torch.Tensor]:
        how = Draw(rows, self._guess, generator)
        return to_tensors(self._graph, {each.spec.name: draw(each, how) for each in self._parts}, self._run.device)


def _is_improvable(part: Part) -> bool:
    return part.role is Role.MEASURED and bool(part.spec.shape)


def _find_sizes(graph: Graph, seed: int) -> Guess:
    """Sizes of free dimensions, and an end of whole numbers, with which the graph runs."""
    source = make_up(graph.inputs, open_graph(graph), seed).source
    if not isinstance(source, Guess):
        raise TypeError("made-up samples are guesses")
    return source


def _even_labels(classes: int | None, count: int, generator: np.random.Generator) -> torch.Tensor | None:
    """Labels spread evenly over the classes, in random order."""
    if classes is None:
        return None
    every = np.arange(count) % classes if classes <= count else np.arange(count) * classes // count
    return torch.from_numpy(generator.permutation(every))


def _note(targets: Sequence[Target], effort: Effort, batches: Sequence[Distilled]) -> str:
    stored = sum(target.stored is not None for target in targets)
    pairs = [(each.before, each.after) for each in batches if each.before is not None and each.after is not None]
    if not pairs:
        how = "drawn at random, as nothing in the graph tells what they should be, or no gradient leads there"
    else:
        before, after = np.mean(pairs, axis=0)
        towards = (
            f"the statistics that {counted(stored, 'BatchNormalization node')} stored"
            if stored
            else "layer outputs spread around zero, as no BatchNormalization stored what real inputs gave"
        )
        how = f"optimized from noise towards {towards}: the loss fell from {before:.2f} to {after:.2f}"
    made = counted(effort.samples, "synthesised input")
    return f"no data was given: calibrated on {made}, {how}. Real samples give better ranges: send them to calibrate on"
