"""The one training loop: updates in order, judged at the end of epochs, written down for a retry.

What is minimised, read, rewritten or drawn to zero is known to its parts only.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from app.contracts.failure import SlimlineError
from app.contracts.training import TrainingOptions
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.batches import TrainingData
from worker.engine.training.budget import Budget
from worker.engine.training.checkpoints import Checkpoints
from worker.engine.training.curve import Clock, Curve
from worker.engine.training.distributed.team import ALONE, Team
from worker.engine.training.kept import Kept, State
from worker.engine.training.optimization import set_rate
from worker.engine.training.request import Telling
from worker.engine.training.schedules import rate_factor
from worker.engine.training.snapshot import Tensors
from worker.engine.training.trainee import Trainee
from worker.engine.training.update import Updater
from worker.engine.wording import counted

CHECKPOINT_S = 60.0
"""A state is kept at the end of an epoch, and within one that takes longer than this."""
_CHECKPOINT_SHARE = 0.1
"""But never so often that writing takes more than this share of the time."""
_JUDGED = 100
"""A training is judged at most so often: the epochs of small data are short."""
_LOSS_EVERY = {"cpu": 1, "cuda": 20}
"""Updates after which the loss is looked at: on a GPU looking is waiting."""


@dataclass(frozen=True)
class Setting:
    """What the loop goes by."""

    options: TrainingOptions
    rate: float
    seed: int
    device: str
    checkpoints: Checkpoints
    telling: Telling
    team: Team = ALONE


class Loop:
    """Trains `trainee` on `data` until the budget is spent, patience ends or the loss is no number."""

    def __init__(self, trainee: Trainee, data: TrainingData, updater: Updater, setting: Setting) -> None:
        self._trainee, self._data, self._updater, self._setting = trainee, data, updater, setting
        self._options, self._team = setting.options, setting.team
        self.curve = Curve(setting.telling.step, setting.telling.round)
        self.kept = Kept(self._options.keep)
        self.notes: list[str] = []
        self._update = 0
        self._budget = self._make_budget()
        self._written_at, self._write_s = time.monotonic(), 0.0

    def run(self) -> None:
        """Train, and leave the state that is kept in the trainee; in a team, in that of its leader.

        Raises SlimlineError TRAINING_DIVERGED, TIME_BUDGET_TOO_SMALL, OUT_OF_MEMORY.
        """
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            if not self._resume():
                self._judge()
            self._train()
        chosen = self.kept.choose()
        if self._team.is_led_here:
            self._trainee.put_back(chosen.tensors)
        if chosen.epoch != self.curve.points[-1].epoch:
            self.notes.append(f"kept the state after {chosen.told()}: what came later was no better")

    def _train(self) -> None:
        while not self._budget.is_over(self._update):
            epoch, start = divmod(self._update, self._data.steps_per_epoch)
            with closing(self._data.epoch(epoch, start)) as batches:
                self._train_epoch(batches)
            if not self.curve.is_finite:
                self._give_up()
                return
            if self._update % self._data.steps_per_epoch == 0 or self._budget.is_over(self._update):
                self._end_epoch()
            if self._has_lost_patience():
                self.notes.append(f"stopped after {self._epochs():g} epochs: {self._options.patience} brought nothing")
                return

    def _train_epoch(self, batches: Iterator[TrainingBatch]) -> None:
        clock, look_every = Clock(), _LOSS_EVERY[self._setting.device]
        for batch in batches:
            self._prepare_update()
            losses = self._updater.update(batch)
            self._update += 1
            self._budget.look()
            self._trainee.after_update(self._update, self._budget.done(self._update))
            seconds = clock.lap()
            self.curve.add(losses, len(batch) * self._team.world, seconds)
            self._budget.check_first(seconds if self._update == 1 else 0.0)
            if self._update % look_every == 0 and not self.curve.is_finite:
                return
            self._tell()
            if self._budget.is_over(self._update):
                return
            if time.monotonic() - self._written_at > CHECKPOINT_S:
                self._write()
                clock.lap()

    def _prepare_update(self) -> None:
        """Everything random follows from the seed, the number of the update and the process: a retry draws the same."""
        drawn = self._setting.seed * 1_000_003 + self._update
        torch.manual_seed(drawn * self._team.world + self._team.rank)
        self._trainee.train(self._updater.part)
        set_rate(self._updater.optimizer, self._rate())

    def _rate(self) -> float:
        done = self._budget.middle(self._update)
        return self._setting.rate * rate_factor(self._options.schedule, done, self._options.warmup)

    def _end_epoch(self) -> None:
        if self._is_judged():
            self._judge()
            self._budget.look()
        worth = time.monotonic() - self._written_at >= self._write_s / _CHECKPOINT_SHARE
        if worth and not self._budget.is_over(self._update):
            self._write()

    def _is_judged(self) -> bool:
        total = self._budget.updates
        every = 1 if total is None else max(1, total // self._data.steps_per_epoch // _JUDGED)
        return self._budget.is_over(self._update) or self._update // self._data.steps_per_epoch % every == 0

    def _judge(self) -> None:
        """Judge the state as it would be given back, and make a point of the curve."""
        tensors, judgement = Tensors(), None
        if self._team.is_led_here:
            with self._trainee.as_it_would_be_kept(self._data) as tensors:
                judgement = self._trainee.judge(self._data.held_out_batches())
        judgement = self._team.follow(judgement)
        self.kept.add(State(self._epochs(), tensors, judgement))
        self._setting.telling.point(self.curve.point(self._epochs(), self._update, self._rate(), judgement))

    def _epochs(self) -> float:
        return self._update / self._data.steps_per_epoch

    def _has_lost_patience(self) -> bool:
        patience = self._options.patience
        return patience is not None and self._epochs() - self.kept.improved_at >= patience

    def _give_up(self) -> None:
        """The loss is no number: what was best before is kept. Raises SlimlineError where that is nothing new."""
        told = f"the loss is no number at update {self._update} (epoch {self._epochs():.2f})"
        hint = "Lower `learning_rate`, raise `warmup`, or set `clip`."
        if self.kept.best_epoch == 0:
            raise SlimlineError("TRAINING_DIVERGED", told, hint=hint)
        self.kept.forget_last()
        note = f"{told}: training stopped there, and the best state before is kept. {hint}"
        self.notes.append(note)
        self._setting.telling.warn(note)

    def _tell(self) -> None:
        left = self._budget.remaining_s(self._update, self.curve.update_s)
        epoch = self._update / self._data.steps_per_epoch
        loss = "" if self._setting.device != "cpu" else f", loss {self.curve.loss:.4g}"
        of = f"/{self._budget.updates / self._data.steps_per_epoch:g}" if self._budget.updates else ""
        self._setting.telling.progress(self._budget.done(self._update), f"epoch {epoch:.1f}{of}{loss}", left)

    def _write(self) -> None:
        if not self._team.is_led_here:
            return
        started = time.monotonic()
        self._setting.checkpoints.save(
            {
                "update": self._update,
                "spent_s": self._budget.spent_s,
                "part": self._updater.part,
                "trainee": self._trainee.state(),
                "optimizer": self._updater.state(),
                "curve": self.curve.state(),
                "kept": self.kept.state(),
                "notes": self.notes,
            }
        )
        self._written_at = time.monotonic()
        self._write_s = self._written_at - started

    def _make_budget(self, spent_s: float = 0.0) -> Budget:
        return Budget(self._options, self._data.steps_per_epoch, spent_s, self._team.follow)

    def _resume(self) -> bool:
        state: dict[str, Any] | None = self._setting.checkpoints.load()
        if state is None:
            return False
        self._update = state["update"]
        self._budget = self._make_budget(state["spent_s"])
        self._updater.part = min(self._updater.part, state["part"])
        self._trainee.load_state(state["trainee"])
        self._updater.load_state(state["optimizer"])
        self.curve.load_state(state["curve"])
        self.kept.load_state(state["kept"])
        self.notes = list(state["notes"])
        self._setting.telling.warn(f"going on with training after {counted(self._update, 'update')}")
        return True
