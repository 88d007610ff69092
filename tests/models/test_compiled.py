"""Every method as one graph, and on a GPU without a wait: the forms that read no numbers to save work."""

from contextlib import contextmanager

import pytest
import torch
from method_tools import TINY, legal
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsslib import Episode
from fsslib.ops import may_wait, object_cells

# Two levels of each pyramid: more are the same lines again.
LEVELS = {"panet": {}, "sdaanet": {"scales": (6, 4)}, "asgnet": {"scales": (6, 4)}, "hdmnet": {"stages": 2}}


def two_shots(method: str):
    """A model of the method for two shots, and an episode with two."""
    return TINY[method](shots=2, **LEVELS[method]), legal(method, 2, 1, 2)


def gradients(model, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(losses["total"], list(named.values()), allow_unused=True)))


@pytest.mark.parametrize("method", TINY)
def test_a_training_step_is_one_graph(method):
    """`fullgraph` raises at the first break. The dense forms inside must give what the shortcuts of a CPU give."""
    model, episode = two_shots(method)
    model.train()
    found = []
    for losses in (model.losses, torch.compile(model.losses, fullgraph=True, backend="eager")):
        torch.manual_seed(0)
        terms = losses(episode)
        found.append(({name: term.detach() for name, term in terms.items()}, gradients(model, terms)))
    (plain, expected), (one_graph, grads) = found
    torch.testing.assert_close(one_graph, plain, rtol=1e-5, atol=1e-6)
    assert {n for n, g in grads.items() if g is None} == {n for n, g in expected.items() if g is None}
    for name, grad in expected.items():
        if grad is not None:
            torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-3 * float(grad.abs().max()))


@pytest.mark.parametrize("method", TINY)
@torch.no_grad()
def test_an_evaluated_episode_is_one_graph(method):
    model, episode = two_shots(method)
    one_graph = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(one_graph(episode).logits, model(episode).logits, rtol=1e-4, atol=1e-5)


class OneDevice(TorchDispatchMode):
    """Refuses every step that a tensor outside the GPU takes part in: a copy makes the program wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor) and tensor.ndim and tensor.device.type != "cuda":
                raise RuntimeError(f"{func} of a tensor on {tensor.device}")
        return result


@contextmanager
def imagined_gpu():
    """Tensors inside have shapes and a device, but no numbers: what depends on a number cannot be computed."""
    with FakeTensorMode() as mode, torch.device("cuda"):
        yield mode


def imagined(mode: FakeTensorMode, episode: Episode) -> Episode:
    return episode._map(lambda tensor: mode.from_tensor(tensor).to("cuda"))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("method", TINY)
def test_nothing_waits_for_a_gpu(method, train):
    episode = legal(method, 2, 1, 2)
    with imagined_gpu() as mode:
        model, episode = TINY[method](shots=2, **LEVELS[method]).train(train), imagined(mode, episode)
        with OneDevice():
            losses = model.losses(episode)
            logits = model(episode).logits
    assert logits.shape == (2, 2, 33, 33) and {*losses.values()} and all(loss.ndim == 0 for loss in losses.values())


def test_the_imagined_gpu_notices_what_waits():
    with imagined_gpu():
        numbers = torch.ones(3, 4)
        assert not may_wait(numbers) and object_cells(numbers > 0)[0].shape == (3, 4)
        with pytest.raises(DataDependentOutputException):
            int(numbers.sum())
        with OneDevice():
            for waits in (
                lambda: numbers[:, [0, 1]],
                lambda: numbers.cpu(),
                lambda: numbers + torch.ones(4, device="cpu"),
            ):
                with pytest.raises(RuntimeError):
                    waits()
