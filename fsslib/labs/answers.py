"""Are two answers the same, and if not, what differs: type, shape, NaN or values. Never shows a whole answer."""

import math
from typing import Any

import numpy as np
import torch


def agree(found: Any, expected: Any, atol: float = 1e-4) -> bool:
    """True if `found` is `expected` up to `atol` (and 1e-4 of the value): numbers, tensors, texts, and lists, tuples,
    sets and dicts of them. A bool is no number; a 0-dimensional tensor is the number it holds."""
    return difference(found, expected, atol) is None


def difference(found: Any, expected: Any, atol: float = 1e-4) -> str | None:
    """One sentence on how `found` differs from `expected`, or None."""
    if found is None and expected is not None:
        return "The result is None: is there a `return`?"
    if isinstance(expected, tuple | list):
        return _sequences(found, expected, atol)
    if isinstance(expected, dict):
        return _dicts(found, expected, atol)
    if isinstance(expected, torch.Tensor) and expected.ndim:
        return _tensors(found, expected, atol)
    return _values(found, expected, atol)


def _sequences(found: Any, expected: Any, atol: float) -> str | None:
    if not isinstance(found, tuple | list) or len(found) != len(expected):
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        return f"{len(expected)} values in a {type(expected).__name__} are expected, a {_kind(found)}{size} was found."
    for i, (a, b) in enumerate(zip(found, expected)):
        if (said := difference(a, b, atol)) is not None:
            return f"Value {i + 1} of {len(expected)}: {said}"
    return None


def _dicts(found: Any, expected: dict, atol: float) -> str | None:
    if not isinstance(found, dict) or set(found) != set(expected):
        keys = ", ".join(map(repr, expected))
        return f"A dict with the keys {keys} is expected, a {_kind(found)} was found."
    for key, value in expected.items():
        if (said := difference(found[key], value, atol)) is not None:
            return f"{key!r}: {said}"
    return None


def _tensors(found: Any, expected: torch.Tensor, atol: float) -> str | None:
    if not isinstance(found, torch.Tensor):
        return f"A tensor of shape {tuple(expected.shape)} is expected, a {_kind(found)} was found."
    if found.shape != expected.shape:
        return f"The shape is {tuple(found.shape)}, expected is {tuple(expected.shape)}."
    if _family(found) != _family(expected):
        return f"The values are {found.dtype}, expected is {expected.dtype}.".replace("torch.", "")
    a, b = found.detach().double(), expected.detach().double()
    if (a.isnan() & ~b.isnan()).any():
        return "There are NaNs in the result: is something divided by zero, or the logarithm of zero taken?"
    close = torch.isclose(a, b, rtol=1e-4, atol=atol, equal_nan=True)
    if close.all():
        return None
    place = int((~close).flatten().int().argmax())
    where = tuple(int(i) for i in np.unravel_index(place, tuple(a.shape)))
    share = 100 * float((~close).double().mean())
    return f"{share:.0f} % of the values differ; the first at {list(where)}: {a[where]:.4g}, expected {b[where]:.4g}."


def _values(found: Any, expected: Any, atol: float) -> str | None:
    a, b = (x.item() if isinstance(x, torch.Tensor | np.generic) and np.ndim(x) == 0 else x for x in (found, expected))
    if isinstance(a, torch.Tensor):
        return f"A single value is expected, a tensor of shape {tuple(a.shape)} was found."
    number = isinstance(b, int | float) and not isinstance(b, bool)
    if number and (isinstance(a, bool) or not isinstance(a, int | float)):
        return f"A number is expected, a {_kind(found)} was found."
    if not number and type(a) is not type(b):
        return f"A {_kind(expected)} is expected, a {_kind(found)} was found."
    if number and a != a and b == b:
        return "The result is NaN: is something divided by zero?"
    near = number and math.isfinite(b) and abs(a - b) <= atol + 1e-4 * abs(b)
    same = near or a == b or (a != a and b != b)
    shown = (f"{a:.4g}", f"{b:.4g}") if number else (repr(a)[:80], repr(b)[:80])
    return None if same else f"The result is {shown[0]}, expected is {shown[1]}."


def _family(tensor: torch.Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "integer"


def _kind(value: Any) -> str:
    return (
        "tensor"
        if isinstance(value, torch.Tensor)
        else "numpy array"
        if isinstance(value, np.ndarray)
        else (type(value).__name__)
    )
