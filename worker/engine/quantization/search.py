"""Finds the best static quantization of a graph: repairs are tried in turn and kept where they measure better.

What a plan does is in `trials`; how each repair works is in a file of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from app.contracts.events import Repair
from app.contracts.failure import SlimlineError
from app.contracts.recipe.quantize_static import QuantizeStatic, RepairName
from worker.engine.graph import Graph
from worker.engine.measure.comparison import Judge
from worker.engine.quantization.calibration import Pass, find_histograms
from worker.engine.quantization.equalization import equalize
from worker.engine.quantization.pairs import Range, Scheme
from worker.engine.quantization.placement import Way, decide
from worker.engine.quantization.ranges import Reading, extreme_ranges, read_ranges
from worker.engine.quantization.sensitivity import measure_errors
from worker.engine.quantization.smoothing import channel_extremes, find_smoothable, smooth
from worker.engine.quantization.target import Target
from worker.engine.quantization.trials import Candidate, Plan, Trials
from worker.engine.samples import Samples
from worker.engine.session import Device
from worker.engine.tensors.ranges import Calibrator
from worker.engine.wording import counted

_MAY_COST_DB = {"accuracy": 0.0, "balanced": 6.0, "speed": 12.0}
"""What a faster placement may cost of fidelity. A bit more is worth 6 dB."""
_SHARED_SCALE_MAY_COST_DB = 1.0
"""What one scale for a weight, whose kernel is a few percent faster, may cost."""
_LEAST_GAIN_DB = 0.05
"""Below this a difference is chance."""
_QUICK_SAMPLES = 64
"""Enough to tell float repairs and placements apart; the chosen one is calibrated on all samples."""
_HISTOGRAM_SAMPLES = 128
"""Enough to tell calibrators apart where the step names none."""
_READ_FROM_HISTOGRAMS: tuple[Calibrator, ...] = ("percentile", "mse", "entropy")
_USEFUL_DB = 20.0
"""Below this a result is of so little use that layers are left in float though that costs speed."""
_LEAST_REVERSION_DB, _MOST_REVERTED, _REVERTING_SAMPLES = 1.0, 0.1, 8
"""What leaving a layer in float must bring, the share of layers it is done to, and samples to find them on."""
_WAYS = (
    Way("the layers alone"),
    Way("the layers and what lies between", between=True),
    Way("the layers, what lies between and products of activations", between=True, products=True),
)


@dataclass(frozen=True)
class FloatRepair:
    """A change of the float graph, in place, that computes the same; false where there was nothing to change."""

    option: RepairName
    apply: Callable[[Graph, frozenset[str], Pass], bool]
    """Takes the names of the layers that must be left alone, and a pass over samples."""


def _equalize(graph: Graph, left_alone: frozenset[str], _: Pass) -> bool:
    return bool(equalize(graph, left_alone))


def _smooth(graph: Graph, left_alone: frozenset[str], run: Pass) -> bool:
    names = find_smoothable(graph, left_alone)
    return bool(names and smooth(graph, channel_extremes(graph, names, run), left_alone=left_alone))


_FLOAT_REPAIRS: Mapping[str, FloatRepair] = {
    "cross-layer equalization": FloatRepair("equalization", _equalize),
    "smoothing": FloatRepair("smoothing", _smooth),
}
_STRUCTURE, _RANGES, _BIASES = 0.5, 0.8, 0.9
"""Shares of the work after which float graph and way, ranges and biases are chosen."""


@dataclass(frozen=True)
class SearchRun:
    """What a search is given: its samples, where it runs and whom it tells how far it is."""

    samples: Samples
    device: Device
    progress: Callable[[float, str], None]

    def part(self, start: float, end: float) -> "SearchRun":
        """The same for a part of the work, from one share of it to another."""
        return replace(self, progress=lambda share, told: self.progress(start + (end - start) * share, told))

    def watching(self, limit: int, start: float, end: float, message: str) -> Pass:
        """A pass over at most `limit` samples, from one share of the work to another."""
        return Pass(
            self.samples, limit, self.device, lambda share: self.progress(start + (end - start) * share, message)
        )


@dataclass
class Story:
    """What was tried, in order."""

    repairs: list[Repair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reverted: dict[str, float] = field(default_factory=dict)
    """Layers left in float since they cost most, with what that brought, dB."""


class StaticSearch:
    """Quantizes `layers`, named, of `graph` as `step` asks. `graph` stays as it is."""

    def __init__(
        self, graph: Graph, layers: frozenset[str], step: QuantizeStatic, target: Target, run: SearchRun
    ) -> None:
        self._graph, self._layers, self._step, self._target, self._run = graph, layers, step, target, run
        self._trials = Trials(graph, Judge(graph, run.samples, _QUICK_SAMPLES))
        self._scheme = Scheme(target, step.weights, step.activations)
        self.story = Story()

    def run(self) -> Candidate:
        """The best candidate. Raises SlimlineError QUANTIZATION_WITHOUT_EFFECT where nothing gains."""
        best = self._choose_ranges(self._choose_structure())
        if self._allows("range_search"):
            searching = replace(best.plan, scheme=replace(best.plan.scheme, searches_weights=True))
            best = self._keep_better(best, {"weight range search": searching})
        weights = self._step.weights
        if weights.per_channel is None and weights.symmetric and self._step.preset != "accuracy":
            best = self._share_scales(best)
        if self._allows("bias_correction"):
            best = self._correct_biases(best)
        return self._revert(best) if self._allows("reversion") else best

    def _allows(self, repair: str) -> bool:
        return repair in self._step.repairs

    def _choose_structure(self) -> Candidate:
        """Float graph and way, by quick calibration: each repair on top of those that were kept."""
        kept = self._try_ways(self._graph, "", 0.0)
        left_alone = frozenset(layer.node.name or "" for layer in self._graph.layers()) - self._layers
        for number, (name, repair) in enumerate(_FLOAT_REPAIRS.items(), 1):
            if not self._allows(repair.option):
                continue
            best = self._best(kept)
            run = self._run.watching(_QUICK_SAMPLES, _STRUCTURE * number / 3, _STRUCTURE * (number + 0.3) / 3, name)
            source = best.plan.source.clone()
            if not repair.apply(source, left_alone, run):
                continue
            tried = self._try_ways(source, " and ".join([*self._kept_repairs(), name]), _STRUCTURE * (number + 0.3) / 3)
            gain = self._best(tried).decibels - best.decibels
            is_better = gain >= _LEAST_GAIN_DB
            self.story.repairs.append(Repair(name=name, gain_db=_finite(gain), kept=is_better))
            kept = tried if is_better else kept
        return self._prefer(kept)

    def _kept_repairs(self) -> list[str]:
        return [each.name for each in self.story.repairs if each.kept]

    def _try_ways(self, source: Graph, repairs: str, start: float) -> list[Candidate]:
        """A candidate for each way, with ranges from a few samples."""
        after = f" after {repairs}" if repairs else ""
        run = self._run.watching(_QUICK_SAMPLES, start, start + _STRUCTURE / 6, f"calibrating{after}")
        ranges = extreme_ranges(source, self._tensors(source, _WAYS), run)
        plans = {way.name: Plan(source, self._layers, way, ranges, self._scheme) for way in self._ways(source, ranges)}
        if not plans:
            raise self._refusal(source, ranges)
        candidates = self._trials.measure_all(plans)
        for way, each in candidates.items():
            borders = counted(each.kernels.borders, "conversion")
            self.story.notes.append(f"quantizing {way}{after}: {each.decibels:.1f} dB, {borders}")
        return list(candidates.values())

    def _ways(self, source: Graph, ranges: Mapping[str, Range]) -> Iterator[Way]:
        """Ways that place something different; where a part of the model is asked for, nothing else is touched."""
        seen = set[frozenset[str]]()
        for way in _WAYS[:1] if self._step.include else _WAYS:
            chosen = {node for node in source.nodes() if node.name in self._layers}
            placed = decide(source, chosen, way, self._target, lambda value: (value.name or "") in ranges)
            names = frozenset(node.name or "" for node in placed.nodes)
            if chosen & placed.nodes and names not in seen:
                seen.add(names)
                yield way

    def _refusal(self, source: Graph, ranges: Mapping[str, Range]) -> SlimlineError:
        """Of a graph in which no chosen layer has a range for all it touches."""
        missing = next((name for name in self._tensors(source, _WAYS[:1]) if name not in ranges), None)
        return SlimlineError(
            "NOTHING_TO_QUANTIZE",
            f"none of the {counted(len(self._layers), 'chosen layer')} can work on integers; {missing!r}, which they "
            "read or write, held NaN or infinity on the samples, or none of them reached it",
            node=missing,
            hint="Look for NaN or infinity in the weights and biases before it, or give samples that reach the layers.",
        )

    def _tensors(self, source: Graph, ways: tuple[Way, ...]) -> list[str]:
        """Names of the tensors whose ranges some of `ways` needs."""
        chosen = {node for node in source.nodes() if node.name in self._layers}
        found = dict[str, None]()
        for way in ways:
            placed = decide(source, chosen, way, self._target, lambda _: True)
            found |= dict.fromkeys(value.name or "" for value in placed.pairs)
        return list(found)

    @staticmethod
    def _best(candidates: list[Candidate]) -> Candidate:
        return max(candidates, key=lambda each: each.decibels)

    def _prefer(self, candidates: list[Candidate]) -> Candidate:
        """The most integer one within what the preset may cost of the most faithful. Told by no name."""
        least = self._best(candidates).decibels - _MAY_COST_DB[self._step.preset]
        return min((each for each in candidates if each.decibels >= least), key=self._cost)

    def _cost(self, candidate: Candidate) -> tuple[float, float, float]:
        """What makes a candidate slow, worst first. Kernels are counted here: for elsewhere, nodes tell more."""
        if self._target.is_here:
            return candidate.kernels.borders, -candidate.kernels.integer, -candidate.decibels
        return -candidate.quantized.integer_nodes, 0, -candidate.decibels

    def _choose_ranges(self, best: Candidate) -> Candidate:
        """Calibrate on all samples; `auto` keeps the calibrator that measures best."""
        plan, step = best.plan, self._step
        names = self._tensors(plan.source, (plan.way,))
        match step.calibrator:
            case "percentile" | "mse" | "entropy" as calibrator:
                run = self._run.watching(step.samples, _STRUCTURE, _RANGES, "calibrating on all samples")
                histograms = find_histograms(plan.source, run, names)
                return self._trials.measure(replace(plan, ranges=read_ranges(histograms, self._reading(calibrator))))
        run = self._run.watching(step.samples, _STRUCTURE, 0.6, "calibrating on all samples")
        widest = self._trials.measure(replace(plan, ranges=extreme_ranges(plan.source, names, run)))
        if step.calibrator == "minmax" or not self._allows("range_search"):
            return widest
        run = self._run.watching(min(step.samples, _HISTOGRAM_SAMPLES), 0.6, _RANGES, "looking at distributions")
        histograms = find_histograms(plan.source, run, names)
        others = {
            f"{calibrator} ranges": replace(plan, ranges=read_ranges(histograms, self._reading(calibrator)))
            for calibrator in _READ_FROM_HISTOGRAMS
        }
        return self._keep_better(widest, others)

    def _share_scales(self, best: Candidate) -> Candidate:
        """One scale for each weight instead of one for each channel: kernels of convolutions save some work."""
        weights = best.plan.scheme.weights.model_copy(update={"per_channel": False})
        tried = self._trials.measure(replace(best.plan, scheme=replace(best.plan.scheme, weights=weights)))
        gain = tried.decibels - best.decibels
        is_kept = gain >= -_SHARED_SCALE_MAY_COST_DB and self._cost(tried)[:2] <= self._cost(best)[:2]
        self.story.repairs.append(Repair(name="one scale for each weight", gain_db=_finite(gain), kept=is_kept))
        return tried if is_kept else best

    def _correct_biases(self, best: Candidate) -> Candidate:
        run = self._run.watching(_QUICK_SAMPLES, _RANGES, _BIASES, "measuring what quantization shifts")
        return self._keep_better(best, {"bias correction": best.with_biases_corrected(run)})

    def _revert(self, best: Candidate) -> Candidate:
        """Leave the layers that cost most in float, one after another as long as each brings a lot; never the last."""
        is_useful, quantized = best.decibels >= _USEFUL_DB, best.layers()
        if len(quantized) == 1 or self._step.preset == "speed" or (is_useful and self._step.preset != "accuracy"):
            return best
        run = self._run.watching(_REVERTING_SAMPLES, _BIASES, 1.0, "looking for the layers that cost most")
        errors = measure_errors(best.plan.source, list(quantized.values()), run)
        noise = {name: errors[each.layer.name].final_noise for name, each in quantized.items()}
        worst = sorted(noise, key=lambda name: -noise[name])[: max(1, int(_MOST_REVERTED * len(noise)))]
        for name in worst:
            tried = self._trials.measure(replace(best.plan, layers=best.plan.layers - {name}))
            gain = tried.decibels - best.decibels
            if gain < _LEAST_REVERSION_DB:
                break
            best, self.story.reverted[name] = tried, gain
        return best

    def _reading(self, calibrator: Calibrator) -> Reading:
        how = self._step.activations
        is_symmetric = how.symmetric or self._target.has_symmetric_activations
        return Reading(calibrator, self._step.percentile, 2**how.bits, is_symmetric)

    def _keep_better(self, best: Candidate, plans: Mapping[str, Plan]) -> Candidate:
        """The best of what there is and `plans`, each told of as a repair."""
        tried = {name: self._trials.measure(plan) for name, plan in plans.items()}
        winner = max([best, *tried.values()], key=lambda each: each.decibels)
        winner = winner if winner.decibels >= best.decibels + _LEAST_GAIN_DB else best
        for name, each in tried.items():
            gain = each.decibels - best.decibels
            self.story.repairs.append(Repair(name=name, gain_db=_finite(gain), kept=each is winner))
        return winner


def _finite(gain: float | None) -> float | None:
    return gain if gain is not None and abs(gain) < float("inf") else None
