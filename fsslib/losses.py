"""Losses of the methods. All of them stay finite on empty and fully ignored masks."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .episode import IGNORE
from .ops import EPS_AREA, FEW, cosine_maps, full_precision, strongest, upsample

EPS_LOG = 1e-12  # HDMNet adds it inside the logarithms


def segmentation(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy averaged over the pixels that count; 0 (with gradient 0) when every pixel is ignored.

    Args: logits: (B, C, H, W) float. target: (B, H, W) long, 255 ignored.
    """
    logits, labels = logits.float(), target
    rows = logits.permute(0, 2, 3, 1)
    # Where many channels are last in memory, rows of them take a half or a quarter of the time.
    if logits.shape[1] > FEW and rows.is_contiguous():
        logits, labels = rows.flatten(0, 2), target.flatten()
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / _divisor((target != IGNORE).sum()).to(total.dtype)


def _at_least_one(pixels: Tensor) -> Tensor:
    return pixels.clamp_min(1)


_divisor = _at_least_one


@contextlib.contextmanager
def counted_by(divisor: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block `segmentation` divides by `divisor(number of pixels that count)`: a process that holds a part of
    a batch has to know of the others' pixels."""
    global _divisor
    _divisor = divisor
    try:
        yield
    finally:
        _divisor = _at_least_one


@full_precision
def alignment(
    query_scores: Tensor, query_features: Tensor, support_features: Tensor, support_masks: Tensor, scale: float = 20.0
) -> Tensor:
    """Prototype alignment regularisation (PANet, ICCV 2019, section 3.4): the query, with its own predicted mask,
    must segment the support.

    Ways without a predicted pixel are skipped and the divisor K·N stays, as in the authors' code. The arg-max blocks
    the only gradient that is blocked; both prototypes and both feature maps are trained.

    Args:
        query_scores: (B, 1 + N, h, w) float, scores at feature resolution.
        query_features: (B, C, h, w) float. support_features: (B, N, K, C, h, w) float.
        support_masks: (B, N, K, H, W) long; 255 is not scored. scale: the temperature α of the scores.
    Returns: scalar, mean over the episodes.
    """
    way, shot = support_masks.shape[1:3]
    query_features = query_features.float()
    channels = torch.arange(1 + way, device=query_scores.device)[:, None, None]
    predicted = (strongest(query_scores)[:, None] == channels).float()
    area = predicted.sum((-2, -1))
    prototypes = torch.einsum("bchw,bphw->bpc", query_features, predicted) / (area + EPS_AREA).unsqueeze(-1)
    total = query_scores.new_zeros(())
    for w in range(way):
        pair = prototypes[:, :: w + 1][:, :2].repeat_interleave(shot, 0)  # of the background and of this way
        scores = cosine_maps(support_features[:, w].flatten(0, 1), pair, scale)
        labels = support_masks[:, w].flatten(0, 1)
        enlarged = upsample(scores, tuple(labels.shape[-2:]))
        pixels = F.cross_entropy(enlarged, labels, ignore_index=IGNORE, reduction="none")
        mean = pixels.sum((-2, -1)) / (labels != IGNORE).sum((-2, -1)).clamp_min(1)
        total = total + (mean.view(-1, shot).sum(1) * (area[:, w + 1] > 0)).sum()
    return total / (shot * way * query_scores.shape[0])


@full_precision
def distillation(
    student: Tensor, log_teacher: Tensor, *, temperature: float = 5.0, factor: float = 0.9, mean: str = "elements"
) -> Tensor:
    """Divergence of the student prototype's channel distribution from the teacher's (SD-AANet, arXiv 2108.06600, SDPM).

    factor · τ² · mean of p·(log p − log softmax(S/τ)) with the teacher's distribution p. The authors' code averages
    over channels too (`mean="elements"`), which makes it C times smaller than the usual divergence per prototype
    (`mean="prototypes"`). Gradients flow into both arguments.

    Args:
        student: (..., C) float, raw prototypes S.
        log_teacher: (..., C) float, logarithms of distributions over the channels.
        temperature: τ. factor: the constant in front.
    Returns: scalar, float32.
    """
    divergence = log_teacher.float().exp() * (log_teacher.float() - log_distribution(student, temperature))
    size = divergence.numel() if mean == "elements" else divergence.numel() // divergence.shape[-1]
    return factor * temperature**2 * divergence.sum() / size


def log_distribution(prototypes: Tensor, temperature: float = 5.0) -> Tensor:
    """log softmax of (..., C) prototypes over their channels at a temperature, float32."""
    return F.log_softmax(prototypes.float() / temperature, -1)


@full_precision
def correlation_distillation(labels: Tensor, correlations: list[Tensor], *, truth: bool = True) -> list[Tensor]:
    """Every correlation map learns from the coarser one (HDMNet, arXiv 2303.14652, correlation map distillation).

    Maps are distributions over the positions (softmax); the divergence is Σ t·(log t − log s), mean over the batch. The
    teacher is detached and enlarged to the student's grid. The coarsest map learns from the ground truth: uniform over
    the cells that see nothing but object.

    Args:
        labels: (B, H, W) long, 1 object; everything else (255, too) is not.
        correlations: (B, hᵢ, wᵢ) float maps from coarse to fine.
        truth: whether the ground truth teaches the coarsest map.
    Returns: one scalar a term, in the order of the maps.
    """
    # -1e9 before resizing: a cell that saw any other pixel is left with nothing.
    target = torch.where(labels == 1, 1.0, -1e9)
    teachers = [target if truth else None, *(c.detach().float() for c in correlations[:-1])]
    terms = []
    for teacher, student in zip(teachers, correlations):
        if teacher is not None:
            goal = upsample(teacher[:, None], tuple(student.shape[-2:])).flatten(1).softmax(-1)
            answer = student.float().flatten(1).softmax(-1)
            divergence = goal * ((goal + EPS_LOG).log() - (answer + EPS_LOG).log())
            terms.append(divergence.sum(-1).mean())
    return terms
