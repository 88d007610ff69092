"""Exercises of notebook 02: the factor of several gates, distillation of prototypes, and whom it trains."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...losses import distillation
from ...losses import log_distribution as log_q
from ...models.sdaanet import SDPM
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "02_self_distillation"


def _sdpm(channels: int, rule: str = "product", detached: bool = False) -> SDPM:
    choices = {"teacher": "prototypes", "teacher_query": "original", "teachers": "separate"}
    return SDPM(channels, query_factor=rule, detach_teacher=detached, **choices)


def factor_of(a: Tensor, rule: str) -> Tensor:
    """The query's factor (B, C) that SDPM makes of gates (B, K, C) by a rule of its `query_factor`."""
    module = _sdpm(a.shape[-1], rule)
    module.gate = nn.Identity()  # the gates themselves come in
    return module(a)[2]


def gates(*shape: int) -> Tensor:
    """Random gates in 0..1, always the same."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def half(a: Tensor) -> Tensor:
    """Mixed with 1, one to one."""
    return 0.5 + 0.5 * a


def _factor_cases() -> Cases:
    # Every rule that lasts gives the same here, whatever it averages.
    return {
        "one support (the trained factor)": (gates(2, 1, 4),),
        "three supports with the same gate (the factor of one)": (gates(2, 1, 4).repeat(1, 3, 1),),
        "five open gates, a = 1 (the query stays as it is)": (torch.ones(1, 5, 3),),
    }


def _every_support_counts(answer: Callable) -> None:
    a = gates(2, 3, 4).requires_grad_()
    factor = answer(a)
    if not factor.requires_grad:
        raise Wrong("no gradient", "No gradient reaches the gates: the network could not learn them this way.")
    (slope,) = torch.autograd.grad(factor.sum(), a, materialize_grads=True)
    if bool((slope.abs() < 1e-6).any()):
        raise Wrong("not all supports count", "Some supports have no say in the factor. All of them were asked.")
    if not torch.allclose(factor, answer(a.flip(1)), atol=1e-4):
        raise Wrong("order of the supports", "The factor changes when the supports change places. They have no order.")


@exercise(STAGE, _factor_cases, tests=[_every_support_counts], slips={
    "product: This is the published product: right for one shot, but every further gate shrinks it. Three supports "
    "that agree should say what one of them says.": lambda a: factor_of(a, "product"),
    "all factors multiplied: Each support's whole factor is multiplied in: this shrinks with K even faster than the "
    "product of gates.": lambda a: (half(a) * half(half(a))).prod(1),
    "the paper's mean: This is the paper's rule. It keeps its size for every K, but at K = 1 it is not what these "
    "weights were trained with: what else is the query multiplied with?": lambda a: factor_of(a, "mean"),
    "mean squared: The mean is multiplied with itself. In the trained rule the second time counts half: it is mixed "
    "with 1.": lambda a: half(a).mean(1).square(),
    "half of the original forgotten: The gate a was used where g belongs: half of the original is kept, so that no "
    "channel is closed.": lambda a: a.mean(1) * half(a.mean(1)),
    "sum over the supports: The supports are added up: now the factor grows with K, which is as new to the network as "
    "shrinking.": lambda a: half(a).sum(1) * half(half(a).mean(1)),
    "supports not merged: There is a factor for each support, but only one query: merge them into one number per "
    "channel.": lambda a: half(a) * half(half(a)),
    "averaged over the channels: The average runs over the channels, which the gate is there to tell apart. The "
    "supports are dimension 1.": lambda a: half(a).mean(-1) * half(half(a).mean(-1)),
})  # fmt: skip
def lasting_factor(a: Tensor) -> Tensor:
    return factor_of(a, "average")


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
            why = "Your function cuts the gradient into the teacher. Whether the teacher is fixed is the caller's "
            why += "choice: a T that is detached already needs nothing more, and the published code leaves it free."
            raise Wrong("teacher cut off", why)
        if not all(torch.allclose(x, y, atol=1e-5) for x, y in zip(slope, right)):
            raise Wrong("wrong gradient", "The value is right, its gradient is not: something on the way is detached.")


@exercise(STAGE, _distil_cases, tests=[_rounded_shares, _gradients_flow], slips={
    "tau squared is missing: The factor τ² is missing: without it the gradients fade like 1/τ² as the temperature "
    "grows.": lambda S, T, tau: _kl(S, T, tau) / tau**2,
    "0.9 is missing: All is there but the constant 0.9 in front.": lambda S, T, tau: _kl(S, T, tau) / 0.9,
    "softmax over the episodes: The softmax runs over the episodes. A distribution says how one prototype shares "
    "itself out over its channels: the last dimension.": lambda S, T, tau: _kl(S.T, T.T, tau),
    "student and teacher exchanged: This divergence is weighted by the student. The teacher says which channels "
    "matter: its distribution stands in front of the logarithms.": lambda S, T, tau: _kl(T, S, tau),
    "teacher without temperature: "
    "Only the student is softened: now the two differ even where S = T.": lambda S, T, tau: _kl(S, T, tau, 1.0),
    "temperature multiplied: The prototypes are multiplied by τ, which sharpens. "
    "A high temperature flattens.": lambda S, T, tau: _kl(S, T, 1 / tau) * tau**4,
    "summed over the channels: This is the usual divergence, a sum over the channels. The authors' code averages over "
    'them, too: look at what "mean" and "batchmean" divide by.': lambda S, T, tau: _kl(S, T, tau) * S.shape[-1],
    "cross entropy: This is the cross entropy: it is not 0 where S = T, since the teacher's own entropy is not taken "
    "off.": lambda S, T, tau: -0.9 * tau**2 * (log_q(T, tau).exp() * log_q(S, tau)).mean(),
    "student not a logarithm: `F.kl_div` wants the logarithm of its first argument; here it got the "
    "probabilities.": lambda S, T, tau: 0.9 * tau**2 * _mean_kl(log_q(S, tau).exp(), log_q(T, tau).exp()),
    "teacher as a logarithm: NaN: `F.kl_div` got the teacher's logarithm, but takes its second argument for "
    "probabilities unless told.": lambda S, T, tau: _mean_kl(log_q(S, tau), log_q(T, tau)),
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
    parts["sdpm"] = sdpm = _sdpm(16, detached=detached)
    gate, students, _ = sdpm(parts["down_supp"](torch.rand(1, 2, 6)))
    distillation(students, sdpm.log_teacher(gate, students, parts["down_query"](torch.rand(1, 6)), 5.0)[0]).backward()
    return {name for name, x in parts.items() if any(w.grad is not None and w.grad.any() for w in x.parameters())}


teacher_sees = essay(STAGE, "teacher_sees", terms=("projection", "class", "picture"))
