"""Exercises of notebook 01, continued: inside and edge of a mask, and what boxes cannot repair."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .essay import essay
from .exercise import Cases, exercise
from .stage_01 import STAGE


def _inside_cases() -> Cases:
    mask = torch.zeros(2, 9, 9, dtype=torch.long)
    mask[0, 1:8, 1:8] = 1
    mask[1, 4, 1:8] = 1
    mask[1, 6, 6] = 255
    edge = torch.zeros(1, 7, 7, dtype=torch.long)
    edge[0, :, :4] = 1
    return {
        "a square, and a line that has no inside (it stays)": (mask,),
        "an object that touches the image's border": (edge,),
        "an empty mask": (torch.zeros(1, 6, 6, dtype=torch.long),),
    }


def _border(masks: Tensor, label: int = 255, thin: bool = True, reach: int = 5, grow: bool = False) -> Tensor:
    outside = F.max_pool2d((masks != 1).float()[:, None], reach, 1, reach // 2)[:, 0] > 0
    if grow:
        return torch.where(
            (F.max_pool2d((masks == 1).float()[:, None], reach, 1, reach // 2)[:, 0] > 0) & (masks != 1), label, masks
        )
    edge = outside & (masks == 1)
    if thin:
        edge &= ((masks == 1) & ~edge).flatten(1).any(1)[:, None, None]
    return torch.where(edge, label, masks)


@exercise(
    STAGE,
    _inside_cases,
    slips={
        "border made background: The border became 0. It is not background: mark it 255, so that neither prototype "
        "sees it.": lambda m: _border(m, label=0),
        "thin objects vanish: The line lost all its pixels, and its prototype would be zero: an object without an "
        "inside keeps its mask.": lambda m: _border(m, thin=False),
        "ring too narrow: The ring is one pixel wide; two are asked for: a window of 5 x 5 sees them.": lambda m: (
            _border(m, reach=3)
        ),
        "ring outside: The ring lies outside the object. Here the object's own edge is to be left out.": lambda m: (
            _border(m, grow=True)
        ),
        "ring kept, inside dropped: The inside became 255 and the ring stayed: the other way round.": lambda m: (
            torch.where((m == 1) & (_border(m, thin=False) == 1), 255, m)
        ),
    },
)
def inside_only(masks: Tensor) -> Tensor:
    return _border(masks)


box_bias = essay(STAGE, "box_bias", terms=("bias", "background", "noise", "same"))
