"""Checks of arguments: numbers, counts, switches and choices, each refused with what was found and what is meant.

The checks raise `error`, by default ModelError; `what` begins the message, as in "batch=0: expected …".
"""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Annotated, Literal, get_args, get_origin

from .errors import ModelError

INF = float("inf")
Error = type[Exception]
# Annotations that say more of an option than its type; see `check_options`.
Whole = Annotated[int, "from 0"]
Positive = Annotated[float, "above 0"]
Share = Annotated[float, "from 0 to 1"]


def choose(value: object, valid: Sequence[str], what: str, error: Error = ModelError) -> None:
    """Refuse a `value` that is none of `valid`; the message names the nearest valid value and all of them."""
    if value not in valid:
        alike = nearest(value, valid)
        hint = f" Did you mean {alike!r}?" if alike else ""
        gap = "" if what.endswith("=") else " "
        raise error(f"{what}{gap}{value!r} is unknown.{hint} Valid: {', '.join(map(repr, valid))}.")


def check_number(value: object, what: str, most: float = INF, *, zero: bool = True, error: Error = ModelError) -> None:
    """Refuse a `value` that is no finite number from 0 (above it without `zero`) to `most`."""
    good = type(value) in (int, float) and value < INF and (0 < value <= most or (zero and value == 0))
    if not good:
        finite, limit = ("finite ", "") if most == INF else ("", f" to {most}")
        raise error(f"{what}={value!r}: expected a {finite}number {'from' if zero else 'above'} 0{limit}.")


def check_count(value: object, what: str, least: int = 1, *, unit: str = "", error: Error = ModelError) -> None:
    """Refuse a `value` that is no int from `least`; the message can name what is counted (`unit`)."""
    if type(value) is not int or value < least:
        raise error(f"{what}={value!r}: expected a whole number{unit and f' of {unit}'} from {least}.")


def check_switch(value: object, what: str, error: Error = ModelError) -> None:
    """Refuse a `value` that is not True or False: a text would count as True."""
    if type(value) is not bool:
        raise error(f"{what}={value!r}: expected True or False.")


def whole(value: object) -> int | None:
    """The whole number that a `value` from a file or a list stands for, however it arrived: 3, 3.0, "3" or NumPy's.
    None for anything else, True and False too."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value) else None
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return None
    if isinstance(value, Real) and abs(value) < 2**63 and value == int(value):
        return int(value)
    return None


_CHECKS = {
    bool: check_switch, int: check_count, Whole: partial(check_count, least=0), float: check_number,
    Positive: partial(check_number, zero=False), Share: partial(check_number, most=1),
}  # fmt: skip


def check_options(owner: type, values: Mapping[str, object], what: str) -> None:
    """Check the arguments `values` (e.g. `locals()`) of the constructor of class `owner` by their annotations.

    bool is a switch, int counts from 1, float starts at 0 (or as `Whole`, `Positive` and `Share` say), `Literal` lists
    the choices; all others are left to the class.
    """
    for name, parameter in inspect.signature(owner).parameters.items():
        kind = parameter.annotation
        if get_origin(kind) is Literal:
            choose(values[name], get_args(kind), f"{what}: {name}=")
        elif kind in _CHECKS:
            _CHECKS[kind](values[name], f"{what}: {name}")


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The one of `known` that resembles `name` most; None where none does."""
    return next(iter(difflib.get_close_matches(str(name), list(known), 1)), None)


def meant(name: object, known: Iterable[str], label: str) -> str:
    """A sentence about an unknown `name`: the nearest valid one, or behind `label` all of them."""
    alike = nearest(name, known)
    return f"did you mean {alike!r}?" if alike else f"{label}: {', '.join(known)}."


def near(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: the nearest valid one, or all of them."""
    alike = nearest(name, known)
    return f", did you mean {alike}?" if alike else f"; known: {', '.join(known)}"
