"""Inputs that went wrong on the way: a seeded mutator of files, and how many of them a fuzz test tries.

A door is fuzzed with `mutated(examples, count)`: every outcome is a right result or a typed error that says what to do.
`FSSLIB_FUZZ=2000` tries that many a door; without it a small number is kept in the tests.
"""

import contextlib
import copy
import json
import os
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fsslib.errors import FsslibError

KEPT = int(os.environ.get("FSSLIB_FUZZ", "100"))
# What a hand, a converter or another program leaves where something else is meant.
STRANGE = [
    None, True, False, 0, -1, 1, 2, 255, 1.5, -0.5, 2**31, 2**63, -(2**63), 10**400, 1e308, float("nan"), float("inf"),
    "", " ", "1", "2", "None", "1e3", "cat", "a.jpg", "b.jpg", "e\u0301", "\u00e9", "\ud800", "ü\0", "~", "../..",
    "x" * 5000, [], {}, [[]], [None], [1, 2], {"a": 1}, [[1, 2] * 3],
    {"size": [48, 64], "counts": "0"}, {"size": [48, 64], "counts": [3072]},
]  # fmt: skip
SIGNS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\r", b"\r\n", b"#", b" # ", b"\t", b":", b"-", b"1. ",
    b",", b"{", b"}", b"[", b"]", b'"', b"'", b"\\ud800", b"\\u0000", b"&a ", b"*a", b"<<: ", b"!!int ",
    b"!!timestamp ", b"!!set ", b"%", b"? ", b"e\xcc\x81", b"\xc3\xa9", b"\xe2\x80\xa8", b"1e400", b"1_0", b"12:30",
    b".nan", b"2020-13-01", b"~", b"9", b"9" * 5000,
]  # fmt: skip
CODES = ("utf-16", "utf-16-le", "utf-8-sig", "latin-1", "utf-32", "cp1252")
# What begins the part of a message that says what to do.
CURE = re.compile(
    "expected |give |leave |save |write |number every|put one|pass |use |lower |again|must be|build |choose |was it |"
    "check |open |draw |add |remove |`from fsslib",
    re.IGNORECASE,
)
BINARY = ("cut", "bit", "bit", "noise", "lost", "doubled", "number", "zeros", "sign")
TEXT = ("cut", "bit", "lost", "lost", "doubled", "sign", "sign", "sign", "line", "line", "code")


def mutated(examples: Sequence[Any], count: int = KEPT, seed: int = 0) -> Iterator[bytes]:
    """`count` files: the examples in turn after one to four accidents; every tenth comes whole. The same for the same
    seed. Empty ones occur.

    An example is the content of a binary file, a text, or a document for JSON: of that, values and keys change, and in
    one of three cases the text as well.
    """
    for at in range(count):
        draw, example = random.Random(f"{seed} {at}"), examples[at % len(examples)]
        whole = at % 10 == 0
        if isinstance(example, (bytes, str)):
            content, accidents = (example, BINARY) if isinstance(example, bytes) else (example.encode(), TEXT)
        else:
            content = json.dumps(example if whole else altered(example, draw)).encode()
            accidents, whole = TEXT, whole or draw.randrange(3) > 0
        yield content if whole else damaged(content, accidents, draw)


def damaged(content: bytes, accidents: Sequence[str], draw: random.Random) -> bytes:
    """`content` after one to four of the accidents."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        # Heads matter more than what follows them.
        at = draw.randrange(min(len(data), draw.choice([16, 64, 4096, 10**9])) or 1)
        length = min(draw.choice([1, 2, 8, 64, 1000]), len(data) - at)
        match draw.choice(accidents):
            case "cut":
                del data[at:]
            case "bit" if data:
                data[at] ^= 1 << draw.randrange(8)
            case "noise":
                data[at : at + length] = draw.randbytes(length)
            case "zeros":
                data[at : at + length] = bytes(length)
            case "number":
                size = draw.choice([2, 4])
                value = draw.choice([0, 1, 256**size - 1, 256 ** (size - 1), 2 ** (8 * size - 1)])
                data[at : at + size] = value.to_bytes(size, draw.choice(["big", "little"]))
            case "lost":
                del data[at : at + length]
            case "doubled":
                to = draw.randrange(len(data) + 1)
                data[to:to] = data[at : at + length]
            case "sign":
                data[at:at] = draw.choice(SIGNS)
            case "line":
                lines = data.split(b"\n")
                lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
                data = bytearray(b"\n".join(lines))
            case "code":
                data = bytearray(data.decode("utf-8", "replace").encode(draw.choice(CODES), "replace"))
    return bytes(data)


def altered(document: Any, draw: random.Random, strange: Sequence[Any] = STRANGE) -> Any:
    """A copy of a JSON document in which one to three values, keys or entries are something else."""
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(document))
        if not places:
            return draw.choice(strange)
        holder, key = draw.choice(places)
        change = draw.randrange(6)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif change == 1:
            holder[draw.choice(["", "x", key.upper(), f"{key} "])] = holder.pop(key)
        elif change == 2 and isinstance(holder, dict):
            holder[key] = copy.deepcopy(holder[draw.choice(list(holder))])
        else:
            holder[key] = copy.deepcopy(draw.choice(strange))
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (list or dictionary, key) in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def outcome(work: Callable[[], object]) -> str:
    """`"right"`, or the name of the typed error, whose message has to say what to do; any other error goes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work()
        except FsslibError as error:
            text = str(error)
            assert CURE.search(text) and " object at 0x" not in text and len(text) < 3000, f"no cure: {text}"
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
