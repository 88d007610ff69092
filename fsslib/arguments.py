"""Checks of arguments: numbers, counts, switches and choices, each refused with what was found and what is meant."""

import difflib
from collections.abc import Sequence
from typing import Any

from .errors import ModelError


def choose(value: object, valid: Sequence[str], what: str) -> None:
    """Raise ModelError unless `value` is one of `valid`; the message names the nearest valid value and all of them."""
    if value not in valid:
        near = difflib.get_close_matches(str(value), valid, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        gap = "" if what.endswith("=") else " "
        raise ModelError(f"{what}{gap}{value!r} is unknown.{hint} Valid: {', '.join(map(repr, valid))}.")


def check_number(value: object, what: str, most: float = float("inf"), *, zero: bool = True) -> None:
    """Raise ModelError unless `value` is a finite number from 0 (above it without `zero`) to `most`."""
    good = type(value) in (int, float) and value < float("inf") and (0 < value <= most or (zero and value == 0))
    if not good:
        limit = "" if most == float("inf") else f" to {most}"
        raise ModelError(f"{what}={value!r}: expected a number {'from' if zero else 'above'} 0{limit}.")


def check_count(value: object, what: str) -> None:
    """Raise ModelError unless `value` is a whole number from 1."""
    if type(value) is not int or value < 1:
        raise ModelError(f"{what}={value!r}: expected a whole number from 1.")


def check_switch(value: object, what: str) -> None:
    """Raise ModelError unless `value` is True or False: a text would count as True."""
    if type(value) is not bool:
        raise ModelError(f"{what}={value!r}: expected True or False.")


def near(name: str, known: Any) -> str:
    """The end of a sentence about an unknown name: the nearest valid one, or all of them."""
    found = difflib.get_close_matches(str(name), list(known), 1)
    return f", did you mean {found[0]}?" if found else f"; known: {', '.join(known)}"
