"""Training: base-class pre-training and episodic training through one loop that resumes bit for bit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .data.episodes import EpisodeSampler
from .errors import TrainingError
from .files import atomic
from .interrupts import interrupts_held
from .models.base import FewShotModel
from .progress import bar

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. Budgets are steps, never seconds, so that a run can be repeated.

    Attributes:
        steps, batch: optimiser steps and images (or episodes) per step.
        lr: peak learning rate after `warmup` steps; falls linearly to 0 at the end.
        optimiser: `"adamw"` or `"sgd"` (momentum 0.9).
        clip: largest gradient norm.
        precision: `"32"` or `"bf16"` (autocast). accelerator: `"auto"`, `"cpu"` or `"gpu"`.
        seed: the batch and every random drop of step t are pure functions of (seed, t).
    """

    steps: int
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 30
    optimiser: str = "adamw"
    clip: float = 1.0
    precision: str = "32"
    accelerator: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {"precision": PRECISIONS, "optimiser": ("adamw", "sgd"), "accelerator": ACCELERATORS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}.")
        for name, least in {"steps": 0, "batch": 1, "warmup": 0, "seed": 0}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise TrainingError(f"{name}={value!r}: expected a whole number from {least}.")
        for name in ("lr", "clip", "weight_decay"):
            value, zero = getattr(self, name), name == "weight_decay"
            good = isinstance(value, (int, float)) and math.isfinite(value) and (value > 0 or (zero and value == 0))
            if not good:
                raise TrainingError(f"{name}={value!r}: expected a finite number {'from' if zero else 'above'} 0.")

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        return self.lr * min(
            (step + 1) / max(self.warmup, 1), (self.steps - step) / max(self.steps - self.warmup, 1), 1
        )


@dataclass
class History:
    """What training recorded: one row of losses a step, and how long it took."""

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def smooth(self, name: str, window: int = 25) -> list[float]:
        """Running mean of loss `name` over `window` steps, for plotting."""
        values = [row[name] for row in self.rows]
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
    model: nn.Module,
    batch_at: Callable[[int], object],
    schedule: Schedule,
    *,
    name: str,
    data: str = "",
    folder: str | Path | None = None,
    save_every: int = 200,
    progress: bool = True,
    callback: Callable[[int, nn.Module], dict | None] | None = None,
) -> History:
    """The training loop: minimise `model.losses(batch_at(step))["total"]` for `schedule.steps` steps.

    With `folder`, the state is written to `folder/name.ckpt` every `save_every` steps; a run that was killed at any
    point goes on from there and ends with the same weights, bit for bit on the same machine. Ctrl-C takes effect after
    the step under way (a second one at once).

    Args:
        batch_at: step -> batch with a `.to(device)` method; must depend on the step alone.
        data: identifies data and model, so that a resume file of another training is refused.
        callback: called as `callback(step, model)` after every step; a returned dict of numbers joins the step's row.
    Raises:
        TrainingError: nothing to train, a loss that is not finite, or a resume file of another run.
    """
    if type(save_every) is not int or save_every < 1:
        raise TrainingError(f"save_every={save_every!r}: expected a whole number of steps from 1.")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not schedule.steps:
        model.eval()
        return History()
    if not trainable:
        raise TrainingError(
            f"{type(model).__name__} has no parameter to train: unfreeze the backbone or give the model a width."
        )
    engine = fabric(schedule.accelerator, schedule.precision)
    model.to(engine.device, memory_format=torch.channels_last)
    optimiser = _optimiser(trainable, schedule)
    file = Path(folder) / f"{name}.ckpt" if folder else None
    made_with = {**asdict(schedule), "data": data}
    start, history = _resume(file, model, optimiser, made_with) if file else (0, History())
    model.train()
    began, spent = time.perf_counter(), history.seconds
    done, torn = start, False
    with interrupts_held() as release:
        try:
            for step in bar(
                range(start, schedule.steps), desc=name, initial=start, total=schedule.steps, show=progress
            ):
                torch.manual_seed((schedule.seed * 1_000_003 + step) % 2**63)
                batch = batch_at(step).to(engine.device)
                torn = True
                row = _step(model, optimiser, trainable, batch, schedule, step, engine)
                # Counted before the callback runs: an error there must not make a resumed run repeat the step.
                history.rows.append(row)
                done, torn = step + 1, False
                if callback:
                    row |= {key: float(value) for key, value in (callback(step, model) or {}).items()}
                history.seconds = spent + time.perf_counter() - began
                if file and done % save_every == 0 and done < schedule.steps:
                    _save(file, model, optimiser, made_with, done, history)
                release()
        finally:
            # Also after Ctrl-C: what was trained so far is kept, and a finished run is not trained again. After half a
            # step (moved statistics, half of the weights updated) the last file is better than this state.
            if file and done > start and not torn:
                _save(file, model, optimiser, made_with, done, history)
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


def _optimiser(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=schedule.lr, momentum=0.9, weight_decay=schedule.weight_decay)
    return torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay)


def _step(model, optimiser, trainable, batch, schedule: Schedule, step: int, engine) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = schedule.lr_at(step)
    with engine.autocast():
        losses: dict[str, Tensor] = model.losses(batch)
    row = {key: float(value.detach()) for key, value in losses.items()}
    if not torch.isfinite(losses["total"]):
        raise TrainingError(
            f"the loss is {row['total']} at step {step}: lower the learning rate (now {schedule.lr}), or use "
            "precision='32'."
        )
    optimiser.zero_grad(set_to_none=True)
    engine.backward(losses["total"])
    torch.nn.utils.clip_grad_norm_(trainable, schedule.clip)
    optimiser.step()
    return row


def _save(file: Path, model, optimiser, made_with: dict, step: int, history: History) -> None:
    state = {"schedule": made_with, "step": step, "rows": history.rows, "seconds": history.seconds}
    with atomic(file) as part:
        torch.save({**state, "model": model.state_dict(), "optimiser": optimiser.state_dict()}, part)


def _resume(file: Path, model, optimiser, made_with: dict) -> tuple[int, History]:
    if not file.exists():
        return 0, History()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["schedule"] != made_with:
            changed = {k for k, v in made_with.items() if state["schedule"].get(k) != v}
            raise TrainingError(
                f"{file} belongs to another run (other {', '.join(sorted(changed))}): use another folder or delete it."
            )
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except TrainingError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(f"{file} cannot be resumed ({reason}): delete it to train from the start.") from error
    return state["step"], History(state["rows"], state["seconds"])
