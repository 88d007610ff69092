"""What a method costs: parameters, multiply-accumulates, seconds and memory of a forward pass."""

import statistics
import time
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from ..episode import Episode
from ..models import build_model
from ..models.base import evaluating

# Operators that only move numbers.
_MOVES = {"_to_copy", "_unsafe_view", "cat", "clone", "copy_", "stack"}


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one forward pass.

    Attributes:
        by_operator: counted operator (convolutions, matrix products, fused attention) -> multiply-accumulates.
        uncounted: every other operator that computes something -> elements it wrote. Most need one or a few operations
            an element; distances and resizing need more.
    """

    by_operator: dict[str, int]
    uncounted: dict[str, int]

    @property
    def total(self) -> int:
        """All that was counted."""
        return sum(self.by_operator.values())


def parameters(model: nn.Module) -> tuple[int, int]:
    """Number of parameters in all, and of those that training changes."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learned in sizes if learned)


def published_parameters(name: str, backbone: str, **options) -> tuple[int, int]:
    """`parameters` of a method of any size, built without memory for its weights. Raises ModelError like
    `build_model`."""
    with torch.device("meta"):
        return parameters(build_model(name, backbone=backbone, **options))


def macs(model: nn.Module, episode: Episode) -> Macs:
    """Count one forward pass in evaluation mode; torch counts two operations for each multiply-accumulate."""
    counter, others = FlopCounterMode(display=False), _Others()
    with evaluating(model):
        model(episode)  # what is computed once and kept is no part of the cost
        with counter, others:
            model(episode)
    found = counter.get_flop_counts()["Global"]
    return Macs({str(kind).removeprefix("aten."): n // 2 for kind, n in found.items()}, others.elements)


def seconds(model: nn.Module, episode: Episode, repeats: int = 5) -> float:
    """Median time of one forward pass, after one pass that is not counted; divide by the episodes of the batch."""
    spent = []
    with evaluating(model):
        for _ in range(repeats + 1):
            began = time.perf_counter()
            model(episode)
            if episode.query_images.is_cuda:
                torch.cuda.synchronize(episode.query_images.device)
            spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:])


def peak_memory(model: nn.Module, episode: Episode) -> int:
    """Bytes that one forward pass needs at once, besides the weights and the episode.

    On a GPU what the allocator handed out. Elsewhere the tensors that exist at the same time; what an operator needs
    for itself while it runs is not seen.
    """
    device = episode.query_images.device
    with evaluating(model):
        model(episode)  # as in `macs`
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            model(episode)
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before
        given = [*model.parameters(), *model.buffers(), *vars(episode).values()]
        with _Alive([value for value in given if isinstance(value, Tensor)]) as alive:
            model(episode)
        return alive.peak


class _Others(TorchDispatchMode):
    """Elements written by operators that torch has no count of operations for."""

    def __init__(self):
        super().__init__()
        self.elements: dict[str, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function._overloadpacket.__name__
        if function._overloadpacket not in flop_registry and not function.is_view and name not in _MOVES:
            written = sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
            self.elements[name] = self.elements.get(name, 0) + written
        return out


class _Alive(TorchDispatchMode):
    """Bytes of all storages that appear inside, as long as anything holds them; `given` tensors are free."""

    def __init__(self, given: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for tensor in given:
            self._known[tensor.untyped_storage()] = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self._known:
                size = self._known[storage] = storage.nbytes()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, size)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size
