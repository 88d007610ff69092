"""A module to start from. Copy this file, rename class and method, and write your idea where `answer` asks for it.

Until then it is PANet's matching on a learned projection of frozen features, with the idea and without it.
"""

import torch
from torch import nn

import fsslib
from fsslib.losses import segmentation
from fsslib.models.base import OneWayModel, Outcome
from fsslib.ops import cosine_maps, project_mask, upsample


@fsslib.register("starter")
class Starter(OneWayModel):
    """Cosines of every query cell with the mean of the object and of the background.

    Args: width: channels behind the projection. idea: False leaves your idea out, for the other side of the comparison.
    """

    def __init__(self, backbone, *, width: int = 32, idea: bool = True):
        super().__init__(backbone, freeze=True)
        self.stage, self.idea = backbone.deepest, idea
        self.project = nn.Conv2d(backbone.channels[self.stage], width, 1, bias=False)
        nn.init.orthogonal_(self.project.weight)

    def features(self, episode):
        query, support = (side[self.stage] for side in self.encode(episode, [self.stage]))
        learned = self.project(support.flatten(0, 2)).unflatten(0, support.shape[:3])
        return {"cells": self.project(query)}, {"cells": learned}

    def segment(self, query, support, masks, labels, learn):
        shares = [project_mask((masks == value).float(), support["cells"].shape[-2:]) for value in (0, 1)]
        scores = torch.cat([self.answer(query["cells"], support["cells"], share) for share in shares], 1)
        logits = upsample(20 * scores, tuple(masks.shape[-2:]))
        main = segmentation(logits, labels) if learn else None
        return Outcome(logits, {"main": main, "total": main} if learn else {})

    def answer(self, query, support, share):
        """How much each query cell resembles one side, object or background: (B, 1, h, w), about -1 to 1.

        Args: query: (B, C, h, w). support: (B, K, C, h, w). share: (B, K, h, w), pixels of this side in each cell.
        """
        area = share.sum((1, 2, 3)).clamp_min(1e-5)
        mean = torch.einsum("bkchw,bkhw->bc", support, share) / area[:, None]
        cosine = cosine_maps(query, mean[:, None], 1.0)
        if self.idea:
            pass  # your idea: change `cosine`, or compute something else from the same arguments
        return cosine
