"""The second section: ours and Torch-Pruning on the same native modules, at equal amounts and at equal MACs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pruning.natives import Native
from benchmarks.pruning.rows import AMOUNTS, Feed, Pruned, Row, equal_to, look_at, race
from benchmarks.pruning.running import Runner
from benchmarks.zoo import Size


@dataclass(frozen=True)
class Duel:
    """One native module and its export, which ours gets."""

    native: Native
    size: Size
    runner: Runner
    original: Path
    feed: Feed

    @classmethod
    def prepare(cls, native: Native, size: Size, runner: Runner) -> "Duel":
        """Export the module; latency is that of one sample."""
        feed = {name: tensor.numpy() for name, tensor in native.entry.example(1).items()}
        return cls(native, size, runner, runner.export(native), feed)

    def measure(self, seconds: float, tell: Callable[[str], None]) -> tuple[Row, Row]:
        """Ours and the peer's; the latencies of all results come from one race."""
        name = self.native.entry.name
        tell(f"{name}: Torch-Pruning")
        theirs = {amount: self._peer(share) for amount, share in AMOUNTS.items()}
        tell(f"{name}: slimline")
        ours = {amount: self._ours(f"amount={share}") for amount, share in AMOUNTS.items()} | self._ours_at_equal(
            theirs
        )
        tell(f"{name}: latency")
        raced = iter(race(self.original, [*ours.values(), *theirs.values()], self.feed, seconds))
        ours, theirs = ({key: next(raced) for key in results} for results in (ours, theirs))
        return Row(name, "slimline", ours), Row(name, "Torch-Pruning", theirs)

    def _peer(self, share: float) -> Pruned:
        run = self.runner.run_peer(self.native.entry.name, {"size": self.size, "amount": share})
        return look_at(self.original, run, self.feed)

    def _ours(self, options: str) -> Pruned:
        run = self.runner.run_ours(self.original, f"prune.structured:{options}")
        return look_at(self.original, run, self.feed)

    def _ours_at_equal(self, theirs: Mapping[str, Pruned]) -> dict[str, Pruned]:
        shares = {amount: each.left.macs for amount, each in theirs.items() if each.left}
        return {
            equal_to(amount): self._ours(f"target.macs={share:.4f}")
            for amount, share in shares.items()
            if share is not None and share < 1
        }
