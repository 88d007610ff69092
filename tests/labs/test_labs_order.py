"""Hidden state found by reading: names that come from below, from nowhere, or from another cell than last time."""

import pytest

from fsslib.labs.hidden_state import hidden_state, names


@pytest.mark.parametrize("source, used, bound, later", [
    ("x = 1\nprint(x)", "", "x", ""), ("x = x + 1", "x", "x", ""), ("x += 1", "x", "x", ""),
    ("def f(a, *b, c=d, **e):\n    g = a + h\n    return g", "d", "f", "h"), ("f = lambda a: a + b", "", "f", "b"),
    ("[i * k for i in range(n)]", "k n", "", ""), ("{k: v for k, v in pairs if k}", "pairs", "", ""),
    ("import torch.nn.functional as F, os.path\nfrom a import b as c", "", "F os c", ""),
    ("for i, (a, b) in enumerate(x): y = a", "x", "i a b y", ""), ("with open(p) as f:\n    pass", "p", "f", ""),
    ("try:\n    pass\nexcept ValueError as e:\n    print(e)", "", "e", ""),
    ("class A(B):\n    x = y\n    def m(self):\n        return A, self.x, z", "B y", "A", "z"),
    ("if (n := f()) > 1:\n    print(n)", "f", "n", ""), ("%matplotlib inline\n!ls\nx = y", "y", "x", ""),
    ("def f():\n    global g\n    g = 1", "", "f g", ""), ("@wrap\ndef f(): return f", "wrap", "f", ""),
    ("a.b = c[d]", "a c d", "", ""), ("del x", "x", "", ""), ("not python at all", "", "", ""),
    ("x = 1\ndel x", "", "x", ""), ("thing?\nother??\n?more", "", "", ""), ("files = !ls {folder}", "", "files", ""),
    ("%time x = y", "y", "x", ""), ("%%time\nx = y", "y", "x", ""), ("%%capture kept\nx = y", "y", "kept x", ""),
    ("%timeit -n 3 f(x)", "f x", "", ""), ("%run other.py\nx", "x", "", ""), ("from math import *", "", "*", ""),
    ("[last := v for v in vs]\nlast", "vs", "last", ""), ("await f(x)", "f x", "", ""),
    ("match v:\n    case {'a': first, **rest}: pass\n    case [A(b=c), *d]: pass", "v A", "first rest c d", ""),
    ("def f():\n    n = 0\n    def g():\n        nonlocal n\n        n = m\n    return g", "", "f", "m"),
    ("try:\n    import a\nexcept ImportError:\n    a = None", "", "a", ""), ("x: int", "", "", ""),
    ("x: T = 1", "T", "x", ""),
    ("class A:\n    b = 1\n    c = [b for _ in d]", "b d", "A", ""),
    ("async def f():\n    async for a in b: yield a", "", "f", "b"),
    ("def f(x):\n    y: Missing = x\n    return y", "", "f", ""), ("sum(a * b for a in c)", "b c", "", ""),
    ("with a as (b, *c), d: pass", "a d", "b c", ""), ("for x.y in z: pass", "x z", "", ""),
    ("def f():\n    try: return maybe\n    except NameError: return 0", "", "f", ""),
    ("def f():\n    import a\n    del a\n    return __file__", "", "f", ""), (">>> x = y", "y", "x", ""),
])  # fmt: skip
def test_names(source, used, bound, later):
    assert names(source) == tuple(frozenset(x.split()) for x in (used, bound, later))


def test_an_ordered_notebook_has_no_findings():
    assert hidden_state(["a = 1", "b = a", "def f(): return a + b", "f()"], [1, 2, 3, 4]) == []
    assert hidden_state(["a = 1", "b = a"], [None, None]) == []
    assert hidden_state(["def f(): return a", "a = 1", "f()"], [1, 2, 3]) == [], "read when it is called"


@pytest.mark.parametrize("sources, counts, cell, words", [
    (["b = a", "a = 1"], [2, 1], 0, "only further down, in cell 2"), (["b = a"], [1], 0, "defined nowhere"),
    (["def f(): return a", "b = 1"], [1, 2], 0, "defined nowhere"),
    (["b = kept"], [1], 0, "gone from the notebook: `kept = 3`"), (["a = a + 1"], [1], 0, "before the cell sets it"),
    (["a = 1", "b = a", "a = 2"], [1, 3, 2], 1, "came from cell 3 further down"),
])  # fmt: skip
def test_findings(sources, counts, cell, words):
    (found,) = hidden_state(sources, counts, {"kept": "kept = 3"})
    assert found.cell == cell and words in found.message


@pytest.mark.parametrize("source", [
    "x", "def f(): return x", "x = x + 1", "lambda: x", "class A(x): pass", "[x for _ in [1]]", "del x", "f'{x}'",
])  # fmt: skip
def test_what_the_fresh_kernel_had_is_never_reported(source):
    """However it came there: by a magic, a star, exec, another program."""
    assert hidden_state([source], [1]) != []
    assert hidden_state([source], [1], missed=(), well=[0]) == []
    assert hidden_state(["from lib import *", source], [1, 2]) == [], "perhaps from there"


def test_what_a_function_looked_for_in_vain_is_reported():
    """As when a check has called it: the cells ran without an error."""
    (found,) = hidden_state(["from math import *", "def f(): return lost + sqrt(2)"], [1, 2], None, {"lost"}, [0, 1])
    assert found.cell == 1 and found.name == "lost"


def test_a_cell_run_again_after_a_later_one():
    """Cell 1 was run a second time, after cell 2: it read what cell 2 had made of x."""
    (found,) = hidden_state(["x = 0", "y = x", "x = 5"], [1, 4, 3])
    assert found.cell == 1 and "cell 3" in found.message and "cell 1" in found.message
