"""Golden vectors: weights regenerated from their names, reading files, watching a model, comparing tensors."""

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from fsslib import Episode, build_model, load_official
from fsslib.errors import CheckpointError

ROOT_GOLDEN = Path(__file__).parents[1] / "golden"
FIELDS = ("query_images", "query_masks", "support_images", "support_masks", "classes")


def recipe_weights(names_and_shapes, scales=(), salt="") -> dict[str, Tensor]:
    """The state dict that the golden files were made with: every tensor is drawn from the hash of its name."""
    state = {}
    for name, shape, dtype in names_and_shapes:
        generator = torch.Generator().manual_seed(zlib.crc32((salt + name).encode()))
        drawn = torch.randn(tuple(shape), generator=generator)
        if "int" in dtype:
            state[name] = torch.zeros(tuple(shape), dtype=torch.long)
            continue
        if name.endswith("running_mean"):
            value = 0.1 * drawn
        elif name.endswith("running_var"):
            value = 1 + 0.1 * drawn.abs()
        elif len(shape) >= 2:
            value = drawn * (2 / drawn[0].numel()) ** 0.5
        elif name.endswith(".bias"):
            value = 0.1 * drawn
        else:
            value = 1 + 0.1 * drawn
        for suffix, factor in scales:
            if name.endswith(suffix):
                value = value * factor
        state[name] = value
    return state


@lru_cache(maxsize=3)
def specified_weights(table: Path, key: str, scales: tuple = ()) -> dict[str, Tensor]:
    """`recipe_weights` of the authors' names and shapes under `key` of a table; not to be changed in place."""
    return recipe_weights(json.loads(table.read_text())[key], scales)


def with_named_weights(model: nn.Module, scales=()) -> nn.Module:
    """The model without dropout, its weights drawn from the authors' names, in eval mode."""
    table = [(model.official_name(n), v.shape, str(v.dtype)) for n, v in model.state_dict().items()]
    return load_official(without_dropout(model), recipe_weights(table, scales)).eval()


def without_dropout(model: nn.Module) -> nn.Module:
    """Set every drop probability to 0, as the golden files had it."""
    for part in model.modules():
        if isinstance(part, (nn.Dropout, nn.Dropout2d)):
            part.p = 0.0
    return model


def read_golden(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata (JSON strings decoded) of a golden file."""
    with safe_open(str(path), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        facts = file.metadata() or {}
    decoded = {}
    for key, text in facts.items():
        try:
            decoded[key] = json.loads(text)
        except ValueError:
            decoded[key] = text
    return tensors, decoded


def one_way(golden: dict[str, Tensor], query: str, query_mask: str, support: str, mask: str, **known) -> Episode:
    """The episode of a golden file, whose tensors have these names."""
    masks = golden[query_mask].long(), golden[mask].long()[:, None]
    images = golden[query].float(), golden[support].float()[:, None]
    classes = torch.ones(len(masks[0]), 1).long()
    return Episode(images[0], masks[0], images[1], masks[1], classes, **known).validate()


def reduced_episode(stored: dict[str, Tensor]) -> Episode:
    """The episode of a reduced file, which keeps images in steps of 1/32 and masks as bytes."""
    parts = {key: stored[key].float() / 32 if "images" in key else stored[key].long() for key in FIELDS}
    return Episode(**parts).validate()


def reduced_numbers(tools, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a method's tools find in the episode of its reduced file: an evaluation and a training step."""
    episode, numbers = tools.reduced_episode(stored), {}
    for variant in getattr(tools, "VARIANTS", ((),)):
        model = tools.reduced_model(*variant)
        numbers |= tools.reduced_evaluation(model, episode) | tools.reduced_training(model, episode)
    return numbers


def reduced_panet(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same for PANet, of two ways with two shots: losses, norms of gradients, then logits."""
    model = with_named_weights(build_model("panet", backbone="vgg16")).train()
    parts = {key: stored[key].float() if "images" in key else stored[key].long() for key in FIELDS[:4]}
    episode = Episode(**parts, classes=torch.tensor([[3, 8]])).validate()
    losses = model.losses(episode)
    numbers = {"losses": terms(losses), "gradnorms": gradient_norms(losses["total"], model.parameters())}
    with torch.no_grad():
        return numbers | {"logits": model.eval()(episode).logits}


@torch.no_grad()
def everything(model: nn.Module, episode: Episode, prefix: str = "") -> dict[str, Tensor]:
    """Logits, maps and, behind the prefix, losses by name, in eval mode."""
    model.explain = True
    prediction = model.eval()(episode)
    losses = {prefix + name: value for name, value in model.losses(episode).items()}
    return {"logits": prediction.logits, **prediction.maps, **losses}


class Call(NamedTuple):
    """One call inside a model: its arguments, its result, and the inputs of the convolutions on the way."""

    args: tuple
    result: object
    kwargs: dict
    convolved: list


@contextmanager
def watching(parts: dict[str, nn.Module], functions: Iterable[tuple[object, str]]) -> Iterator[dict[str, list[Call]]]:
    """The calls, by name, of modules and of functions (owner, name) inside the block."""
    calls: dict[str, list[Call]] = defaultdict(list)

    def watched(kept: list, function: Callable, *args, **kwargs):
        inputs, conv = [], F.conv2d
        with mock.patch.object(F, "conv2d", lambda x, *rest, **how: (inputs.append(x), conv(x, *rest, **how))[1]):
            kept.append(Call(args, function(*args, **kwargs), kwargs, inputs))
        return kept[-1].result

    with ExitStack() as stack:
        for name, part in parts.items():
            hook = part.register_forward_hook(lambda _, i, out, name=name: calls[name].append(Call(i, out, {}, [])))
            stack.callback(hook.remove)
        for owner, name in functions:
            watch = partial(watched, calls[name], getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, watch))
        yield calls


def gradient_norms(loss: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Norms of the gradients of `loss`, -1 where none arrives."""
    grads = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    return torch.tensor([-1.0 if grad is None else float(grad.norm()) for grad in grads])


def learned(model: nn.Module) -> list[Tensor]:
    """The parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def officially_named(model: nn.Module, order: Iterable[str]) -> list[Tensor]:
    """The parameters by their official names; training changes these and no others."""
    named = {model.official_name(n): p for n, p in model.named_parameters()}
    assert {n for n, p in named.items() if p.requires_grad} == set(order)
    return [named[name] for name in order]


def buffer_norms(model: nn.Module) -> Tensor:
    return torch.stack([buffer.double().norm() for buffer in model.buffers()]).float()


def terms(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).detach()


def _stored(value: Tensor, golden: dict[str, Tensor], key: str) -> tuple[Tensor, Tensor]:
    """A value and its stored one, whole or as sampled positions (`key.sub` at `key.idx`)."""
    value = value.detach().double()
    if key in golden:
        assert value.shape == golden[key].shape, (key, value.shape, golden[key].shape)
        return value, golden[key].double()
    assert list(value.shape) == golden[f"{key}.shape"].tolist(), key
    return value.flatten()[golden[f"{key}.idx"].long()], golden[f"{key}.sub"].double()


def assert_golden(found: Tensor, golden: dict[str, Tensor], key: str, atol: float, rtol: float = 0.0) -> None:
    """Compare with a stored tensor, whole or sampled."""
    pair = _stored(found, golden, key)
    torch.testing.assert_close(*pair, atol=atol, rtol=rtol, msg=lambda text: f"{key}: {text}")


def names(golden: dict[str, Tensor]) -> set[str]:
    """The names of the stored tensors, those of sampled ones without their endings."""
    ends = (".sub", ".idx", ".shape", ".stats")
    return {next((key.removesuffix(end) for end in ends if key.endswith(end)), key) for key in golden}


def excess(
    found: dict[str, Tensor], golden: dict[str, Tensor], tolerance: Callable[[str, Tensor], float | Tensor]
) -> dict[str, float]:
    """Largest deviation of every value from its golden tensor, in units of the tolerance; above 1 is a failure.

    `tolerance(key, expected)` is the largest allowed absolute deviation, of the tensor or of every number in it; 0 asks
    for equal values. Values without a golden tensor are left out. A class map `key` may come with its logits as
    `key logits`: where the two best of them are closer than rounding (1e-4 of the largest), processors differ in which
    wins, and the stored one counts.
    """
    off = {}
    for key in found.keys() & names(golden):
        value, expected = _stored(_settled(found, golden, key), golden, key)
        assert torch.isfinite(value).all(), key
        distance = (value - expected).abs()
        off[key] = float(torch.where(distance > 0, distance / tolerance(key, expected), 0.0).max())
    return off


def _settled(found: dict[str, Tensor], golden: dict[str, Tensor], key: str) -> Tensor:
    logits = found.get(f"{key} logits")
    if logits is None:
        return found[key]
    best = logits.detach().topk(2, 1).values
    close = best[:, 0] - best[:, 1] <= 1e-4 * logits.detach().abs().max()
    assert close.float().mean() < 1e-3, "a tie is the exception"
    return torch.where(close, golden[key].to(found[key]), found[key])


def assert_within(off: dict[str, float], expected: Iterable[str]) -> None:
    """All that was expected has been compared, and no value is farther away than its tolerance."""
    assert off.keys() == set(expected)
    assert max(off.values()) <= 1, {key: value for key, value in off.items() if value > 1}


def assert_loads_strictly(
    model: nn.Module, state: dict[str, Tensor], lost: tuple[str, str], more: tuple, other
) -> None:
    """An authors' checkpoint reaches every tensor; one with a name too few or too many, or another shape, is refused.

    Args:
        lost: a name to leave out, and what the message says of it. more: a name that is no parameter, and its message.
        other: a name and a tensor of another shape.
    """
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value + 1 for name, value in state.items()}}
    load_official(model, wrapped | {"optimizer": {}})
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[model.official_name(name)] + 1), name
    load_official(model, state)
    with pytest.raises(CheckpointError, match=f"1 missing: {lost[1]}"):
        load_official(model, {name: value for name, value in state.items() if name != lost[0]})
    with pytest.raises(CheckpointError, match=f"1 unexpected: {more[1]}"):
        load_official(model, state | {more[0]: torch.zeros(2)})
    with pytest.raises(CheckpointError, match="another shape"):
        load_official(model, state | {other[0]: other[1]})
