"""Golden vectors: regenerating weights from their names, reading files, comparing tensors."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn


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


def assert_golden(found: Tensor, golden: dict[str, Tensor], key: str, atol: float, rtol: float = 0.0) -> None:
    """Compare with a stored tensor, whole or as sampled positions (`key.sub` at `key.idx`)."""
    found = found.detach().float()
    if key in golden:
        expected = golden[key].float()
        assert found.shape == expected.shape, (key, found.shape, expected.shape)
    else:
        assert list(found.shape) == golden[f"{key}.shape"].tolist(), key
        expected, found = golden[f"{key}.sub"].float(), found.flatten()[golden[f"{key}.idx"].long()]
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol, msg=lambda text: f"{key}: {text}")


def names(golden: dict[str, Tensor]) -> set[str]:
    """The names of the stored tensors, those of sampled ones without their endings."""
    return {key.removesuffix(end) if (end := _ending(key)) else key for key in golden}


def _ending(key: str) -> str:
    return next((end for end in (".sub", ".idx", ".shape", ".stats") if key.endswith(end)), "")


def excess(
    found: dict[str, Tensor], golden: dict[str, Tensor], tolerance: Callable[[str, Tensor], float]
) -> dict[str, float]:
    """Largest deviation of every value from its golden tensor, in units of the tolerance; above 1 is a failure.

    `tolerance(key, expected)` is the largest allowed absolute deviation; 0 asks for equal values. Values without a
    golden tensor are left out. A class map `key` may come with its logits as `key logits`: where the two best of them
    are closer than rounding (1e-4 of the largest), processors differ in which wins, and the stored one counts.
    """
    found = {key: _settled(found, golden, key) for key in found if key in names(golden)}
    return {key: _excess(value, golden, key, tolerance) for key, value in found.items()}


def _settled(found: dict[str, Tensor], golden: dict[str, Tensor], key: str) -> Tensor:
    logits = found.get(f"{key} logits")
    if logits is None:
        return found[key]
    best = logits.detach().topk(2, 1).values
    close = best[:, 0] - best[:, 1] <= 1e-4 * logits.detach().abs().max()
    assert close.float().mean() < 1e-3, "a tie is the exception"
    return torch.where(close, golden[key].to(found[key]), found[key])


def _excess(value: Tensor, golden: dict[str, Tensor], key: str, tolerance: Callable[[str, Tensor], float]) -> float:
    if key in golden:
        expected = golden[key]
    else:
        assert list(value.shape) == golden[f"{key}.shape"].tolist(), key
        expected, value = golden[f"{key}.sub"], value.flatten()[golden[f"{key}.idx"].long()]
    assert value.shape == expected.shape, (key, value.shape, expected.shape)
    expected, value = expected.double(), value.detach().double()
    assert torch.isfinite(value).all(), key
    allowed = tolerance(key, expected)
    off = float((value - expected).abs().max())
    return off / allowed if allowed else (0.0 if off == 0 else float("inf"))


def without_dropout(model: nn.Module) -> nn.Module:
    """Set every drop probability to 0, as the golden files had it."""
    for part in model.modules():
        if isinstance(part, (nn.Dropout, nn.Dropout2d)):
            part.p = 0.0
    return model


ROOT_GOLDEN = Path(__file__).parents[1] / "golden"
