"""The ensemble of BAM (arXiv 2203.07615) that HDMNet ends with: what the base learner knows is background."""

import warnings

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Merges the probabilities of the matching network with those of the base classes.

    ψ, the distance of query and support scene, adjusts the two channels of the matching network (one shared 2→1
    convolution); what then is background is merged with the probability of the base classes (another one). Both start
    as the identity of their first input.

    Args:
        shots: K that the weights of the shots are made for; 1 has none. hidden: channels inside them; 0: a linear map.
        matched: `False` as published, where the weights belong to the distances sorted upwards, but multiply them
            unsorted; `True` puts them back in order.
    """

    def __init__(self, shots: int = 1, hidden: int = 2, matched: bool = False):
        super().__init__()
        self.shots, self.matched = shots, matched
        self.scene, self.background = (nn.Conv2d(2, 1, 1, bias=False) for _ in range(2))
        for conv in (self.scene, self.background):
            conv.weight.data.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        self.reweight = None
        if shots > 1 and hidden:
            self.reweight = nn.Sequential(nn.Conv2d(shots, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, shots, 1))
        elif shots > 1:
            self.reweight = nn.Conv2d(shots, shots, 1, bias=False)
            nn.init.constant_(self.reweight.weight, 1 / shots)

    def distance(self, scenes: Tensor) -> Tensor:
        """The K scene distances of each episode as one: (B, K) to (B,). Warns for a K the weights were not made for."""
        shot = scenes.shape[1]
        if shot == 1:
            return scenes[:, 0]
        if self.reweight is None or shot != self.shots:
            if self.shots != shot:
                warnings.warn(
                    f"{shot} shots, but the weights of the shots were made for {self.shots}: their scene distances are "
                    f"averaged. Build the model with shots={shot} to learn weights for them.",
                    stacklevel=2,
                )
            return scenes.mean(1)
        ordered = scenes.sort(1).values
        weights = self.reweight(ordered[..., None, None])[..., 0, 0].softmax(1)
        return (weights * (ordered if self.matched else scenes)).sum(1)

    def forward(self, meta: Tensor, base: Tensor, distance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Merged scores (B, 2, h, w) of background and object, and the maps inside.

        Args:
            meta: (B, 2, h, w) probabilities of the matching network. base: (B, 1, h, w) probability of the base
                classes. distance: (B,) ψ.
        """
        scene = distance[:, None, None, None].expand_as(base)
        background, target = (self.scene(torch.cat([meta[:, c : c + 1], scene], 1)) for c in (0, 1))
        merged = self.background(torch.cat([background, base], 1))
        maps = {"scene/background": background, "scene/object": target, "merged/background": merged}
        return torch.cat([merged, target], 1), maps
