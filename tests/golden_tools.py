"""Golden vectors: regenerating weights from their names, reading files, comparing tensors."""

import json
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


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


ROOT_GOLDEN = Path(__file__).parent / "golden"
