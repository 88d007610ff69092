"""HDMNet's matching network (arXiv 2303.14652): a pyramid each side sees alone, then correlation stage by stage."""

import torch
from torch import Tensor, nn

from ..ops import resize, upsample
from .transformer import Correlation, EncoderLayer, Stage, block_mask, to_map, to_tokens

# Heads, side of the reduced squares and stride of the stages, fine to coarse.
STAGES = ((2, 4, 1), (4, 2, 2), (8, 1, 2))


class MatchingPyramid(nn.Module):
    """Self-attention pyramid, masked correlation, and a decoder from coarse to fine.

    Query and support pass the pyramid separately, with shared weights ("decoupled"): features are refined before they
    meet, and the correlation at each stage is the only place where they do.
    All batch norms use running statistics in the method that owns this (they stay 0 and 1, as published).

    Args:
        width: channels C of the tokens, a multiple of 8. hidden: channels inside the decoder.
        stages: how many, 1 to 3. self_attention: whether the stages attend to themselves.
        temperature, softmax: see `Correlation`. dropout: in attention and feed-forward parts.
        guides: channels of the prior maps that join behind every correlation.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        stages: int = 3,
        self_attention: bool = True,
        temperature: float = 0.1,
        softmax: str = "query",
        dropout: float = 0.1,
        guides: int = 2,
    ):
        super().__init__()
        shapes, layers = STAGES[:stages], 2 if self_attention else 0
        self.stages = nn.ModuleList(Stage(width, *shape, layers=layers, dropout=dropout) for shape in shapes)
        self.match = nn.ModuleList(
            EncoderLayer(Correlation(width, 2, dropout, temperature, softmax), width, dropout) for _ in shapes
        )
        self.guide = nn.ModuleList(_conv_norm_relu(width + guides, width) for _ in shapes)
        self.parse = nn.ModuleList(_parse(width, hidden) for _ in shapes)
        self.classifier = nn.Sequential(
            *(nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden)),
            *(nn.Conv2d(hidden, hidden, 3, padding=1), nn.BatchNorm2d(hidden)),
            nn.Conv2d(hidden, 2, 1),
        )

    def forward(
        self, query: Tensor, support: Tensor, masks: Tensor, priors: Tensor
    ) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """Logits (B, 2, h, w), correlation maps (B, hᵢ, wᵢ) from coarse to fine, and the maps of every stage.

        Args:
            query: (B, C, h, w) float. support: (B, K, C, h, w) float. masks: (B, K, H, W) long.
            priors: (B, guides, h, w) float.
        """
        batch, shot = support.shape[:2]
        features = torch.cat([query, support.flatten(0, 1)])
        pyramid = []
        for stage in self.stages:
            features = stage(features)
            pyramid.append(features)
        merged, correlations, maps = None, [], {}
        for i in reversed(range(len(pyramid))):
            own, others = pyramid[i][:batch], pyramid[i][batch:].unflatten(0, (batch, shot))
            size = tuple(own.shape[-2:])
            keys = others.flatten(3).permute(0, 1, 3, 2).flatten(1, 2)
            found, weight = self.match[i].match(to_tokens(own), keys, block_mask(masks, size), size)
            correlations.append(weight.unflatten(-1, size))
            matched = to_map(found, size)
            guided = self.guide[i](torch.cat([matched, resize(priors, size).to(matched.dtype)], 1))
            if merged is None:
                merged = self.parse[i](guided)
            else:
                above = upsample(merged, size)
                merged = above + self.parse[i](guided + above)
            maps |= {f"query/{i}": own, f"support/{i}": others, f"matched/{i}": matched, f"decoded/{i}": merged}
            maps |= {f"correlation/{i}": correlations[-1]}
        return self.classifier(merged), correlations, maps


def _conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _parse(width: int, hidden: int) -> nn.Sequential:
    """Three convolutions without an activation between them, as published; a ReLU at the end."""
    return nn.Sequential(
        *(nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden)),
        *(nn.Conv2d(hidden, hidden, 3, padding=1), nn.BatchNorm2d(hidden)),
        *(nn.Conv2d(hidden, width, 1), nn.BatchNorm2d(width), nn.ReLU()),
    )
