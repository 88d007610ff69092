"""Training: one loop for base-class pre-training and episodic training, which resumes bit for bit.

First how long and how fast to train, how Ctrl-C waits for a good moment, how the best state is chosen; then the loop.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import check_count, check_number, check_switch
from .data.base import SegmentationDataset
from .data.episodes import EpisodeSampler
from .data.loading import loaded
from .errors import OutputError, TrainingError
from .evaluation import evaluate, exact_float32
from .files import atomic, clear_abandoned, located, make_folder
from .models.base import FewShotModel, unwrapped
from .models.devices import Share, elsewhere, launch
from .progress import bar
from .protocol import Protocol

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
ACCELERATORS = ("auto", "cpu", "gpu")
LOG_EVERY = 20  # steps between two readings of a GPU's losses
LOGGERS = ("csv", "tensorboard")


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
        precision: `"32"` (on a GPU without TF32, see `exact_float32`) or `"bf16"` (autocast).
        accelerator: `"auto"`, `"cpu"` or `"gpu"`. devices, nodes: how many of them on each of how many machines share a
            batch, each with a process of its own (see `fsslib.models.devices`); several machines inside a job of Slurm.
        seed: the batch and every random drop of step t are pure functions of (seed, t).
        compile: compute the losses by `torch.compile`: minutes at the start, faster steps, other random drops. On one
            device only.

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
    compile: bool = False
    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        choices = {"precision": PRECISIONS, "optimiser": ("adamw", "sgd"), "accelerator": ACCELERATORS}
        for name, known in {**choices, "decay": ("linear", "poly")}.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}.")
        for name, least in {"steps": 0, "batch": 1, "warmup": 0, "seed": 0, "devices": 1, "nodes": 1}.items():
            check_count(getattr(self, name), name, least, error=TrainingError)
        for name in ("lr", "power", "weight_decay", "momentum", *(["clip"] if self.clip is not None else [])):
            zero = name in ("weight_decay", "momentum")
            check_number(getattr(self, name), name, zero=zero, error=TrainingError)
        if self.momentum >= 1:
            raise TrainingError(f"momentum={self.momentum!r}: expected a number from 0 to below 1.")
        check_switch(self.compile, "compile", TrainingError)
        if self.batch % (self.devices * self.nodes):
            several = f"{self.devices} devices" + f" on {self.nodes} nodes" * (self.nodes > 1)
            raise TrainingError(f"batch={self.batch} has no equal shares for {several}: take a multiple.")
        if self.compile and self.devices * self.nodes > 1:
            raise TrainingError("compile=True works on one device only: leave it out, or devices and nodes.")

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        if self.decay == "poly" and step + 1 < self.warmup:
            return self.lr * (0.1 + 0.9 * (step + 1) / self.warmup)
        if self.decay == "poly":
            return self.lr * (1 - (step + 1) / self.steps) ** self.power
        rising, falling = (step + 1) / max(self.warmup, 1), (self.steps - step) / max(self.steps - self.warmup, 1)
        return self.lr * min(rising, falling, 1)

    def seed_of(self, step: int) -> int:
        """What the random numbers of step `step` begin from."""
        return (self.seed * 1_000_003 + step) % 2**63


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

    def due(self, step: int) -> bool:
        """Whether the model is scored after (0-based) step `step`."""
        return (step + 1) % self.every == 0 or step + 1 == self.steps

    def __call__(self, step: int, model: nn.Module) -> dict[str, float] | None:
        """Score the model where it is due after (0-based) step `step`, and keep its state if it is the best."""
        if not self.due(step):
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
    dataset: SegmentationDataset, protocol: Protocol, *, shot: int = 1, batch: int = 8, workers: int = 0
) -> tuple[Callable[[FewShotModel], float], str]:
    """mIoU in percent on the fixed episodes of `protocol`, as a function of the model, and a text that names it."""

    how = {"shots": (shot,), "batch": batch, "workers": workers, "progress": False}
    score = partial(_first_miou, dataset=dataset, protocol=protocol, **how)
    return score, f"{shot} shots on {dataset.hash()} {protocol.as_dict()}"


def _first_miou(model: FewShotModel, **how) -> float:
    return 100 * next(iter(evaluate(model, **how).scores.values())).miou


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
        how: `workers`, `save_every`, `log_every`, `logger`, `progress` and `callback` of `fit`.
    """
    rules = [sampler.shot, sampler.seed, sampler.augment, sampler.protocol.as_dict(), model.config]
    where = {"folder": folder, "name": "episodic", "data": f"{sampler.dataset.hash()} {rules}"}
    return fit(model, partial(sampler.batch, size=schedule.batch), schedule, **where, **how)


def fit(
    model: nn.Module, batch_at: Callable[[int], object], schedule: Schedule, *, name: str, data: str = "",
    folder: str | Path | None = None, save_every: int = 200, log_every: int | None = None, logger: str | None = None,
    workers: int = 0, progress: bool = True, callback: Callable[[int, nn.Module], dict | None] | None = None,
) -> History:  # fmt: skip
    """The training loop: minimise `model.losses(batch_at(step))["total"]` for `schedule.steps` steps.

    With several devices (see Schedule) processes of their own do this, and a step is that of one device to rounding:
    also batch statistics and random drops are those of the whole batch, as long as a loss is a mean over episodes, or
    over pixels by `losses.segmentation`. `callback` is called in the first of them, and afterwards has its state here.

    With `folder`, the state is written to `folder/name.ckpt` every `save_every` steps; a run that was killed at any
    point goes on from there and ends with the same weights, bit for bit on the same machine, also with another number
    of workers. Ctrl-C takes effect after the step under way (a second one at once).

    Args:
        batch_at: step -> batch with a `.to(device)` method; must depend on the step alone. Its random numbers may come
            from torch's generator, which is seeded for every step. With several devices called as `batch_at(step,
            part=(number, of how many))`, and what it returns is that part of the batch.
        data: identifies data and model, so that a resume file of another training is refused.
        log_every: steps between two readings of the losses; a GPU is waited for only then. None: 1, on a GPU 20. A
            loss that is not finite is noticed by then, before the state is written, and before a callback is `due`.
        logger: `"csv"` or `"tensorboard"`: also write the rows to `folder/logs/name`, each once, whatever stopped the
            training on its way.
        workers: processes that load batches ahead, see `fsslib.data.loading.loaded`; 0 loads in this one.
        callback: called as `callback(step, model)` after every step; a returned dict of numbers joins the step's row.
            One with a state (`state_dict`, `load_state_dict`) has it kept in the resume file, and its text `rules`
            must be the same when the run goes on. One that does nothing after most steps may say so in `due(step)`.
    Raises TrainingError: nothing to train, a loss that is not finite, a resume file of another run, a logger without
    folder or package, or loader processes that do not start or are killed.
    """
    how = {"save_every": save_every, "log_every": log_every, "workers": workers, "callback": callback, "logger": logger}
    _check_numbers(save_every, log_every, workers)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not schedule.steps:
        model.eval()
        return History()
    if not trainable:
        cure = "unfreeze the backbone or give the model a width"
        raise TrainingError(f"{type(model).__name__} has no parameter to train: {cure}.")
    if elsewhere(schedule.devices, schedule.nodes):
        return _fit_elsewhere(model, batch_at, schedule, name, data, folder, progress, how)
    engine = fabric(schedule.accelerator, schedule.precision, schedule.devices, schedule.nodes)
    device, on_gpu, cuda = engine.device, engine.device.type != "cpu", engine.device.type == "cuda"
    model.to(device, **({"memory_format": torch.channels_last} if cuda else {}))  # as tensor cores want it
    optimiser = _optimiser(model, schedule, fused=cuda or not on_gpu)
    losses_of = _compiled(model.losses) if schedule.compile else model.losses
    share = Share(engine, schedule.batch) if engine.world_size > 1 else None
    run = _Run(model, optimiser, schedule, callback, log_every or (LOG_EVERY if on_gpu else 1), save_every, share)
    if folder:
        run.resume(make_folder(folder) / f"{name}.ckpt", data)
    run.log_to(logger, folder, name)
    steps = range(run.done, schedule.steps)
    shown = share.told(steps) if share else bar(steps, desc=name, initial=run.done, total=schedule.steps, show=progress)
    if share:
        losses_of, batch_at = share.losses(model), partial(batch_at, part=(share.number, share.of))
    batches = loaded(partial(_seeded, batch_at, schedule), steps, workers=workers, device=device)
    with interrupts_held() as release, exact_float32(schedule.precision == "32"), run.under_way(), batches as batches:
        # A GPU still computes the last step while the next batch is drawn: in between nothing waits for it.
        for step, batch in zip(shown, batches):
            _seed(schedule.seed_of(step), on_gpu)
            run.torn = True
            with engine.autocast():
                losses = losses_of(batch)
            run.note(step, losses)
            optimiser.zero_grad(set_to_none=True)
            engine.backward(losses["total"])
            if schedule.clip is not None:
                nn.utils.clip_grad_norm_(trainable, schedule.clip)
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * schedule.lr_at(step)
            optimiser.step()
            run.finish(step)
            release()
    return run.history


def _fit_elsewhere(model, batch_at, schedule: Schedule, name: str, data: str, folder, progress: bool, how) -> History:
    """`fit` in several processes; the state that they leave is taken over."""
    with contextlib.ExitStack() as after:
        folder = make_folder(folder or after.enter_context(tempfile.TemporaryDirectory(prefix="fsslib-")))
        run = _Run(model, _optimiser(model, schedule), schedule, how["callback"], 1, 1)
        file = folder / f"{name}.ckpt"
        run.resume(file, data)
        call = partial(fit, model, batch_at, schedule, name=name, data=data, folder=folder, progress=False, **how)
        steps = launch(call, folder, schedule.devices, schedule.nodes) if run.done < schedule.steps or run.owed else ()
        for _ in bar(steps, desc=name, initial=run.done, total=schedule.steps, show=progress):
            pass
        run.resume(file, data)
    model.eval()
    return run.history


def _check_numbers(save_every: int, log_every: int | None, workers: int) -> None:
    check_count(save_every, "save_every", unit="steps", error=TrainingError)
    if log_every is not None:
        check_count(log_every, "log_every", unit="steps", error=TrainingError)
    check_count(workers, "workers", 0, unit="processes", error=TrainingError)


def _seeded(batch_at: Callable[[int], object], schedule: Schedule, step: int) -> object:
    """The batch of a step, whatever was drawn before in the process that makes it."""
    _seed(schedule.seed_of(step))
    return batch_at(step)


def _seed(number: int, on_gpu: bool = False) -> None:
    """`torch.manual_seed`, which without a GPU would write down the call stack for three devices that are not there."""
    (torch.manual_seed if on_gpu else torch.default_generator.manual_seed)(number)


def fabric(accelerator: str, precision: str, devices: int = 1, nodes: int = 1):
    """lightning-fabric on one device, or in one of the processes of several, which are started or met here.
    Raises TrainingError when the accelerator is not to be had here, or not so often."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
    from lightning_fabric.strategies import DDPStrategy

    # Fabric announces mixed precision at every start; a notebook with three trainings needs no three announcements.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    how = {"accelerator": accelerator, "devices": devices, "num_nodes": nodes, "precision": PRECISIONS[precision]}
    if devices * nodes > 1:
        # Buffers are equal without being sent, which would empty the caches of features. Newer versions call it so.
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        sent = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        # The others wait for the first process while it validates.
        ddp = {"find_unused_parameters": True, sent: False, "timeout": timedelta(days=1)}
        how["strategy"] = DDPStrategy(**ddp)
        how["plugins"] = LightningEnvironment() if nodes == 1 else SLURMEnvironment(auto_requeue=False)
    try:
        engine = Fabric(**how)
    except Exception as error:  # Fabric's own types differ between versions
        several = f" {devices} times" * (devices > 1)
        raise TrainingError(
            f"accelerator {accelerator!r} is not usable here{several} ({error}): take 'cpu'."
        ) from error
    if engine.world_size > 1:
        engine.launch()
    return engine


def _optimiser(model: nn.Module, schedule: Schedule, fused: bool = False) -> torch.optim.Optimizer:
    """One group for every factor that the model gives the learning rate of its parameters. `fused`: in one kernel."""
    factor = getattr(model, "lr_factor", lambda name: 1.0)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(factor(name), []).append(parameter)
    parameters = [{"params": group, "factor": value} for value, group in groups.items()]
    how = {"lr": schedule.lr, "weight_decay": schedule.weight_decay, "fused": fused or None}
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(parameters, momentum=schedule.momentum, **how)
    return torch.optim.AdamW(parameters, **how)


def _logger(kind: str, folder: str | Path | None, name: str):
    """lightning-fabric's logger `kind` for rows from the first one on: what was in `folder/logs/name` is removed.
    Raises TrainingError without a folder, or the package that the logger needs."""
    if kind not in LOGGERS or folder is None:
        wrong = "needs a folder" if kind in LOGGERS else f"expected one of {', '.join(LOGGERS)}"
        raise TrainingError(f"logger {kind!r}: {wrong}, or leave logger out.")
    from lightning_fabric import loggers

    how = {"root_dir": located(folder), "name": "logs", "version": name}
    try:
        made = loggers.CSVLogger(**how) if kind == "csv" else loggers.TensorBoardLogger(**how)
    except ModuleNotFoundError as error:
        cure = "pip install 'fsslib[tensorboard]', or take 'csv'"
        raise TrainingError(f"logger {kind!r} needs the package tensorboardX or tensorboard: {cure}.") from error
    shutil.rmtree(made.log_dir, ignore_errors=True)
    return made


def _compiled(losses: Callable[[object], dict[str, Tensor]]) -> Callable[[object], dict[str, Tensor]]:
    """`losses` by `torch.compile`. Only the function: the model and the names of its parameters stay as they are."""
    fast = torch.compile(losses)

    def compiled(batch: object) -> dict[str, Tensor]:
        try:
            return fast(batch)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split())[:300]
            raise TrainingError(f"the losses cannot be compiled here ({reason}): leave compile out.") from error

    return compiled


class _Run:
    """A training under way: what it recorded, how far it is, and the file that it goes on from.

    Attributes:
        done: whole steps. torn: whether a step was left half-way (moved statistics, half of the weights updated, a loss
            that is not finite): then the last file is better than the state in memory.
        owed: whether the callback of the last step never came to its end.
    """

    def __init__(self, model, optimiser, schedule: Schedule, callback, log_every: int, save_every: int, share=None):
        self.share, self.first = share, share is None or share.first
        self.model, self.optimiser, self.schedule, self.callback = model, optimiser, schedule, callback
        self.log_every, self.save_every = log_every, save_every
        self.history, self.done, self.torn, self.owed = History(), 0, False, False
        self.file: Path | None = None
        self.logger, self._logged = None, 0
        self._unread: list[tuple[int, tuple[str, ...], Tensor]] = []

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Whatever ends the training inside the block, Ctrl-C too: what was trained is kept."""
        start, self._began, self._spent = self.done, time.perf_counter(), self.history.seconds
        self.model.train()
        try:
            if self.owed:
                self._call()
            yield
            self._read()
        finally:
            self.model.eval()
            try:
                if self.done > start and not self.torn:
                    self._save()
            finally:
                self._log()
                if self.logger:
                    self.logger.finalize("finished")

    def note(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step where they are; every `log_every` steps they are read, which waits for a GPU."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self.history.rows.append({})
        self._unread.append((step, tuple(losses), self.share.mean(values) if self.share else values))
        if len(self._unread) >= self.log_every:
            self._read()

    def finish(self, step: int) -> None:
        """After a whole step: count it, call the callback, write the file where it is time."""
        # Counted before the callback runs: an error there must not make a resumed run repeat the step.
        self.done, self.torn = step + 1, False
        self._call()
        self._log()
        self.history.seconds = self._spent + time.perf_counter() - self._began
        if self.done % self.save_every == 0 and self.done < self.schedule.steps:
            self._save()

    def _read(self) -> None:
        """Fill the rows. Raises TrainingError naming the first step whose loss is not finite."""
        if not self._unread:
            return
        values = iter(torch.cat([losses for _, _, losses in self._unread]).tolist())
        for step, names, _ in self._unread:
            row = dict(zip(names, values))
            if not math.isfinite(row["total"]):
                self.torn = True
                cure = f"lower the learning rate (now {self.schedule.lr}), or use precision='32'"
                raise TrainingError(f"the loss is {row['total']} at step {step}: {cure}.")
            self.history.rows[step] = row | self.history.rows[step]
        self._unread.clear()

    def _call(self) -> None:
        if self.callback is None or not self.first:
            return
        self.owed, step = True, self.done - 1
        if getattr(self.callback, "due", lambda step: True)(step):
            self._read()
        said = self.callback(step, self.model) or {}
        self.history.rows[step] |= {key: float(value) for key, value in said.items()}
        self.owed = False

    def log_to(self, kind: str | None, folder: str | Path | None, name: str) -> None:
        """Hand every row to a logger, beginning with those that a resumed training has already."""
        if kind is not None and self.first:
            self.logger = _logger(kind, folder, name)
            self._log()

    def _log(self) -> None:
        """Log the rows that are complete and not logged yet."""
        complete = min(self.done - self.owed, *(step for step, _, _ in self._unread[:1]), len(self.history.rows))
        for step in range(self._logged, complete) if self.logger else ():
            self.logger.log_metrics(self.history.rows[step], step)
            self._logged = step + 1

    def _save(self) -> None:
        self._read()
        if self.file is None or not self.first:
            return
        state = {"schedule": self._made_with, "step": self.done, "rows": self.history.rows, "due": self.owed}
        state |= {"seconds": self.history.seconds, "model": unwrapped(self.model).state_dict()}
        state["optimiser"] = self.optimiser.state_dict()
        if hasattr(self.callback, "state_dict"):
            state["callback"] = self.callback.state_dict()
        with atomic(self.file) as part:
            try:
                torch.save(state, part)
            except RuntimeError as error:  # torch's own word for what the system says
                reason = (str(error).splitlines() or [""])[0]
                cure = "Free space there, or name another folder"
                raise OutputError(f"{self.file} cannot be written: {reason} {cure}.") from error

    def resume(self, file: Path, data: str) -> None:
        """Keep the training in `file`, and go on from there if it holds one.
        Raises TrainingError if that is another one (of schedule, `data` or callback), or cannot be read."""
        self.file = file
        self._made_with = {**asdict(self.schedule), "data": data, "callback": getattr(self.callback, "rules", "")}
        clear_abandoned(file.parent, re.escape(file.name))
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            self._take_over(state)
        except TrainingError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise TrainingError(f"{file} cannot be resumed ({reason}): delete it to train from the start.") from error
        self.done, self.owed = state["step"], state["due"]
        self.history = History(state["rows"], state["seconds"])

    def _take_over(self, state: dict) -> None:
        held = {"devices": 1, "nodes": 1} | state["schedule"]  # which came later
        if held != self._made_with:
            other = ", ".join(sorted(k for k, v in self._made_with.items() if held.get(k) != v))
            raise TrainingError(f"{self.file} belongs to another run (other {other}): use another folder or delete it.")
        unwrapped(self.model).load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if any("factor" not in group for group in self.optimiser.param_groups):
            wrong = "was written by another version of fsslib"
            raise TrainingError(f"{self.file} {wrong}: delete it to train from the start.")
        if hasattr(self.callback, "load_state_dict"):
            self.callback.load_state_dict(state["callback"])
