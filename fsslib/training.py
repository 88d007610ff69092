"""Training: one loop for base-class pre-training and episodic training, which resumes bit for bit.

First how long and how fast to train, how Ctrl-C waits for a good moment, how the best state is chosen; then the loop.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import check_count, check_number
from .data.base import SegmentationDataset
from .data.episodes import EpisodeSampler
from .errors import TrainingError
from .evaluation import evaluate
from .files import atomic
from .models.base import FewShotModel
from .progress import bar
from .protocol import Protocol

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. Budgets are steps, never seconds, so that a run can be repeated.

    Attributes:
        steps, batch: optimiser steps and images (or episodes) per step. lr: peak learning rate.
        optimiser: `"adamw"` or `"sgd"` (with `momentum`). weight_decay: of all parameters alike.
        decay: `"linear"`, from `lr` after `warmup` steps to 0, or `"poly"`: lr · (1 − it/steps)^power with it counted
            from 1 (the PFENet family), where a warm-up replaces the first steps and delays nothing.
        warmup: steps over which the rate rises; with `"poly"` linearly from 0.1 · lr.
        clip: largest gradient norm; None leaves gradients as they are.
        precision: `"32"` or `"bf16"` (autocast). accelerator: `"auto"`, `"cpu"` or `"gpu"`.
        seed: the batch and every random drop of step t are pure functions of (seed, t).

    Raises TrainingError for unknown choices and numbers out of range.
    """

    steps: int
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 30
    optimiser: str = "adamw"
    clip: float | None = 1.0
    precision: str = "32"
    accelerator: str = "cpu"
    seed: int = 0
    decay: str = "linear"
    power: float = 0.9
    momentum: float = 0.9

    def __post_init__(self) -> None:
        choices = {"precision": PRECISIONS, "optimiser": ("adamw", "sgd"), "accelerator": ACCELERATORS}
        for name, known in {**choices, "decay": ("linear", "poly")}.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}.")
        for name, least in {"steps": 0, "batch": 1, "warmup": 0, "seed": 0}.items():
            check_count(getattr(self, name), name, least, error=TrainingError)
        for name in ("lr", "power", "weight_decay", "momentum", *(["clip"] if self.clip is not None else [])):
            zero = name in ("weight_decay", "momentum")
            check_number(getattr(self, name), name, zero=zero, error=TrainingError)
        if self.momentum >= 1:
            raise TrainingError(f"momentum={self.momentum!r}: expected a number from 0 to below 1.")

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        if self.decay == "poly" and step + 1 < self.warmup:
            return self.lr * (0.1 + 0.9 * (step + 1) / self.warmup)
        if self.decay == "poly":
            return self.lr * (1 - (step + 1) / self.steps) ** self.power
        rising, falling = (step + 1) / max(self.warmup, 1), (self.steps - step) / max(self.steps - self.warmup, 1)
        return self.lr * min(rising, falling, 1)


@contextlib.contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the yielded function is called, when the work can be kept; a second one gets through."""
    waiting: list[int] = []

    def release(number: int | None = None, frame: object = None) -> None:
        if waiting:
            raise KeyboardInterrupt
        if number is not None:
            waiting.append(number)

    # Only Python's own handler is replaced: whoever ignores or redirects the signal has a reason.
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, release)
    try:
        yield release
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Selection:
    """Keeps the state of a training that scores best on validation episodes: a callback of `fit`.

    The model is scored after every `every` steps and after the last one (`steps`); of equal scores the earliest counts.
    A run that was killed and goes on chooses the same state, bit for bit, as one that was not.

    Args:
        score: model -> number, the higher the better; must depend on the model alone (a fixed list of episodes).
        rules: identifies what `score` measures, so that a run is not resumed with another one.
    Attributes: best: the highest score so far, None before the first. trained: after how many steps it was reached.
    Raises TrainingError for an impossible `every`.
    """

    name = "val_miou"  # of the score in the rows of a History, in percent

    def __init__(self, score: Callable[[nn.Module], float], *, every: int, steps: int, rules: str = ""):
        check_count(every, "every", unit="steps", error=TrainingError)
        self.score, self.every, self.steps = score, every, steps
        self.rules = f"every {every}: {rules}"
        self.best: float | None = None
        self.trained = 0
        self._state: dict[str, torch.Tensor] = {}

    def __call__(self, step: int, model: nn.Module) -> dict[str, float] | None:
        """Score the model where it is due after (0-based) step `step`, and keep its state if it is the best."""
        if (step + 1) % self.every and step + 1 != self.steps:
            return None
        # A validation without a single counted pixel is no reason to prefer a state.
        score = float(np.nan_to_num(self.score(model)))
        if self.best is None or score > self.best:
            self.best, self.trained = score, step + 1
            self._state = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
        return {self.name: score}

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Put the best state into `model`. Raises TrainingError when nothing was validated."""
        if self.best is None:
            raise TrainingError("no state was validated, so none can be chosen: train for at least one step.")
        for name, value in model.state_dict().items():
            kept = self._state[name].to(value.device)
            # What is equal stays untouched: features cached for a frozen backbone stay valid.
            if not torch.equal(value, kept):
                value.copy_(kept)

    def summary(self) -> dict[str, float]:
        """The score of the best state, and the number of steps after which it was reached."""
        return {"step": self.trained, self.name: round(self.best, 4)}

    def state_dict(self) -> dict:
        """What a resume file has to hold."""
        return {"best": self.best, "trained": self.trained, "state": self._state}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` returned."""
        self.best, self.trained, self._state = state["best"], state["trained"], state["state"]


def validation_score(
    dataset: SegmentationDataset, protocol: Protocol, *, shot: int = 1, batch: int = 8
) -> tuple[Callable[[FewShotModel], float], str]:
    """mIoU in percent on the fixed episodes of `protocol`, as a function of the model, and a text that names it."""

    def score(model: FewShotModel) -> float:
        scores = evaluate(model, dataset, protocol, shots=(shot,), batch=batch, progress=False).scores[shot]
        return 100 * scores.miou

    return score, f"{shot} shots on {dataset.hash()} {protocol.as_dict()}"


@dataclass
class History:
    """What training recorded.

    Attributes:
        rows: one row of losses a step, and whatever its callback said. seconds: how long it took.
        selected: the state that was chosen, see `Selection.summary`; empty when the last one stayed.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    selected: dict[str, float] = field(default_factory=dict)

    def smooth(self, name: str, window: int = 25) -> list[float]:
        """Running mean of `name` over `window` of the rows that hold it, for plotting."""
        values = [row[name] for row in self.rows if name in row]
        return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def train_episodes(
    model: FewShotModel, sampler: EpisodeSampler, schedule: Schedule, *, folder: str | Path | None = None, **how
) -> History:
    """Episodic training: minimise `model.losses(episode)["total"]` over batches of `sampler`.

    Args:
        folder: where the resume file `episodic.ckpt` lives; None trains without one.
        how: `save_every`, `progress` and `callback` of `fit`.
    """
    rules = [sampler.shot, sampler.seed, sampler.augment, sampler.protocol.as_dict(), model.config]
    where = {"folder": folder, "name": "episodic", "data": f"{sampler.dataset.hash()} {rules}"}
    return fit(model, lambda step: sampler.batch(step, schedule.batch), schedule, **where, **how)


def fit(
    model: nn.Module, batch_at: Callable[[int], object], schedule: Schedule, *, name: str, data: str = "",
    folder: str | Path | None = None, save_every: int = 200, progress: bool = True,
    callback: Callable[[int, nn.Module], dict | None] | None = None,
) -> History:  # fmt: skip
    """The training loop: minimise `model.losses(batch_at(step))["total"]` for `schedule.steps` steps.

    With `folder`, the state is written to `folder/name.ckpt` every `save_every` steps; a run that was killed at any
    point goes on from there and ends with the same weights, bit for bit on the same machine. Ctrl-C takes effect after
    the step under way (a second one at once).

    Args:
        batch_at: step -> batch with a `.to(device)` method; must depend on the step alone.
        data: identifies data and model, so that a resume file of another training is refused.
        callback: called as `callback(step, model)` after every step; a returned dict of numbers joins the step's row.
            One with a state (`state_dict`, `load_state_dict`) has it kept in the resume file, and its text `rules`
            must be the same when the run goes on.
    Raises TrainingError: nothing to train, a loss that is not finite, or a resume file of another run.
    """
    check_count(save_every, "save_every", unit="steps", error=TrainingError)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not schedule.steps:
        model.eval()
        return History()
    if not trainable:
        cure = "unfreeze the backbone or give the model a width"
        raise TrainingError(f"{type(model).__name__} has no parameter to train: {cure}.")
    engine = fabric(schedule.accelerator, schedule.precision)
    model.to(engine.device)
    optimiser = _optimiser(model, schedule)
    file = Path(folder) / f"{name}.ckpt" if folder else None
    made_with = {**asdict(schedule), "data": data, "callback": getattr(callback, "rules", "")}
    # `due`: the callback of the last step never came to its end.
    start, history, due = _resume(file, model, optimiser, made_with, callback) if file else (0, History(), False)
    model.train()
    began, spent = time.perf_counter(), history.seconds
    steps, done, torn = range(start, schedule.steps), start, False
    with interrupts_held() as release:
        try:
            if due and callback:
                _call(callback, start - 1, model, history.rows[-1])
                due = False
            for step in bar(steps, desc=name, initial=start, total=schedule.steps, show=progress):
                torch.manual_seed((schedule.seed * 1_000_003 + step) % 2**63)
                batch = batch_at(step).to(engine.device)
                torn = True
                row = _step(model, optimiser, trainable, batch, schedule, step, engine)
                # Counted before the callback runs: an error there must not make a resumed run repeat the step.
                history.rows.append(row)
                done, torn = step + 1, False
                if callback:
                    due = True
                    _call(callback, step, model, row)
                    due = False
                history.seconds = spent + time.perf_counter() - began
                if file and done % save_every == 0 and done < schedule.steps:
                    _save(file, model, optimiser, made_with, done, history, due, callback)
                release()
        finally:
            # Also after Ctrl-C: what was trained so far is kept, and a finished run is not trained again. After half a
            # step (moved statistics, half of the weights updated) the last file is better than this state.
            if file and done > start and not torn:
                _save(file, model, optimiser, made_with, done, history, due, callback)
            model.eval()
    return history


def fabric(accelerator: str, precision: str):
    """lightning-fabric on one device. Raises TrainingError when the accelerator is not to be had here."""
    from lightning_fabric import Fabric

    # Fabric announces mixed precision at every start; a notebook with three trainings needs no three announcements.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        return Fabric(accelerator=accelerator, devices=1, precision=PRECISIONS[precision])
    except Exception as error:  # Fabric's own types differ between versions
        raise TrainingError(f"accelerator {accelerator!r} is not usable here ({error}): take 'cpu'.") from error


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """One group for every factor that the model gives the learning rate of its parameters."""
    factor = getattr(model, "lr_factor", lambda name: 1.0)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(factor(name), []).append(parameter)
    parameters = [{"params": group, "factor": value} for value, group in groups.items()]
    how = {"lr": schedule.lr, "weight_decay": schedule.weight_decay}
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(parameters, momentum=schedule.momentum, **how)
    return torch.optim.AdamW(parameters, **how)


def _step(model, optimiser, trainable, batch, schedule: Schedule, step: int, engine) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = group["factor"] * schedule.lr_at(step)
    with engine.autocast():
        losses: dict[str, Tensor] = model.losses(batch)
    row = {key: float(value.detach()) for key, value in losses.items()}
    if not torch.isfinite(losses["total"]):
        cure = f"lower the learning rate (now {schedule.lr}), or use precision='32'"
        raise TrainingError(f"the loss is {row['total']} at step {step}: {cure}.")
    optimiser.zero_grad(set_to_none=True)
    engine.backward(losses["total"])
    if schedule.clip is not None:
        torch.nn.utils.clip_grad_norm_(trainable, schedule.clip)
    optimiser.step()
    return row


def _call(callback, step: int, model, row: dict) -> None:
    row |= {key: float(value) for key, value in (callback(step, model) or {}).items()}


def _save(file: Path, model, optimiser, made_with: dict, step: int, history: History, due: bool, callback) -> None:
    state = {"schedule": made_with, "step": step, "rows": history.rows, "seconds": history.seconds, "due": due}
    if hasattr(callback, "state_dict"):
        state["callback"] = callback.state_dict()
    with atomic(file) as part:
        torch.save({**state, "model": model.state_dict(), "optimiser": optimiser.state_dict()}, part)


def _resume(file: Path, model, optimiser, made_with: dict, callback) -> tuple[int, History, bool]:
    if not file.exists():
        return 0, History(), False
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["schedule"] != made_with:
            other = ", ".join(sorted(k for k, v in made_with.items() if state["schedule"].get(k) != v))
            raise TrainingError(f"{file} belongs to another run (other {other}): use another folder or delete it.")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if any("factor" not in group for group in optimiser.param_groups):
            raise TrainingError(f"{file} was written by another version of fsslib: delete it to train from the start.")
        if hasattr(callback, "load_state_dict"):
            callback.load_state_dict(state["callback"])
    except TrainingError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(f"{file} cannot be resumed ({reason}): delete it to train from the start.") from error
    return state["step"], History(state["rows"], state["seconds"]), state["due"]
