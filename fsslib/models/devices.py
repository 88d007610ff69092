"""One training on several devices, and what processes hand each other for that and for evaluation in shards.

Every device has a process with a copy of the model, and computes its share of the batch. What the shares have to know
of each other is made common, so that a step is that of one device with the whole batch: the gradients (DDP), the number
of pixels that a loss is a mean of, the statistics of batch norms, and which of the random drops are whose.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..errors import FsslibError, TrainingError
from ..files import atomic
from ..losses import counted_by
from . import use

PLUGIN = "fsslib_plugin_"  # how the modules of `models.use` are called
# What other launchers leave in the environment, and would be taken for ours.
MARKS = ("MASTER_", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE")
LOST = r"Connection (closed|reset)|[Gg]loo|NCCL|[Bb]roken pipe|peer"  # in the error of one whose partner has gone
_told = None  # in a process that trains with others: where the first one tells its steps


def packed(thing: Any, alone: str) -> bytes:
    """`thing`, models and data sets included, for another process. `alone` says in an error how to do without one.
    Raises TrainingError for what only this process knows, such as a class that a notebook defines."""
    plugins = [module.__file__ for name, module in list(sys.modules.items()) if name.startswith(PLUGIN)]
    order = io.BytesIO()
    try:
        torch.save(thing, order)
    except Exception as error:  # pickle's own, and whatever an object's own code raises
        cure = f"define its classes and functions in a module, not in a notebook or another function, or use {alone}"
        raise TrainingError(f"this cannot be sent to another process ({error}): {cure}.") from error
    return pickle.dumps((plugins, order.getvalue()))


def unpacked(order: bytes) -> Any:
    """What `packed` was given, on the CPU, after the files of `models.use` that it may need."""
    plugins, held = pickle.loads(order)
    for path in plugins:
        if not any(getattr(module, "__file__", None) == path for module in list(sys.modules.values())):
            use(path)
    return torch.load(io.BytesIO(held), map_location="cpu", weights_only=False)


# The process that asks for a training.


def elsewhere(devices: int, nodes: int) -> bool:
    """Whether a training on so many devices needs processes of its own: always but in one of them."""
    return devices * nodes > 1 and _told is None


def launch(call: Callable[[], Any], folder: Path, devices: int, nodes: int) -> Iterator[int]:
    """Let `call` run in `devices` processes on each of `nodes` machines; yields the steps that the first one begins.

    Ctrl-C ends the step under way first, a second one does not. Whatever ends this process ends the others.

    Args: folder: where what is handed over lies meanwhile; of several nodes one that all of them see.
    Raises: the first error in any of them. TrainingError: a process died, several nodes outside Slurm, or a `call` that
        cannot be sent to another process.
    """
    with tempfile.TemporaryDirectory(prefix="devices-", dir=folder) as place:
        (Path(place) / "order").write_bytes(packed(call, "devices=1"))
        command = [*_on_nodes(devices, nodes), sys.executable, "-m", __name__, place]
        marks = MARKS if nodes > 1 else (*MARKS, "SLURM_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(marks)}
        # What this process can import those can too, and nothing that happens to lie in the working folder.
        environment |= {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1"}
        with open(Path(place) / "words", "w") as words:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": words, "text": True}
            child = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        try:
            yield from map(int, child.stdout)
            child.wait()
        except (KeyboardInterrupt, GeneratorExit):  # here, or where the steps are counted
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()  # which those on other machines notice
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
        if child.returncode:
            raise _cause(Path(place), child.returncode)


def _on_nodes(devices: int, nodes: int) -> list[str]:
    """What stands before a command that runs on several machines."""
    if nodes == 1:
        return []
    if "SLURM_JOB_ID" not in os.environ:
        raise TrainingError(f"nodes={nodes}: this is no job of Slurm with {nodes} nodes; start one, or use nodes=1.")
    tasks = f"--nodes={nodes}", f"--ntasks={nodes * devices}", f"--ntasks-per-node={devices}"
    return ["srun", *tasks, "--kill-on-bad-exit=1", "--overlap", "--disable-status"]


def _cause(place: Path, status: int) -> BaseException:
    """The error that ended the processes: the first that is no mere consequence of another one's end."""
    errors = sorted((pickle.loads(file.read_bytes()) for file in place.glob("error-*")), key=lambda entry: entry[0])
    for _, error in errors:
        if not (isinstance(error, RuntimeError) and re.search(LOST, str(error))) or isinstance(error, FsslibError):
            return error
    words = " ".join((place / "words").read_text(errors="replace").split())[-300:]
    reason = f"exit status {status}{f', {words}' * bool(words and not errors)}"
    cure = "run it again: with a folder it goes on from there"
    return TrainingError(f"a process of the training on several devices died ({reason}): {cure}.")


# The processes that train.


def main(place: str) -> int:
    """Run what `launch` left in the folder `place`, as one of its processes; returns the exit status."""
    global _told
    _told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed, by this process or those that it starts
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    rank = int(os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0)))
    signal.signal(signal.SIGINT, signal.SIG_IGN if rank else signal.default_int_handler)
    try:
        unpacked((Path(place) / "order").read_bytes())()
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # whatever it was, it belongs into the process that asked
        error.add_note("".join(traceback.format_exception(error)))
        try:
            entry = pickle.dumps((time.time(), error))
            pickle.loads(entry)
        except Exception:
            entry = pickle.dumps((time.time(), TrainingError(f"{type(error).__name__}: {error}")))
        with atomic(Path(place) / f"error-{rank}") as part:
            part.write_bytes(entry)
        return 1
    distributed.destroy_process_group()
    return 0


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


class Share:
    """The part of every batch that this process computes, and what it needs of the others.

    Args: engine: a launched Fabric. batch: episodes or images of a whole batch.
    Attributes: number, of: which share, of how many. first: whether this process keeps files and says what happens.
    """

    def __init__(self, engine: Any, batch: int):
        self.number, self.of = engine.global_rank, engine.world_size
        self.first, self.size = engine.is_global_zero, batch // engine.world_size
        self._two_parts: set[int] = set()
        self._wrap = engine.strategy.setup_module

    def losses(self, model: nn.Module) -> nn.Module:
        """`model.losses` in DDP: of the batches' shares, but with the gradient of the whole batch."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.forward = partial(self._normalised, module)
            elif isinstance(module, _DropoutNd):
                module.forward = partial(self._dropped, module)
        return self._wrap(_Losses(model, self))

    def told(self, steps: Iterable[int]) -> Iterator[int]:
        """`steps`, of which the process that waits for this one hears."""
        for step in steps:
            if self.first:
                print(step, file=_told, flush=True)
            yield step

    def mean(self, own: Tensor) -> Tensor:
        """The mean of a tensor over all processes, through which a gradient passes."""
        return _Mean.apply(own)

    def counted(self, own: Tensor) -> Tensor:
        """What the sum over this share's pixels is divided by, so that the mean over all shares is that over all
        pixels; `own` of them are in this share."""
        return (self.mean(own.double()) * self.of).clamp_min(1) / self.of

    def _normalised(self, norm: _BatchNorm, features: Tensor) -> Tensor:
        """Batch norm with the statistics of the whole batch."""
        if not norm.training:
            return type(norm).forward(norm, features)
        own_var, own_mean = torch.var_mean(features.float(), [0, *range(2, features.ndim)], correction=0)
        mean = self.mean(own_mean)
        var = self.mean(own_var + (own_mean - mean) ** 2)
        with torch.no_grad():
            count = self.of * features.numel() // features.shape[1]
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * (count / (count - 1)), norm.momentum)
        statistics = mean, var.add(norm.eps).rsqrt() * norm.weight, norm.bias
        mean, scale, bias = (value.view(-1, *[1] * (features.ndim - 2)) for value in statistics)
        return ((features.float() - mean) * scale + bias).to(features.dtype)

    def _dropped(self, drop: _DropoutNd, features: Tensor) -> Tensor:
        """Random drops as one process draws them for the whole batch, of which this share's rows are taken."""
        rows, plain = len(features), type(drop).forward
        if not (drop.training and drop.p) or rows % self.size:
            return plain(drop, features)
        like = torch.empty_like(features.detach())
        stride = like.stride() if like.stride(0) * rows == like.numel() else None
        shape = (self.of * rows, *features.shape[1:])
        whole = like.new_empty_strided(shape, stride) if stride else like.new_empty(shape)
        with torch.no_grad():
            kept = plain(drop, whole.fill_(1))
        each = rows // self.size
        # Queries of all episodes may stand before the supports of all.
        parts = [self.size, rows - self.size] if each in self._two_parts else [rows]
        blocks = kept.split([self.of * part for part in parts])
        return features * torch.cat([block.chunk(self.of)[self.number] for block in blocks])


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        total = own.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Mean.apply(gradient)


class _Losses(nn.Module):
    """`losses` as a forward pass, which is what DDP watches."""

    def __init__(self, model: nn.Module, share: Share):
        super().__init__()
        self.model, self.share = model, share

    def forward(self, batch: Any) -> dict[str, Tensor]:
        supports = getattr(batch, "support_images", None)
        if supports is not None:
            way, shot = supports.shape[1:3]
            self.share._two_parts = {1 + way * shot, 1 + shot} - {way * shot, shot}
        with counted_by(self.share.counted):
            losses = self.model.losses(batch)
        # Only the total is differentiated: the others must not look to DDP as if they were.
        return {name: value if name == "total" else value.detach() for name, value in losses.items()}


if __name__ == "__main__":
    from fsslib.models import devices  # the module that pickles know, not this copy of it

    sys.exit(devices.main(sys.argv[1]))
