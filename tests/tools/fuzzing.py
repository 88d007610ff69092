"""Inputs that went wrong on the way: a seeded mutator of bytes, and how many of them a fuzz test tries.

A door is fuzzed with `mutated(examples, count)`: every outcome is a right result or a typed error that says what to do.
`FSSLIB_FUZZ=2000` tries that many a door; without it a small number is kept in the tests.
"""

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fsslib.errors import FsslibError

KEPT = int(os.environ.get("FSSLIB_FUZZ", "100"))


def _flip(data: bytearray, draw: np.random.Generator, first: int | None = None) -> bytearray:
    """A few bits, anywhere or among the `first` bytes."""
    for _ in range(int(draw.integers(1, 9))):
        data[int(draw.integers(min(len(data), first or len(data))))] ^= 1 << int(draw.integers(8))
    return data


def _truncate(data: bytearray, draw: np.random.Generator) -> bytearray:
    return data[: int(draw.integers(len(data)))]


def _header(data: bytearray, draw: np.random.Generator) -> bytearray:
    """Bits of the first 64 bytes, where formats keep sizes and modes."""
    return _flip(data, draw, 64)


def _number(data: bytearray, draw: np.random.Generator) -> bytearray:
    """Two or four bytes of the header become 0, 1, the largest number, or one in between."""
    size, at = int(draw.choice([2, 4])), int(draw.integers(min(len(data), 48)))
    value = int(draw.choice([0, 1, 256**size - 1, 256 ** (size - 1), 2 ** (8 * size - 1)]))
    data[at : at + size] = value.to_bytes(size, ("big", "little")[int(draw.integers(2))])
    return data


def _repeat(data: bytearray, draw: np.random.Generator) -> bytearray:
    """A piece again, somewhere else."""
    start, at = (int(draw.integers(len(data))) for _ in range(2))
    data[at:at] = data[start : start + int(draw.integers(1, 200))]
    return data


def _lose(data: bytearray, draw: np.random.Generator) -> bytearray:
    start = int(draw.integers(len(data)))
    del data[start : start + int(draw.integers(1, 60))]
    return data


def _zero(data: bytearray, draw: np.random.Generator) -> bytearray:
    start = int(draw.integers(len(data)))
    length = min(int(draw.integers(1, 300)), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


MUTATIONS = (_flip, _header, _number, _truncate, _repeat, _lose, _zero)


def mutated(examples: Sequence[bytes], count: int = KEPT, seed: int = 0) -> Iterator[bytes]:
    """`count` of the examples, each changed once or twice; the same for the same seed. Empty ones occur."""
    for at in range(count):
        draw = np.random.default_rng([seed, at])
        data = bytearray(examples[at % len(examples)])
        for _ in range(int(draw.integers(1, 3))):
            data = MUTATIONS[int(draw.integers(len(MUTATIONS)))](data, draw) if data else data
        yield bytes(data)


def outcome(work: Callable[[], object]) -> str:
    """`"right"`, or the name of the typed error, whose message has to say what to do; any other error goes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work()
        except FsslibError as error:
            assert (len(str(error)) > 25 and ". " in f"{error} ") or ":" in str(error), f"no cure: {error}"
            return type(error).__name__
    return "right"


@contextlib.contextmanager
def nothing_written(folder: Path, but: Sequence[Path] = ()) -> Iterator[None]:
    """Fails where files come, go or change in `folder`, outside of the places `but`."""

    def state() -> dict[Path, tuple[int, int]]:
        files = (file for file in folder.rglob("*") if not any(file.is_relative_to(place) for place in but))
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()}

    before = state()
    yield
    assert state() == before, "files changed outside the given folder"


def tally(outcomes: Sequence[str]) -> str:
    """The counts in words, for whoever runs many."""
    return ", ".join(f"{count} {name}" for name, count in Counter(outcomes).most_common())
