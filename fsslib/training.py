"""Training: base-class pre-training and episodic training through one loop that resumes bit for bit."""

from __future__ import annotations

import logging
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
from .schedule import PRECISIONS, Schedule

__all__ = ["History", "Schedule", "fabric", "fit", "train_episodes"]


@dataclass
class History:
    """What training recorded.

    Attributes:
        rows: one row of losses a step, and whatever its callback said.
        seconds: how long it took.
        selected: the state that was chosen, see `selection.Selection.summary`; empty when the last one stayed.
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
            One with a state (`state_dict`, `load_state_dict`) has it kept in the resume file, and its text `rules`
            must be the same when the run goes on.
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
    optimiser = _optimiser(model, schedule)
    file = Path(folder) / f"{name}.ckpt" if folder else None
    made_with = {**asdict(schedule), "data": data, "callback": getattr(callback, "rules", "")}
    # `due`: the callback of the last step never came to its end.
    start, history, due = _resume(file, model, optimiser, made_with, callback) if file else (0, History(), False)
    model.train()
    began, spent = time.perf_counter(), history.seconds
    done, torn = start, False
    with interrupts_held() as release:
        try:
            if due and callback:
                _call(callback, start - 1, model, history.rows[-1])
                due = False
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
    if schedule.optimiser == "sgd":
        momentum, decay = schedule.momentum, schedule.weight_decay
        return torch.optim.SGD(parameters, lr=schedule.lr, momentum=momentum, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay)


def _step(model, optimiser, trainable, batch, schedule: Schedule, step: int, engine) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = group["factor"] * schedule.lr_at(step)
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
            changed = {k for k, v in made_with.items() if state["schedule"].get(k) != v}
            raise TrainingError(
                f"{file} belongs to another run (other {', '.join(sorted(changed))}): use another folder or delete it."
            )
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
