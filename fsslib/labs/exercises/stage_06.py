"""Exercises of notebook 06: the inverse softmax, correlation distillation, the whole matching head."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...losses import correlation_distillation
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "06_dense_correlation"


def _scores(queries: int, mask: list[int], seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(queries, len(mask), generator=draw), torch.tensor(mask, dtype=torch.float)


def _attention_cases() -> Cases:
    return {
        "an object of four cells": _scores(12, [1, 0, 1, 1, 0, 0, 1], 1),
        "as many query cells as support cells": _scores(6, [0, 1, 1, 0, 1, 0], 2),
        "scores of a tiny temperature": _scores(8, [1, 1, 0, 1, 0], 3, 150.0),
        "an empty mask (nothing is given)": _scores(6, [0, 0, 0, 0], 4),
    }


def _some(mask: Tensor) -> Tensor:
    """The mask; ValueError if it is empty, where most slips say nothing of their own."""
    if not mask.any():
        raise ValueError
    return mask


def _carries_gradients(answer) -> None:
    S, mask = next(iter(_attention_cases().values()))
    if not answer(S.requires_grad_(), mask).requires_grad:
        raise Wrong("detached", "No gradient reaches the scores: queries and keys would never be trained.")


@exercise(STAGE, _attention_cases, tests=[_carries_gradients], slips={
    "softmax over the support: Every query cell shares out 1 among the support's cells, the background included. In "
    "HDMNet each cell of the support shares out 1 among the query's.": lambda S, m: S.softmax(1) * _some(m),
    "softmax over the support's object: Every query cell receives 1, however far from the object it is. Turn it "
    "around: each object cell gives 1, "
    "and the amount received is the message.": lambda S, m: S.masked_fill(_some(m) == 0, -1e9).softmax(1),
    "the mask is missing: Cells off the object give as much as the object's.": lambda S, m: S.softmax(0),
    "masked before the softmax: The mask came before the softmax: a column of equal scores, however small, still gives "
    "1, evenly.": lambda S, m: (S * m).softmax(0),
    "minus infinity before the softmax: A whole column of minus infinity has no softmax: NaN. Silence a cell after the "
    "softmax, not before.": lambda S, m: S.masked_fill(m == 0, float("-inf")).softmax(0),
    "normalised again: The rows were brought to 1 again. Then each query cell receives the same, and the amount says "
    "nothing.": lambda S, m: S.softmax(0) * _some(m) / (S.softmax(0) * m).sum(1, keepdim=True),
    "mask on the query: The mask belongs to the support, the second axis.": lambda S, m: S.softmax(0) * m[:, None],
    "overflow: The exponential of a large score is infinite, and inf / inf is NaN. "
    "Softmax subtracts the maximum first.": lambda S, m: S.exp() / S.exp().sum(0) * m,
})  # fmt: skip
def inverse_attention(S: Tensor, mask: Tensor) -> Tensor:
    return torch.exp(S - S.logsumexp(0, keepdim=True)) * mask


def _lesson_cases() -> Cases:
    draw = torch.Generator().manual_seed(8)
    teacher, student = 2 * torch.randn(2, 3, 4, 5, generator=draw)
    small = torch.randn(1, 4, 4, generator=draw)
    truth = torch.full((1, 4, 4), -1e9)
    truth[0, 1:3, 1:] = 1
    return {
        "two different maps": (teacher, student),
        "a student that agrees (the lesson is 0)": (student, student + 1),
        "the truth as a teacher, -1e9 off the object": (truth, small),
    }


def _logs(teacher: Tensor, student: Tensor) -> list[Tensor]:
    """Log distributions; ValueError where a teacher gives cells 0, where most slips say nothing of their own."""
    if (teacher < -1e6).any():
        raise ValueError
    return [x.flatten(1).log_softmax(1) for x in (teacher, student)]


def _divergence(t: Tensor, w: Tensor) -> Tensor:
    return t.exp() * (t - w)


def _along(dim: int):
    """Distributions along one axis of the maps only."""
    return lambda t, s: (
        _divergence(t.log_softmax(dim), s.log_softmax(dim)).sum((1, 2)).mean() + 0 * _logs(t, s)[0].sum()
    )


def _only_the_student_learns(answer) -> None:
    teacher, student = (x.requires_grad_() for x in next(iter(_lesson_cases().values())))
    loss = answer(teacher, student)
    if not getattr(loss, "requires_grad", False):
        raise Wrong("student detached", "No gradient reaches the student: the lesson teaches nobody.")
    grads = torch.autograd.grad(loss, [teacher, student], allow_unused=True)
    if grads[1] is None:
        raise Wrong("student detached", "The student gets no gradient, the teacher does: the wrong one is detached.")
    if grads[0] is not None and grads[0].any():
        why = "The teacher gets a gradient, too: it would move towards the student instead of teaching it."
        raise Wrong("teacher learns", why)


@exercise(STAGE, _lesson_cases, tests=[_only_the_student_learns], slips={
    "reverse divergence: The student weighs the logarithms, KL(W, T). Then it may ignore cells where the teacher is "
    "sure.": lambda t, s: _divergence(*_logs(t, s)[::-1]).sum(1).mean(),
    "mean over the cells: The divergence was averaged over the cells, too: finer maps would get weaker lessons. Sum "
    "over them.": lambda t, s: _divergence(*_logs(t, s)).mean(),
    "sum over the batch: The episodes are summed: "
    "the loss would grow with the batch. Take their mean.": lambda t, s: _divergence(*_logs(t, s)).sum(),
    "cross entropy: This is the cross entropy, which also counts the teacher's own entropy: it is not 0 where both "
    "agree.": lambda t, s: -(_logs(t, s)[0].exp() * _logs(t, s)[1]).sum(1).mean(),
    "softmax over one axis: The softmax runs along the height alone. A map is *one* distribution.": _along(1),
    "softmax over one axis: The softmax runs along the width alone. A map is *one* distribution.": _along(2),
    "softmax over the batch: "
    "The softmax runs over the batch: the episodes have nothing to do with each other.": _along(0),
    "squared difference: This compares the scores themselves. Taken as distributions, maps that differ by a constant "
    "agree.": lambda t, s: F.mse_loss(s, t) + 0 * _logs(t, s)[0].sum(),
    "sign: The sign is turned: "
    "this is negative and best where the maps differ most.": lambda t, s: -_divergence(*_logs(t, s)).sum(1).mean(),
    "logarithm of "
    "zero: A teacher may give a cell 0, and 0 times the logarithm of 0 is NaN. It should count nothing.": lambda t, s: (
        (t.flatten(1).softmax(1) * (t.flatten(1).softmax(1).log() - s.flatten(1).log_softmax(1))).sum(1).mean()
    ),
})  # fmt: skip
def lesson(teacher: Tensor, student: Tensor) -> Tensor:
    return correlation_distillation(torch.zeros(0), [teacher, student], truth=False)[0]


def _vectors(mask: list[int], seed: int, times: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nine queries, keys, values and mask; the support is given `times`."""
    draw = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(n, 4, generator=draw) for n in (9, len(mask), len(mask)))
    return query, key.repeat(times, 1), value.repeat(times, 1), torch.tensor(mask, dtype=torch.float).repeat(times)


def _head_cases() -> Cases:
    return {
        "an object of three cells": _vectors([0, 1, 1, 0, 1], 5),
        "the same support twice (w stays, x doubles)": _vectors([0, 1, 1, 0, 1], 5, 2),
        "as many query cells as support cells": _vectors([0, 1, 1, 0, 1, 0, 0, 1, 0], 6),
        "an empty mask (w and x are 0)": _vectors([0, 0, 0], 7),
    }


def _cosines(q: Tensor, k: Tensor) -> Tensor:
    return 10 * F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).T


def _w(S: Tensor, m: Tensor) -> Tensor:
    """The map of scores; ValueError for an empty mask, where most slips say nothing of their own."""
    return S @ _some(m) / m.sum()


def _x(S: Tensor, v: Tensor, m: Tensor) -> Tensor:
    return (S.softmax(0) * m) @ v


def _head(S: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    return _w(S, m), _x(S, v, m)


@exercise(STAGE, _head_cases, slips={
    "dot product: The vectors were not brought to length 1: long keys win, whatever their "
    "direction.": lambda q, k, v, m: _head(10 * q @ k.T, v, m),
    "the temperature is missing: Cosines lie between -1 and 1: their softmax is nearly flat. Divide by τ "
    "first.": lambda q, k, v, m: _head(_cosines(q, k) / 10, v, m),
    "multiplied by the temperature: The scores were multiplied by τ: that makes them flat instead of "
    "sharp.": lambda q, k, v, m: _head(_cosines(q, k) / 100, v, m),
    "softmax over the support: x was made with a softmax over the support: then every query cell receives as much as "
    "any other.": lambda q, k, v, m: (
        _w(_cosines(q, k), m), _cosines(q, k).masked_fill(_some(m) == 0, -1e9).softmax(1) @ v
    ),
    "the background gives, too: x holds values of cells off the object.": lambda q, k, v, m: (
        _w(_cosines(q, k), m), _cosines(q, k).softmax(0) @ v
    ),
    "a mean over all cells: w averages over the whole support, background included.": lambda q, k, v, m: (
        _cosines(q, k).mean(1) + 0 * _some(m).sum(), _x(_cosines(q, k), v, m)
    ),
    "divided by all cells: The sum of w leaves the background out, the number below the line does not: small objects "
    "get a faint map.": lambda q, k, v, m: ((_cosines(q, k) * _some(m)).mean(1), _x(_cosines(q, k), v, m)),
    "not divided: w is a sum and grows with object and shots; the map is a mean.": lambda q, k, v, m: (
        _cosines(q, k) @ _some(m), _x(_cosines(q, k), v, m)
    ),
    "x divided by the cells: Only w is a mean. x is a sum: each cell of the object gives "
    "1.": lambda q, k, v, m: (_w(_cosines(q, k), m), _x(_cosines(q, k), v, m) / m.sum()),
    "best match: w is the best match, as in a prior map. "
    "The correlation map averages over the object's cells.": lambda q, k, v, m: (
        _cosines(q, k).masked_fill(_some(m) == 0, -1e9).amax(1), _x(_cosines(q, k), v, m)
    ),
    "empty mask: Without an object cell the mean is 0 / 0.": lambda q, k, v, m: (
        _cosines(q, k) @ m / m.sum(), _x(_cosines(q, k), v, m)
    ),
})  # fmt: skip
def matching_head(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    scores = _cosines(query, key)
    w = (scores * mask).sum(1) / mask.sum().clamp_min(1)
    return w, torch.einsum("qm,m,mc->qc", scores.softmax(0), mask, value)


lives_on_priors = essay(STAGE, "lives_on_priors", terms=("merge", "token", "prototype", "retrain"))
