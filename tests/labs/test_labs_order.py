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
    ("a.b = c[d]", "a c d", "", ""), ("del x", "", "x", ""), ("not python at all", "", "", ""),
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


def test_a_cell_run_again_after_a_later_one():
    """Cell 1 was run a second time, after cell 2: it read what cell 2 had made of x."""
    (found,) = hidden_state(["x = 0", "y = x", "x = 5"], [1, 4, 3])
    assert found.cell == 1 and "cell 3" in found.message and "cell 1" in found.message
