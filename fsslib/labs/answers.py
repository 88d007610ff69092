"""Are two answers the same, and if not, what differs: type, shape, NaN or values. Never shows a whole answer."""

import math
from typing import Any

import numpy as np
import torch


def agree(answer: Any, expected: Any, atol: float = 1e-4) -> bool:
    """True if `answer` is `expected` up to `atol` (and 1e-4 of the value): numbers, tensors, texts, and lists, tuples,
    sets and dicts of them. A bool is no number; a 0-dimensional tensor is the number it holds."""
    return difference(answer, expected, atol) is None


def difference(answer: Any, expected: Any, atol: float = 1e-4) -> str | None:
    """One sentence on how `answer` differs from `expected`, or None."""
    if answer is None and expected is not None:
        return "The result is None: is there a `return`?"
    if isinstance(expected, tuple | list):
        return _sequences(answer, expected, atol)
    if isinstance(expected, dict):
        return _dicts(answer, expected, atol)
    if isinstance(expected, torch.Tensor) and expected.ndim:
        return _tensors(answer, expected, atol)
    return _values(answer, expected, atol)


def _sequences(answer: Any, expected: Any, atol: float) -> str | None:
    if not isinstance(answer, tuple | list) or len(answer) != len(expected):
        size = f" of {len(answer)}" if isinstance(answer, tuple | list) else ""
        return f"{len(expected)} values in a {type(expected).__name__} are expected, a {_kind(answer)}{size} was found."
    for i, (a, b) in enumerate(zip(answer, expected)):
        if problem := difference(a, b, atol):
            return f"Value {i + 1} of {len(expected)}: {problem}"
    return None


def _dicts(answer: Any, expected: dict, atol: float) -> str | None:
    if not isinstance(answer, dict) or set(answer) != set(expected):
        keys = ", ".join(map(repr, expected))
        return f"A dict with the keys {keys} is expected, a {_kind(answer)} was found."
    for key, value in expected.items():
        if problem := difference(answer[key], value, atol):
            return f"{key!r}: {problem}"
    return None


def _tensors(answer: Any, expected: torch.Tensor, atol: float) -> str | None:
    if not isinstance(answer, torch.Tensor):
        return f"A tensor of shape {tuple(expected.shape)} is expected, a {_kind(answer)} was found."
    if answer.shape != expected.shape:
        return f"The shape is {tuple(answer.shape)}, expected is {tuple(expected.shape)}."
    if not (torch.can_cast(answer.dtype, expected.dtype) and torch.can_cast(expected.dtype, answer.dtype)):
        return f"The values are {answer.dtype}, expected is {expected.dtype}.".replace("torch.", "")
    a, b = answer.detach().double(), expected.detach().double()
    if (a.isnan() & ~b.isnan()).any():
        return "There are NaNs in the result: is something divided by zero, or the logarithm of zero taken?"
    close = torch.isclose(a, b, rtol=1e-4, atol=atol, equal_nan=True)
    if close.all():
        return None
    where = tuple((~close).nonzero()[0].tolist())
    share = 100 * float((~close).double().mean())
    return f"{share:.0f} % of the values differ; the first at {list(where)}: {a[where]:.4g}, expected {b[where]:.4g}."


def _values(answer: Any, expected: Any, atol: float) -> str | None:
    a, b = (
        x.item() if isinstance(x, torch.Tensor | np.generic | np.ndarray) and np.ndim(x) == 0 else x
        for x in (answer, expected)
    )
    if isinstance(a, torch.Tensor):
        return f"A single value is expected, a tensor of shape {tuple(a.shape)} was found."
    number = isinstance(b, int | float) and not isinstance(b, bool)
    if number and (isinstance(a, bool) or not isinstance(a, int | float)):
        return f"A number is expected, a {_kind(answer)} was found."
    if not number and type(a) is not type(b):
        return f"A {_kind(expected)} is expected, a {_kind(answer)} was found."
    if number and a != a and b == b:
        return "The result is NaN: is something divided by zero?"
    near = number and math.isfinite(b) and abs(a - b) <= atol + 1e-4 * abs(b)
    same = near or a == b or (a != a and b != b)
    shown = (f"{a:.4g}", f"{b:.4g}") if number else (repr(a)[:80], repr(b)[:80])
    return None if same else f"The result is {shown[0]}, expected is {shown[1]}."


def _kind(value: Any) -> str:
    kinds = {torch.Tensor: "tensor", np.ndarray: "numpy array"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), type(value).__name__)
