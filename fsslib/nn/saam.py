"""SD-AANet's attention: a head that learns on the support what it then says about the query."""

import torch
from torch import Tensor, nn

from .psp import BatchNorm2d, PyramidPooling


class SAAM(nn.Module):
    """Supervised affinity attention module (arXiv 2108.06600): one head compares features with a prototype.

    It learns on the support, where the mask is known (`support`), and gives the query an attention map (`query`).

    Args: width: channels C of features and prototype.
    """

    def __init__(self, width: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.ReLU())
        self.pyramid = PyramidPooling(4 * width, width)
        fuse = nn.Conv2d(8 * width, width, 3, padding=1, bias=False)
        self.bottleneck = nn.Sequential(fuse, BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.1))
        self.support_logits = nn.Conv2d(width, 2, 1)
        self.query_map = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, prototype: Tensor) -> Tensor:
        """(B, C, h, w) of the affinity between features (B, C, h, w) and prototype (B, C)."""
        spread = prototype[:, :, None, None].expand_as(features).to(features.dtype)
        return self.bottleneck(self.pyramid(self.reduce(torch.cat([features, spread], 1))))

    def support(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Logits (B, K, 2, h, w) of support features (B, K, C, h, w), each with its own prototype (B, K, C)."""
        if not self.training:
            return self.support_logits(self(features.flatten(0, 1), prototypes.flatten(0, 1))).unflatten(
                0, prototypes.shape[:2]
            )
        # One call per shot: batch norm sees B images at a time, as in the authors' code.
        calls = [self.support_logits(self(features[:, k], prototypes[:, k])) for k in range(prototypes.shape[1])]
        return torch.stack(calls, 1)

    def query(self, features: Tensor, prototype: Tensor) -> Tensor:
        """Attention map (B, 1, h, w), signed and unbounded, of query features (B, C, h, w)."""
        return self.query_map(self(features, prototype))
