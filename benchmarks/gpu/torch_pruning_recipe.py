"""Torch-Pruning's own recipe for ResNet-56 on CIFAR-10, in its library and plain torch: prune step by step, fine-tune.

As in its examples: group norms by L2, global, in up to 400 steps until the MACs are reached; then SGD from 0.01 with
momentum 0.9 and weight decay 5e-4, to a tenth at 60 % and at 80 % of the epochs, batches of 128, flips and crops.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch_pruning  # type: ignore[import-not-found]  # not everyone has it; who imports this module says so
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu.pictures import CROP, Pictures, load
from benchmarks.pruning.classifiers import load_classifier

_STEPS, _BATCH, _STATISTICS = 400, 128, 512
_RATE, _DECAY, _MILESTONES = 0.01, 5e-4, (0.6, 0.8)


@dataclass(frozen=True)
class Recipe:
    """On the native twin of the file `model`."""

    model: Path
    pictures: Pictures
    device: str
    epochs: int
    times_fewer: float

    def carry_out(self) -> tuple[float, float]:
        """Top-1 in percent on the test set, and how many times fewer MACs."""
        torch.manual_seed(0)
        x, y = load(self.pictures.train, self.device)
        module = load_classifier(self.model.stem, self.model, x[:_STATISTICS].cpu()).to(self.device)
        fewer = self._prune(module, x[:1])
        self._tune(module, x, y)
        return top1(module, *load(self.pictures.test, self.device)), fewer

    def _prune(self, module: nn.Sequential, example: Tensor) -> float:
        whole = _count(module, example)
        pruner = torch_pruning.pruner.MagnitudePruner(
            module,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=_STEPS,
            ignored_layers=[module[-1]],
        )
        for _ in range(_STEPS):
            if whole / _count(module, example) >= self.times_fewer:
                break
            pruner.step()
        return whole / _count(module, example)

    def _tune(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=0.9, weight_decay=_DECAY)
        milestones = [int(share * self.epochs) for share in _MILESTONES]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        for _ in range(self.epochs):
            for chosen in torch.split(torch.randperm(len(x), device=x.device), _BATCH):
                optimizer.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(module(augment(x[chosen])), y[chosen])
                torch.autograd.backward(loss)
                optimizer.step()
            schedule.step()
        module.eval()


def augment(x: Tensor) -> Tensor:
    """[N, C, H, W]: flipped by chance, and cropped from a border of zeros, each picture by itself."""
    size, batch = x.shape[-1], len(x)
    padded = functional.pad(x, (CROP,) * 4)
    rows, columns = (
        torch.arange(size, device=x.device) + torch.randint(2 * CROP + 1, (batch, 1), device=x.device) for _ in range(2)
    )
    columns = torch.where(torch.rand(batch, 1, device=x.device) < 1 / 2, columns.flip(1), columns)
    samples = torch.arange(batch, device=x.device)[:, None, None]
    return padded[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def top1(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percent."""
    batches = zip(torch.split(x, _BATCH), torch.split(y, _BATCH), strict=True)
    right = [(module(part).argmax(1) == labels).sum() for part, labels in batches]
    return float(torch.stack(right).sum()) / len(y) * 100


def _count(module: nn.Module, example: Tensor) -> float:
    return float(torch_pruning.utils.count_ops_and_params(module, example)[0])
