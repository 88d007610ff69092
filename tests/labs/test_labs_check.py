"""`check` itself: whatever is handed in, an answer comes back, in time and in words."""

import contextlib
import functools
import json
import signal
import sys
import time

import numpy as np
import pytest
import torch
from lab_tools import answer, named
from torch.nn import functional as F

from fsslib.labs import Result, check
from fsslib.labs.answers import difference
from fsslib.labs.check import TooLong, time_limit
from fsslib.labs.exercise import _ALL, Exercise, Slip, exercise, exercises
from fsslib.labs.in_kernel import verdicts


@pytest.mark.parametrize("given, words", [
    ("temperature", "without quotes"), (29.4, "without brackets"), (torch.zeros(2), "without brackets"),
    (F.softmax.__class__, "plain function"), (torch.nn.Identity(), "plain function"),
    (lambda a: a, "found by the name"), (named("temprature", lambda a, b: a), "Did you mean temperature"),
])  # fmt: skip
def test_what_is_no_answer(given, words):
    result = check(given)
    assert result.status == "unknown" and words in result.message and not result


def temperature_of(margin, probability):
    return float(torch.logit(torch.tensor(probability)) / margin)


def _wrapped(*arguments, **named):
    return temperature_of(*arguments, **named)


class Callable_:
    def __call__(self, margin, probability):
        return temperature_of(margin, probability)

    temperature = lambda self, *given: temperature_of(*given)  # noqa: E731


class Layer(torch.nn.Module):
    forward = Callable_.__call__


DECORATED = {
    "def": temperature_of, "wrapper": _wrapped, "wraps": functools.wraps(temperature_of)(_wrapped),
    "lambda": lambda m, p: temperature_of(m, p), "partial": functools.partial(temperature_of), "object": Callable_(),
    "module": Layer(), "method": Callable_().temperature, "cached": functools.lru_cache(temperature_of),
    "no_grad": torch.no_grad()(temperature_of), "vectorised": np.vectorize(temperature_of),
    "compiled": None,  # in the test: what it takes is imported only where it runs
}  # fmt: skip


@pytest.mark.parametrize("kind", DECORATED)
def test_whatever_can_be_called_under_the_name_is_checked(kind):
    """By `check` in a cell and by the checks of a whole notebook, right or wrong."""
    temperature = DECORATED[kind] or torch.compile(temperature_of, disable=True)
    assert check(temperature), check(temperature)
    verdict = {row["name"]: row for row in json.loads(verdicts({"temperature": temperature}, "01_prototypes"))}
    assert verdict["temperature"]["status"] == "right" and verdict["cosine_map"]["status"] == "missing"


def test_a_wrong_answer_in_a_wrapper_is_wrong():
    temperature = functools.partial(temperature_of, 0.5)
    assert check(temperature).slip == "other arguments"
    temperature = functools.partial(lambda margin, probability: undefined)  # noqa: F821
    assert "NameError: name 'undefined'" in check(temperature).message
    (row,) = (x for x in json.loads(verdicts({"cosine_map": named("temperature", _wrapped)}, "01_prototypes"))
              if x["name"] == "cosine_map")  # fmt: skip
    assert row["status"] == "missing" and "another function, temperature" in row["message"]


def test_a_stub_is_not_an_error():
    result = check(answer("temperature", 'raise NotImplementedError("temperature: your turn")'))
    assert result.status == "unsolved" and "…" in repr(result) and "not solved yet" in result._repr_html_()


@pytest.mark.parametrize("body, status, words", [
    ("pass", "wrong", "is there a `return`"), ("return 'warm'", "wrong", "A number is expected, a str"),
    ("return torch.zeros(3)", "wrong", "tensor of shape (3,)"), ("return float('nan')", "wrong", "NaN"),
    ("return 7.5", "wrong", "On margin 0.1, probability 0.95: The result is 7.5"),
    ("return 1 / 0", "stopped", "line 2 of its cell with ZeroDivisionError"),
    ("return undefined", "stopped", "NameError: name 'undefined'"),
    ("import sys; sys.setrecursionlimit(200); return temperature(margin, 0)", "stopped", "RecursionError"),
])  # fmt: skip
def test_generic_messages(body, status, words):
    limit = sys.getrecursionlimit()
    try:
        result = check(answer("temperature", body))
    finally:
        sys.setrecursionlimit(limit)
    assert result.status == status and words in result.message, result


def test_other_arguments():
    result = check(named("temperature", lambda margin: margin))
    assert result.slip == "other arguments" and "(margin, probability)" in result.message
    assert check(named("temperature", lambda *a: float(torch.logit(torch.tensor(a[1])) / a[0]))), (
        "any form that can be called"
    )


@pytest.mark.parametrize(
    "loop", ["while True:\n    pass", "while True:\n    try:\n        pass\n    except:\n        pass"]
)
def test_endless_loops_are_stopped(loop):
    start = time.process_time()
    result = check(answer("temperature", loop), limit=0.3)
    assert result.status == "slow" and "0.3 s of processor time" in result.message
    assert time.process_time() - start < 5


def test_an_answer_cannot_swallow_the_end():
    """`except Exception` around everything does not catch the alarm, whether the answer computes or waits."""
    for work, given, words in ((1, (0.1,), "processor time"), (10, (5, 0.5), "waited 0.5 seconds")):
        with pytest.raises(TooLong, match=words), time_limit(*given):
            while True:
                with contextlib.suppress(Exception):
                    sum(range(1000)) if work == 1 else time.sleep(work)


def test_a_slow_machine_makes_no_loop(monkeypatch):
    """An answer that gets a twentieth of a processor neither loops nor waits, until it has had its seconds."""
    seconds = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(time, "thread_time", lambda: next(seconds) / 20)
    with time_limit(5.0):
        look = signal.getsignal(signal.SIGALRM)
        for _ in range(45):  # one second goes by for each clock that is read
            look()
        with pytest.raises(TooLong, match="5 s of processor time"):
            for _ in range(10):
                look()


def test_the_notebook_is_left_as_it_was():
    """Gradients may be switched off, the random numbers go on as if nothing had happened."""
    right = answer("cosine_map", "return F.cosine_similarity(features, prototype[:, None, None], dim=0)")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        assert check(right) and not torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)


def test_grading_in_pytest_and_nbgrader(monkeypatch):
    wrong = answer("cosine_map", "return (features * prototype[:, None, None]).sum(0)")
    with pytest.raises(AssertionError, match="dot product"):
        assert check(wrong)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(AssertionError, match="dot product"):
        check(wrong)


def test_results_are_safe_to_show():
    page = Result("a<b", "wrong", "x < 1\n<script>")._repr_html_()
    assert "<script>" not in page and "a&lt;b" in page and page.count("<br>") == 2 and 'role="status"' in page
    page = Result("a", "wrong", "Ask for `m > 0`, a *larger* one: 2 * 3 * 4.")._repr_html_()
    assert "<code>m &gt; 0</code>" in page and "<em>larger</em>" in page and "2 * 3 * 4" in page


class Hostile:
    """Equal to nothing, not even comparable."""

    def __eq__(self, other):
        raise RuntimeError("no")

    __hash__ = None


STRANGE = [None, 0, True, "", float("nan"), [], {}, (1, 2), {1}, Hostile(), torch.nn.Identity(), torch.zeros(0)]
STRANGE += [torch.zeros(1, requires_grad=True), torch.zeros(2, 2, dtype=torch.cfloat), torch.zeros(2).to_sparse()]


@pytest.mark.parametrize("name", exercises())
def test_strange_answers_do_not_break_the_check(name):
    for value in STRANGE:
        function = answer(name, "return VALUE")
        function.__globals__["VALUE"] = value
        assert check(function).status == "wrong", repr(value)
    assert check(answer(name, "raise SystemExit")).status == "stopped"


def test_two_exercises_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two exercises are called 'temperature'"):
        exercise("99_other", lambda: {})(named("temperature", lambda margin, probability: 0))
    assert exercises()["temperature"].stage == "01_prototypes"


def test_a_slip_has_to_explain_every_case(monkeypatch):
    task = Exercise(
        "99_trial",
        named("trial_of_slips", lambda x: x.sum()),
        lambda: {"two": (torch.tensor([1.0, 3.0]),), "one": (torch.tensor([5.0]),)},
        slips=[Slip("a mean", "This is the mean, a sum is asked for, as the text says.", lambda x: x.mean())],
    )
    monkeypatch.setitem(_ALL, task.name, task)
    assert check(named("trial_of_slips", lambda x: x.sum()))
    assert check(named("trial_of_slips", lambda x: x.mean())).slip == "a mean"
    other = check(named("trial_of_slips", lambda x: x.mean() if len(x) > 1 else x.sum() + 1))
    assert other.status == "wrong" and other.slip == ""


@pytest.mark.parametrize("found, expected, words", [
    (torch.zeros(2), torch.zeros(2), None), (torch.zeros(2, dtype=torch.double), torch.zeros(2), None),
    (torch.zeros(2), torch.zeros(3), "shape"), (torch.zeros(2).long(), torch.zeros(2), "int64"),
    (torch.tensor([float("nan")]), torch.zeros(1), "NaN"),
    (torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 2.0]]), "50 % of the values differ; the first at [0, 1]"),
    (torch.tensor(2.0), 2.0, None), (2, 2.0, None), (True, 1, "A number is expected"), (1, True, "A bool is expected"),
    ((1, 2), (1, 2, 3), "3 values"), ([1, 5], (1, 2), "Value 2 of 2"), ({"a": 1}, {"a": 2}, "'a'"),
    ({"b": 1}, {"a": 1}, "keys 'a'"), ({"x"}, {"x"}, None), ({"x"}, {"y"}, "'y'"),
    (torch.zeros(2).numpy(), torch.zeros(2), "numpy array"), (float("inf"), float("inf"), None),
    (1.0, float("inf"), "inf"), (float("nan"), float("nan"), None), (None, "text", "return"),
])  # fmt: skip
def test_differences(found, expected, words):
    sentence = difference(found, expected)
    assert (sentence is None) == (words is None) and (words or "") in (sentence or ""), sentence
