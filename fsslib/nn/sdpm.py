"""SD-AANet's channel gate and self-distillation."""

import math

import torch
from torch import Tensor, nn

from ..losses import log_distribution
from .backbones import choose


class SDPM(nn.Module):
    """Self-distillation guided prototype module (arXiv 2108.06600): a channel gate, and a teacher for the prototypes.

    The support decides which channels matter: gate a_k = sigmoid(conv(ReLU(conv(p_k)))), factor g_k = (a_k + 1)/2 on
    support and query. The student prototype is S_k = g_k·p_k; the teacher adds t, the prototype of the query under its
    true mask: T_k = (t + S_k)/2.

    Args: see `SDAANet`.
    """

    def __init__(
        self, width: int, *, query_factor: str, teacher: str, teacher_query: str, teachers: str, detach_teacher: bool
    ):
        super().__init__()
        choose(query_factor, ("product", "average", "mean", "none"), "sdaanet: query_factor=")
        choose(teacher, ("prototypes", "distributions"), "sdaanet: teacher=")
        choose(teacher_query, ("original", "reweighted"), "sdaanet: teacher_query=")
        choose(teachers, ("separate", "integral"), "sdaanet: teachers=")
        hidden = max(1, width // 4)
        self.gate = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid())
        self.query_factor, self.teacher, self.teacher_query = query_factor, teacher, teacher_query
        self.teachers, self.detach_teacher = teachers, detach_teacher

    def forward(self, prototypes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gates a_k (B, K, C), students S_k (B, K, C) and the factor (B, C) on the query's channels.

        Args: prototypes: (B, K, C), p_k, pooled under the support masks.
        """
        gate = self.gate(prototypes.flatten(0, 1)[..., None, None]).view_as(prototypes)
        factor = (gate + 1) / 2
        mean = factor.mean(1)
        # The authors' code multiplies the query by every g_k in turn and by the average gate once more.
        choices = {"product": factor.prod(1) * (mean + 1) / 2, "average": mean * (mean + 1) / 2, "mean": mean}
        on_query = choices.get(self.query_factor, torch.ones_like(mean))
        return gate, factor * prototypes, on_query

    def log_teacher(self, gate: Tensor, students: Tensor, query: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The teachers' log distributions and prototypes T = (t + S)/2, both (B, K, C).

        Args:
            gate, students: as `forward` returns them. query: (B, C), prototype of the query under its own mask.
        """
        query = query.unsqueeze(1).expand_as(students)
        if self.teacher_query == "reweighted":
            query = query * (gate + 1) / 2
        own = students
        if self.teachers == "integral":
            own, query = (x.mean(1, keepdim=True).expand_as(students) for x in (students, query))
        prototypes = (query + own) / 2
        if self.teacher == "prototypes":
            log_teacher = log_distribution(prototypes, temperature)
        else:
            both = torch.stack([log_distribution(x, temperature) for x in (query, own)])
            log_teacher = both.logsumexp(0) - math.log(2)
        return (log_teacher.detach() if self.detach_teacher else log_teacher), prototypes
