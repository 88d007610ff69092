"""Vision transformers of timm as backbones: DINOv2, DINOv3, SigLIP, CLIP, SAM and all that are built like them.

ViT: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929. A quarter of the blocks counts as a stage.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, ModelError
from .base import STAGES, Box, Features
from .timm import CELL, TimmBackbone

_ANY_SIZE = MappingProxyType({"dynamic_img_size": True})
# Modules of timm with ViTs, and what makes these take images of any size.
FAMILIES = {"vision_transformer": _ANY_SIZE, "eva": _ANY_SIZE, "deit": _ANY_SIZE, "vision_transformer_sam": {}}


class ViT(TimmBackbone):
    """A ViT with one token for each cell of the stride-8 grid, whatever the size of its patches.

    Images are enlarged so that a patch shows 8 pixels, and token (i, j) is centred on pixel (8i, 8j): 97 pixels become
    13 patches a side, the outermost with border pixels replicated. layer1 to layer4 are the patch tokens behind a
    quarter, half, three quarters and all of the blocks, each through the last norm (SAM: without it, as its norm is
    part of another network). Attention lets every token see the whole image, so a stage cannot run on features that are
    masked: methods mask behind the deepest stage instead (`chained` is False).

    Args: name: see `build_backbone`. net: of `timm.network`. last: see `build_backbone`.
    Raises ModelError: fewer than four blocks, or patches that are not square.
    """

    chained = False

    def __init__(self, name: str, net: nn.Module, last: str | None):
        depth, (patch, other) = len(net.blocks), net.patch_embed.patch_size
        if depth < 4 or patch != other:
            wrong = f"{depth} blocks and patches of {patch} x {other} pixels"
            raise ModelError(f"{name} has {wrong}; expected at least four blocks, and squares.")
        super().__init__(name, net, [net.embed_dim] * 4, [CELL] * 4, last, STAGES[1:])
        self.patch, self.normed = patch, not hasattr(net, "neck")
        self._ends = {stage: depth * quarter // 4 - 1 for quarter, stage in enumerate(STAGES[1:], 1)}
        net.prune_intermediate_layers([self._ends[self.deepest]], prune_norm=not self.normed)
        self.enter, self.net = self.normaliser(), net
        self._parts = {key.partition(".")[0] for key in net.state_dict()}

    @property
    def about(self) -> str:
        return f"{super().about}; supports are masked behind its last block"

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        self.check_request(images, stages)
        wanted = [stage for stage in self.channels if stage in stages]

        def run(part: Tensor) -> Features:
            found = self.net.forward_intermediates(
                self.enter(self.enlarged(part)), indices=[self._ends[stage] for stage in wanted], norm=self.normed,
                stop_early=True, intermediates_only=True,
            )  # fmt: skip
            return dict(zip(wanted, found))

        features = self._in_pieces(run, images, 1)
        return {stage: features[stage] for stage in stages}

    def deeper(self, features: Tensor, stage: str, box: Box | None = None) -> Tensor:
        """Raises ModelError, always."""
        reason = "a ViT's blocks need all tokens, and no masked ones"
        raise ModelError(f"{self.name}: {stage} cannot run on features of the stage before: {reason}.")

    def enlarged(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) with as many patches as there are cells, patch (i, j) centred on pixel (8i, 8j)."""
        rows, columns = (self._places(side, images.device) for side in images.shape[-2:])
        grid = torch.stack([columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], -1)
        how = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
        return F.grid_sample(images.float(), grid.expand(len(images), -1, -1, -1), **how).to(images.dtype)

    def _places(self, side: int, device: torch.device) -> Tensor:
        """Where the pixels of a side of the enlarged image lie on the given one, from -1 to 1."""
        cells = -(-(side + CELL // 2) // CELL)  # k + 1 for 8k + 1 pixels
        pixels = torch.arange(cells * self.patch, device=device, dtype=torch.float32) - (self.patch - 1) / 2
        return pixels * (2 * CELL / self.patch / max(side - 1, 1)) - 1

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """timm's own translation of the authors' names, and of position embeddings of another size."""
        if any(key.startswith("net.") for key in state):
            return state
        translate = getattr(sys.modules[type(self.net).__module__], "checkpoint_filter_fn", None)
        try:
            return translate(dict(state), self.net) if translate else state
        except Exception as error:  # what a file for another network may lead to
            cure = "it was made for another network; choose the backbone it was made for"
            raise CheckpointError(
                f"weights do not fit {self.name} ({type(error).__name__}: {error}): {cure}."
            ) from error

    def rename(self, key: str) -> str | None:
        part = key.partition(".")[0]
        if part == "net":
            return key
        return f"net.{key}" if part in self._parts else None

    def stage_of(self, key: str) -> str:
        block = re.match(r"net\.blocks\.(\d+)\.", key)
        if not block:
            return STAGES[1]
        return next((stage for stage, end in self._ends.items() if int(block[1]) <= end), STAGES[-1])
