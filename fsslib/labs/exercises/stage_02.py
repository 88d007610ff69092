"""Exercises of notebook 02: the loss of distilled prototypes, whom it trains, and the whole module."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...losses import distillation
from ...losses import log_distribution as log_q
from ...models.sdaanet import SDPM
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "02_self_distillation"


def sdpm_of(channels: int, rule: str = "product", detached: bool = False) -> SDPM:
    """SDPM of so many channels with the published teacher, a rule for the query's factor, teacher detached or not."""
    choices = {"teacher": "prototypes", "teacher_query": "original", "teachers": "separate"}
    return SDPM(channels, query_factor=rule, detach_teacher=detached, **choices)


def _distil_cases() -> Cases:
    students, teachers = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(4)) * 2
    return {
        "six prototypes": (students, teachers, 5.0),
        "a low temperature": (students, teachers, 0.5),
        "a student that equals its teacher (the loss is 0)": (students, students.clone(), 2.0),
    }


def _kl(S: Tensor, T: Tensor, tau: float, of_teacher: float | None = None) -> Tensor:
    return distillation(S, log_q(T, of_teacher or tau), temperature=tau)


def _mean_kl(given: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(given, target, reduction="none").mean()  # its own "mean" warns


def _rounded_shares(answer: Callable) -> None:
    far = torch.zeros(2, 2, 5)
    far[0, :, 0], far[1, :, 4] = 300.0, 200.0
    cause = "With channels so large that the others' share rounds to 0, "
    loss = torch.as_tensor(answer(*far, 1.0))
    if not loss.isfinite():
        raise Wrong("logarithm of 0", cause + f"the loss is {float(loss)}: take softmax and logarithm in one step.")
    if not torch.isclose(loss, _kl(*far, 1.0), rtol=1e-3):
        raise Wrong("shares are cut off", cause + "the loss is too small: something keeps the shares away from 0.")


def _gradients_flow(answer: Callable) -> None:
    for detached in (True, False):
        both = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(5)).requires_grad_().unbind(0)
        teacher = sum(both).detach() / 2 if detached else sum(both) / 2
        loss, wanted = answer(both[0], teacher, 2.0), _kl(both[0], teacher, 2.0)
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            raise Wrong("no gradient", "No gradient reaches the student: nothing would be learned from this loss.")
        slope, right = (torch.autograd.grad(x, both, retain_graph=True, materialize_grads=True) for x in (loss, wanted))
        if not detached and not bool(slope[1].any()):
            why = "Your function cuts the gradient into the teacher. The caller chooses whether the teacher is fixed: "
            why += "a T that is detached already needs nothing more, and the published code does not detach it."
            raise Wrong("teacher cut off", why)
        if not all(torch.allclose(x, y, atol=1e-5) for x, y in zip(slope, right)):
            raise Wrong("wrong gradient", "The value is right, its gradient is not: something on the way is detached.")


@exercise(STAGE, _distil_cases, tests=[_rounded_shares, _gradients_flow], slips={
    "tau squared is missing: The factor τ² is missing: without it the gradients fade like 1/τ² as the temperature "
    "grows.": lambda S, T, tau: _kl(S, T, tau) / tau**2,
    "0.9 is missing: Only the constant 0.9 in front is missing.": lambda S, T, tau: _kl(S, T, tau) / 0.9,
    "softmax over the episodes: The softmax runs over the episodes. A distribution says how one prototype is "
    "spread over its channels: the last dimension.": lambda S, T, tau: _kl(S.T, T.T, tau),
    "student and teacher exchanged: This divergence is weighted by the student. The teacher says which channels "
    "matter: its distribution stands in front of the logarithms.": lambda S, T, tau: _kl(T, S, tau),
    "teacher without temperature: "
    "Only the student is softened: now the two differ even where S = T.": lambda S, T, tau: _kl(S, T, tau, 1.0),
    "temperature multiplied: The prototypes are multiplied by τ, which sharpens. "
    "A high temperature flattens.": lambda S, T, tau: _kl(S, T, 1 / tau) * tau**4,
    "summed over the channels: This is the usual divergence, a sum over the channels. The authors' code averages over "
    'them, too: look at what "mean" and "batchmean" divide by.': lambda S, T, tau: _kl(S, T, tau) * S.shape[-1],
    "cross entropy: This is the cross entropy: it is not 0 where S = T, since the teacher's own entropy is not "
    "subtracted.": lambda S, T, tau: -0.9 * tau**2 * (log_q(T, tau).exp() * log_q(S, tau)).mean(),
    "student not a logarithm: `F.kl_div` wants the logarithm of its first argument; here it got the "
    "probabilities.": lambda S, T, tau: 0.9 * tau**2 * _mean_kl(log_q(S, tau).exp(), log_q(T, tau).exp()),
    "teacher as a logarithm: NaN: `F.kl_div` got the teacher's logarithm, but takes its second argument for "
    "probabilities unless you tell it otherwise.": lambda S, T, tau: _mean_kl(log_q(S, tau), log_q(T, tau)),
})  # fmt: skip
def distil(S: Tensor, T: Tensor, tau: float) -> Tensor:
    return _kl(S, T, tau)


def _prediction_holds(answer: Callable) -> None:
    given, true = ([f(detached) for detached in (True, False)] for f in (answer, gradient_reach.reference))
    names = {"down_query", "down_supp", "sdpm"}
    if not all(isinstance(x, set) for x in given):
        raise Wrong("no set", "Return a set of names for each of the two cases: braces, with texts in them.")
    ideas = {
        "backbone learns": ("backbone" in given[0] | given[1], "The backbone is frozen: nothing reaches it."),
        "unknown name": (not names.issuperset(given[0] | given[1]), f"Use these names: {', '.join(sorted(names))}."),
        "the wrong way round": (given == true[::-1], "A detached teacher passes no gradient on: fewer parts learn."),
        "detached: query still trained": (
            "down_query" in given[0],
            "Detached, the teacher is a constant. Does anything else in the loss come from the query?",
        ),
        "detached: nobody learns": (not given[0], "Detached, the teacher stands still. The student still moves."),
        "gate forgotten": (any("sdpm" not in x for x in given), "What is the pooled p multiplied with to give S?"),
        "support forgotten": (any("down_supp" not in x for x in given), "S is pooled from features of the support."),
        "teacher always fixed": ("down_query" not in given[1], "Not detached, the teacher moves, too: what is in it?"),
    }
    for slip, (holds, message) in ideas.items():
        if holds:
            raise Wrong(slip, message)


# Without cases: their messages would show the expected set.
@exercise(STAGE, lambda: {}, tests=[_prediction_holds])
def gradient_reach(detached: bool) -> set[str]:
    parts = {name: nn.Linear(6, 16, bias=False) for name in ("down_query", "down_supp")}
    parts["sdpm"] = sdpm = sdpm_of(16, detached=detached)
    gate, students, _ = sdpm(parts["down_supp"](torch.rand(1, 2, 6)))
    distillation(students, sdpm.log_teacher(gate, students, parts["down_query"](torch.rand(1, 6)), 5.0)[0]).backward()
    return {name for name, x in parts.items() if any(w.grad is not None and w.grad.any() for w in x.parameters())}


def _module_cases() -> Cases:
    chance = torch.Generator().manual_seed(6)

    def pair():
        return torch.rand(3, 4, 5, 5, generator=chance) * 3, torch.rand(3, 5, 5, generator=chance)

    support, query, flat = pair(), pair(), torch.full((3, 4, 5, 5), 2.0)
    return {
        "three episodes": (*support, *query, torch.sigmoid, 5.0),
        "a low temperature": (*support, *query, torch.sigmoid, 0.5),
        "an open gate, a = 1": (*support, *query, torch.ones_like, 1.0),
        "equal features everywhere (the gate alone makes the difference)": (
            flat, support[1], flat, query[1], torch.sigmoid, 1.0,
        ),
    }  # fmt: skip


def _pooled(features: Tensor, mask: Tensor) -> Tensor:
    return (features * mask[:, None]).sum((2, 3)) / (mask.sum((1, 2)) + 5e-4)[:, None]


def _module(S: Tensor, t: Tensor, tau: float) -> Tensor:
    return _kl(S, (S + t) / 2, tau)


def _gate_learns(answer: Callable) -> None:
    arguments = [x.requires_grad_() if isinstance(x, Tensor) else x for x in _module_cases()["three episodes"]]
    loss = answer(*arguments)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise Wrong("no gradient", "No gradient reaches the features: the module could not learn.")
    slopes = torch.autograd.grad(loss, [arguments[0], arguments[2]], materialize_grads=True)
    rights = torch.autograd.grad(sdpm_loss.reference(*arguments), [arguments[0], arguments[2]])
    if not all(torch.allclose(a, b, atol=1e-6) for a, b in zip(slopes, rights)):
        raise Wrong("wrong gradient", "The value is right, its gradient is not: something on the way is detached.")


@exercise(STAGE, _module_cases, tests=[_gate_learns], atol=1e-5, slips={
    "half of the original forgotten: The gate a multiplies the prototype as it is: half of the original is kept, so "
    "that no channel is closed.": lambda fs, ms, fq, mq, gate, tau: _module(
        gate(_pooled(fs, ms)) * _pooled(fs, ms), _pooled(fq, mq), tau),
    "student not gated: The student is the support's prototype after the gate; here it is the prototype before "
    "it.": lambda fs, ms, fq, mq, gate, tau: _module(_pooled(fs, ms), _pooled(fq, mq), tau),
    "query gated: The query's prototype was gated, too. In the code it is pooled from the original "
    "features.": lambda fs, ms, fq, mq, gate, tau: _module(
        *((gate(_pooled(fs, ms)) + 1) / 2 * x for x in (_pooled(fs, ms), _pooled(fq, mq))), tau),
    "teacher without the student: The teacher is the query's prototype alone. It should stand halfway between that and "
    "the student.": lambda fs, ms, fq, mq, gate, tau: _kl(
        (gate(_pooled(fs, ms)) + 1) / 2 * _pooled(fs, ms), _pooled(fq, mq), tau),
    "no masks: The features are averaged over the whole picture. A prototype is pooled where the mask "
    "is.": lambda fs, ms, fq, mq, gate, tau: _module(
        (gate(fs.mean((2, 3))) + 1) / 2 * fs.mean((2, 3)), fq.mean((2, 3)), tau),
    "masks exchanged: Each picture has its own mask: support features go with the support's, the query's with the "
    "query's.": lambda fs, ms, fq, mq, gate, tau: _module(
        (gate(_pooled(fs, mq)) + 1) / 2 * _pooled(fs, mq), _pooled(fq, ms), tau),
})  # fmt: skip
def sdpm_loss(support: Tensor, support_mask: Tensor, query: Tensor, query_mask: Tensor, gate: Callable, tau: float):
    p = _pooled(support, support_mask)
    return _module((gate(p) + 1) / 2 * p, _pooled(query, query_mask), tau)


teacher_sees = essay(STAGE, "teacher_sees", terms=("projection", "class", "picture"))
