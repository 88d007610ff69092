"""Inputs that went wrong on the way: bytes of a file cut, doubled, exchanged; values of a document replaced."""

import copy
import json
import random
from typing import Any

# What a hand, a converter or another program leaves where something else is meant.
STRANGE = [None, True, False, 0, -1, 1, 2**63, 1e308, -0.5, float("nan"), float("inf"), "", " ", "1", "ü\u0000", [], {}]
STRANGE += [[[]], [None], {"a": 1}, "~", "../..", [1, 2], "x" * 300, 10**400]


def damaged(content: bytes, seed: int) -> bytes:
    """`content` after one to four accidents: cut off, a bit or a run of bytes changed, a part lost or doubled. Every
    tenth one comes whole."""
    if seed % 10 == 0:
        return content
    draw = random.Random(seed)
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        # Heads matter more than what follows them.
        at = draw.randrange(min(len(data), draw.choice([16, 256, 4096, 10**9])) or 1)
        length = draw.choice([1, 2, 8, 64, 1000])
        accident = draw.randrange(6)
        if accident == 0:
            del data[at:]
        elif accident == 1 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif accident == 2:
            data[at : at + length] = draw.randbytes(length)
        elif accident == 3:
            del data[at : at + length]
        elif accident == 4:
            data[at:at] = data[at : at + length]
        else:
            data[at : at + 1] = draw.choice([b"\0", b"\xff", b"9", b"-", b'"', b"}", b"]", b",", b"1e999", b"\r\n"])
    return bytes(data)


def altered(document: Any, seed: int) -> Any:
    """A copy of a JSON document in which one to three values, keys or entries are something else."""
    draw = random.Random(seed)
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(document))
        if not places:
            return draw.choice(STRANGE)
        holder, key = draw.choice(places)
        change = draw.randrange(4)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif change == 2 and isinstance(holder, dict):
            holder[draw.choice(["", "x", key.upper(), f"{key} "])] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(draw.choice(STRANGE))
    return document


def as_file(document: Any, seed: int) -> bytes:
    """An altered document as a file, which in one of three cases is damaged besides."""
    content = json.dumps(altered(document, seed)).encode()
    return damaged(content, seed) if seed % 3 == 0 else content


def _places(value: Any) -> Any:
    """Every (list or dictionary, key) in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)
