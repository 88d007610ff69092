"""HDMNet: features that refine themselves before they meet, correlation at three scales, and a base learner.

Peng, Tian, Wu, Wang, Liu, Su, Jia: "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation", CVPR 2023,
arXiv 2303.14652; the authors' code is github.com/Pbihao/HDMNet. Ensemble and base learner are those of BAM (Lang et
al., CVPR 2022, arXiv 2203.07615, github.com/chunbolang/BAM).

In the order of the paper: the attention blocks, the matching network made of them, the ensemble with the base learner
(which is in `base_learner`), and the network. The distillation between the correlation maps is in `losses`.
"""

import math
import warnings
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import Positive, Share, Whole, check_options
from ..episode import IGNORE, Episode
from ..errors import EpisodeError, ModelError
from ..losses import correlation_distillation, segmentation
from ..nn.context import PSPHead
from ..nn.convolution import Conv2d, pointwise
from ..ops import full_precision, gram_distance, masked_pool, may_wait, object_cells, prior_mask, resize, upsample
from .base import Features, Outcome, joined, joined_width
from .base_learner import BaseLearner, check_annotation
from .start import Start, StartedModel

# Attention blocks: self-attention with spatially reduced keys, and masked correlation of query and support.

EPS_NORM = 1e-6  # of every layer norm
EPS_UNIT = 1e-12  # lower limit of the norms of queries and keys in the correlation
EPS_COUNT = 1e-9
SMALL = 2**16  # pairs of a query and a key, up to which a CPU multiplies matrices one after the other
Softmax = Literal["query", "support"]


class Attention(nn.Module):
    """Multi-head self-attention, optionally with spatially reduced keys and values (PVT, arXiv 2102.12122).

    Each of the `heads` takes a contiguous block of the `width` channels; squares of `reduction` cells a side are merged
    into one key. `dropout`: of the output.
    """

    def __init__(self, width: int, heads: int, reduction: int = 1, dropout: float = 0.1):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        self.reduce = self.norm = None
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width, eps=EPS_NORM)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, L, C) tokens of a grid `size` to the same shape."""
        source = tokens if self.reduce is None else self.norm(to_tokens(self.reduce(to_map(tokens, size))))
        query, key, value = self.project(tokens, source)
        return self.join(attend(query, key, value, 1 / (math.sqrt(query.shape[-1]) + EPS_COUNT)))

    def project(self, tokens: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head: (B, heads, L, C / heads) each."""
        return self.split(self.query(tokens)), self.split(self.key(source)), self.split(self.value(source))

    def split(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to (B, heads, L, C / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def join(self, values: Tensor) -> Tensor:
        """(B, heads, L, C / heads) through the output projection and its dropout to (B, L, C)."""
        return self.dropout(self.out(values.transpose(1, 2).flatten(2)))


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale · q kᵀ) v over the keys, by head: (B, heads, L, C) float for (B, heads, M, C) keys and values."""
    if query.device.type == "cpu" and query.shape[-2] * key.shape[-2] <= SMALL:
        # Measured: for few keys and narrow heads the fused kernel takes up to eight times as long on a CPU.
        return ((scale * query) @ key.transpose(-2, -1)).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


class Correlation(Attention):
    """Masked correlation of query positions with support positions ("inverse" softmax over the query).

    S = cos(q, k) / `temperature`. With `softmax="query"` every support object position spreads one unit of attention
    over the query; with `"support"` it is the usual softmax over the object positions. Positions outside the mask give
    nothing in both. `width`, `heads`, `dropout`: see `Attention`.
    """

    def __init__(
        self, width: int, heads: int = 2, dropout: float = 0.1, temperature: float = 0.1, softmax: Softmax = "query"
    ):
        super().__init__(width, heads, 1, dropout)
        self.temperature, self.softmax = temperature, softmax

    def forward(self, tokens: Tensor, source: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the query receives (B, L, C), and the correlation map (B, L), the mean of S over object and heads.

        Args: tokens: (B, L, C) of the query. source: (B, M, C) of the support. masks: (B, M) float 0 or 1.
        """
        query, key, value = self.project(tokens, source)
        received, weight = correlate(query, key, value, masks, self.temperature, self.softmax)
        return self.join(received.to(tokens.dtype)), weight


@full_precision
def correlate(
    query: Tensor, key: Tensor, value: Tensor, masks: Tensor, temperature: float, softmax: Softmax
) -> tuple[Tensor, Tensor]:
    """`Correlation` by head: attention of the object positions only, and the map without the matrix of all pairs.

    Args: query: (B, heads, L, C) float. key, value: (B, heads, M, C) float. masks: (B, M) float 0 or 1.
    Returns: (B, heads, L, C) and (B, L), float32; both 0 for an empty mask.
    """
    masks = masks.float()
    query, key = (F.normalize(tokens.float(), dim=-1, eps=EPS_UNIT) for tokens in (query, key))
    # The mean over the object comes first, since the cosine is linear in the unit keys.
    mean = (key * masks[:, None, :, None]).sum(2) / (masks.sum(1) + EPS_COUNT)[:, None, None]
    query = query / temperature
    weight = (query @ mean[..., None]).squeeze(-1).mean(1)
    # Only the object's positions attend.
    order, valid = (cells[:, None, :, None] for cells in object_cells(masks == 1))
    index = order.expand(-1, key.shape[1], -1, key.shape[-1])
    scores = key.gather(2, index) @ query.transpose(-2, -1)
    # A large number instead of infinity, for objects without any position.
    attention = scores.softmax(-1) if softmax == "query" else scores.masked_fill(~valid, -1e9).softmax(-2)
    return attention.transpose(-2, -1) @ (value.float().gather(2, index) * valid), weight


class MixFFN(nn.Sequential):
    """SegFormer's feed-forward part (arXiv 2105.15203): 1x1, depthwise 3x3 (the only sign of position), GELU, 1x1."""

    def __init__(self, width: int, dropout: float = 0.1):
        hidden = 4 * width
        convs = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        super().__init__(*convs, nn.GELU(), nn.Dropout(dropout), nn.Conv2d(hidden, width, 1), nn.Dropout(dropout))


class EncoderLayer(nn.Module):
    """Attention and MixFFN, each behind a layer norm and beside an identity path.

    Args: attention: an `Attention` (the layer then attends to its own tokens) or a `Correlation` (to a support).
    """

    def __init__(self, attention: Attention, width: int, dropout: float = 0.1):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPS_NORM) for _ in range(2))
        self.attention = attention
        self.ffn = MixFFN(width, dropout=dropout)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Self-attention: (B, L, C) tokens of a grid `size` to the same shape."""
        return self._mix(tokens + self.attention(self.norm1(tokens), size), size)

    def match(self, tokens: Tensor, source: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Correlation with a support, whose tokens (B, M, C) pass the same layer norm; see `Correlation`."""
        received, weight = self.attention(self.norm1(tokens), self.norm1(source), masks)
        return self._mix(tokens + received, size), weight

    def _mix(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return tokens + to_tokens(self.ffn(to_map(self.norm2(tokens), size)))


class Stage(nn.Module):
    """One stage of the self-attention pyramid: patch embedding, which strides over `step` cells, encoder layers (with
    0 of them there is no self-attention), layer norm."""

    def __init__(self, width: int, heads: int, reduction: int, step: int, layers: int = 2, dropout: float = 0.1):
        super().__init__()
        size = 3 if step > 1 else 1
        self.embed = nn.Conv2d(width, width, size, stride=step, padding=size // 2)
        self.embed_norm = nn.LayerNorm(width, eps=EPS_NORM)
        self.layers = nn.ModuleList(
            EncoderLayer(Attention(width, heads, reduction, dropout), width, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, eps=EPS_NORM)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, ⌈h / step⌉, ⌈w / step⌉)."""
        embedded = self.embed(features)
        size = tuple(embedded.shape[-2:])
        tokens = self.embed_norm(to_tokens(embedded))
        for layer in self.layers:
            tokens = layer(tokens, size)
        return to_map(self.norm(tokens), size)


def to_tokens(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h·w, C)."""
    return features.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h·w, C) to (B, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(-1, size)


def block_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, H, W) long masks of the supports to (B, K·h·w) float, 1 where the nearest pixel is object."""
    return F.interpolate((masks == 1).float(), size, mode="nearest").flatten(1)


# The matching network: a pyramid that each side passes alone, then correlation stage by stage.

# Heads, side of the reduced squares and stride of the pyramid's stages, fine to coarse.
PYRAMID = ((2, 4, 1), (4, 2, 2), (8, 1, 2))
SMALLEST = PYRAMID[0][1]  # cells a side: one square of the finest stage's reduced keys


class MatchingPyramid(nn.Module):
    """Self-attention pyramid, masked correlation, and a decoder from coarse to fine.

    Query and support pass the pyramid separately, with shared weights ("decoupled"): features are refined before they
    meet, and the correlation at each stage is the only place where they do.
    All batch norms use running statistics in the method that owns this (they stay 0 and 1, as published).

    Args: width: channels C of the tokens, a multiple of 8. hidden: channels inside the decoder. guides: channels of the
        prior maps that join behind every correlation. Others as in `HDMNet` and `Correlation`.
    """

    def __init__(
        self, width: int, hidden: int, *, stages: int = 3, self_attention: bool = True, temperature: float = 0.1,
        softmax: Softmax = "query", dropout: float = 0.1, guides: int = 2,
    ):  # fmt: skip
        super().__init__()
        shapes, layers = PYRAMID[:stages], 2 if self_attention else 0
        self.stages = nn.ModuleList(Stage(width, *shape, layers=layers, dropout=dropout) for shape in shapes)
        self.match = nn.ModuleList(
            EncoderLayer(Correlation(width, 2, dropout, temperature, softmax), width, dropout) for _ in shapes
        )
        self.guide = nn.ModuleList(_conv_norm_relu(width + guides, width) for _ in shapes)
        self.parse = nn.ModuleList(LinearConvs(width, hidden, width, nn.BatchNorm2d(width), nn.ReLU()) for _ in shapes)
        self.classifier = LinearConvs(width, hidden, 2)

    def forward(self, query: Tensor, support: Tensor, masks: Tensor, priors: Tensor) -> tuple[Tensor, list, Features]:
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
            seen, others = pyramid[i][:batch], pyramid[i][batch:].unflatten(0, (batch, shot))
            size = tuple(seen.shape[-2:])
            keys = others.flatten(3).permute(0, 1, 3, 2).flatten(1, 2)
            received, weight = self.match[i].match(to_tokens(seen), keys, block_mask(masks, size), size)
            correlations.append(weight.unflatten(-1, size))
            matched = to_map(received, size)
            guided = self.guide[i](torch.cat([matched, resize(priors, size).to(matched.dtype)], 1))
            above = None if merged is None else upsample(merged, size)
            merged = self.parse[i](guided) if above is None else above + self.parse[i](guided + above)
            maps |= {f"query/{i}": seen, f"support/{i}": others, f"matched/{i}": matched, f"decoded/{i}": merged}
            maps |= {f"correlation/{i}": correlations[-1]}
        return self.classifier(merged), correlations, maps


def _conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class LinearConvs(nn.Sequential):
    """Three convolutions, 1x1, 3x3 and 1x1, with batch norms, but no activation, between them, as published; then
    `more`.

    Without an activation they are one 3x3 convolution from `inputs` to `outputs` channels. Its weights are multiplied
    anew in every call, so that all parameters learn; with 64, 256 and 64 channels that takes a tenth of the time.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *more: nn.Module):
        start = nn.Conv2d(inputs, hidden, 1), nn.BatchNorm2d(hidden)
        middle = nn.Conv2d(hidden, hidden, 3, padding=1), nn.BatchNorm2d(hidden)
        super().__init__(*start, *middle, nn.Conv2d(hidden, outputs, 1), *more)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w). Batch statistics need the convolutions one after the other."""
        if self[1].training or self[3].training:
            return super().forward(features)
        weight, everywhere, bias = self.merged()
        # The zeros that pad the hidden maps hide the first bias at the borders.
        inside = F.conv2d(torch.ones_like(features[:1, :1]), everywhere, bias, padding=1)
        result = F.conv2d(features, weight, padding=1) + inside
        for part in [*self][5:]:
            result = part(result)
        return result

    def merged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the one convolution for the inputs (outputs, inputs, 3, 3), and for a map of ones
        (outputs, 1, 3, 3), and its bias (outputs,)."""
        first, norm1, second, norm2, third, *_ = self
        with torch.autocast(second.weight.device.type, enabled=False):
            (scale1, shift1), (scale2, shift2) = (_affine(norm) for norm in (norm1, norm2))
            ones = first.bias * scale1 + shift1
            start = torch.cat([first.weight.flatten(1) * scale1[:, None], ones[:, None]], 1)
            end = third.weight.flatten(1)
            kernels = ((end * scale2) @ second.weight.flatten(1)).unflatten(1, second.weight.shape[1:])
            weight = torch.einsum("ohij,hn->onij", kernels, start)
            bias = end @ (second.bias * scale2 + shift2) + third.bias
        return weight[:, :-1], weight[:, -1:], bias


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and summand of every channel, by a batch norm's running statistics."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


# The ensemble of BAM that HDMNet ends with: what the base learner knows is background.


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
        if shot != self.shots:
            if not torch.compiler.is_compiling():
                warnings.warn(
                    f"{shot} shots, but the weights of the shots were made for {self.shots}: their scene distances are "
                    f"averaged. Build the model with shots={shot} to learn weights for them.",
                    stacklevel=2,
                )
            return scenes.mean(1)
        ordered = scenes.sort(1).values
        weights = self.reweight(ordered[..., None, None])[..., 0, 0].softmax(1)
        return (weights * (ordered if self.matched else scenes)).sum(1)

    def forward(self, meta: Tensor, base: Tensor, distance: Tensor) -> tuple[Tensor, Features]:
        """Merged scores (B, 2, h, w) of background and object, and the maps inside.

        Args: meta: (B, 2, h, w) probabilities of the matching network. base: (B, 1, h, w) probability of the base
            classes. distance: (B,) ψ.
        """
        scene = distance[:, None, None, None].expand_as(base)
        background, target = (self.scene(torch.cat([meta[:, c : c + 1], scene], 1)) for c in (0, 1))
        merged = self.background(torch.cat([background, base], 1))
        maps = {"scene/background": background, "scene/object": target, "merged/background": merged}
        return torch.cat([merged, target], 1), maps


# The network. First how its parameters are called here and in the authors' checkpoints.

_THEIRS = "transformer.mix_transformer."


def _layer(ours: str, theirs: str) -> dict[str, str]:
    names = {f"{ours}attention.{name}.": f"{theirs}attn.attn.linear_{name[0]}." for name in ("query", "key", "value")}
    names |= {f"{ours}attention.out.": f"{theirs}attn.attn.linear_o."}
    names |= {f"{ours}attention.reduce.": f"{theirs}attn.sr.", f"{ours}attention.norm.": f"{theirs}attn.norm."}
    return names | {f"{ours}ffn.": f"{theirs}ffn.layers.", ours: theirs}


def _stage(i: int) -> dict[str, str]:
    ours, theirs = f"transformer.stages.{i}.", f"{_THEIRS}down_sample_layers.{i}."
    match, guide = f"{_THEIRS}match_layers.{i}.", f"transformer.guide.{i}."
    names = {f"{ours}embed.": f"{theirs}0.projection.", f"{ours}embed_norm.": f"{theirs}0.norm."}
    names |= _layer(f"{ours}layers.0.", f"{theirs}1.") | _layer(f"{ours}layers.1.", f"{theirs}2.")
    names |= {f"{ours}norm.": f"{theirs}3."} | _layer(f"transformer.match.{i}.", f"{match}0.")
    names |= {f"{guide}0.": f"{match}1.conv.", f"{guide}1.": f"{match}1.bn."}
    return names | {f"transformer.parse.{i}.": f"{_THEIRS}parse_layers.{i}."}


OFFICIAL = {name: theirs for i in range(len(PYRAMID)) for name, theirs in _stage(i).items()} | {
    "transformer.classifier.": f"{_THEIRS}cls.", "ensemble.scene.": "gram_merge.", "ensemble.background.": "cls_merge.",
    "ensemble.reweight.": "kshot_rw.", "base_head.pooling.stages.": "ppm.features.", "base_head.level5.": "cls.",
    "base_head.classifier.": "base_learnear.", "backbone.": "",
}  # fmt: skip
PRIOR_WEIGHT = 10.0  # of the prior maps beside the query's features


class Merge(nn.Sequential):
    """A 1x1 convolution from `inputs` to `outputs` channels, and its ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU())

    def forward(self, features: Tensor, prototypes: Tensor, maps: Tensor | None = None) -> Tensor:
        """Of features (B, C, h, w), prototypes (B, C) at every position, and maps (B, 2, h, w): (B, outputs, h, w).
        A constant map through a 1x1 convolution is a bias of the image: nothing is spread or joined."""
        conv, relu = self
        own, everywhere, more = conv.weight.split([features.shape[1], prototypes.shape[1], 0 if maps is None else 2], 1)
        merged = pointwise(features.float(), own) + F.linear(prototypes, everywhere[..., 0, 0])[:, :, None, None]
        return relu(merged if maps is None else merged + F.conv2d(maps, more))


class HDMNet(StartedModel):
    """HDMNet (CVPR 2023, arXiv 2303.14652).

    Symbols: f5 context feature of the base learner; q, s reduced features; p prototype; w_i correlation map of stage i
    (0 fine, 2 coarse); ψ scene distance. L = L_main + L_distill + L_base, with L_main the cross entropies of the merged
    and of the matching network's own logits. The base learner, backbone included, is trained before (base
    pre-training) and kept. All batch norms behind the backbone always use their running statistics, as published.
    Without options it computes what the authors' code computes.

    Args:
        base_classes: outputs of the base learner besides background. shots: K that the ensemble learns weights for.
        width: channels of the reduced features (256 in the paper), a multiple of 32; the transformer has a quarter of
            it, the base learner's context feature twice as many.
        stages: scales of the pyramid, 1 to 3. self_attention: whether each side attends to itself first.
        match_softmax: attention sums to one over the `"query"` positions (published) or over the `"support"` ones.
        match_temperature: of the cosines. mask_support: hide the background in the support `"image"` (published), or
            only in its `"features"`, so that cached features serve.
        distil_weight, distil_truth: of the distillation, and whether the ground truth teaches the coarsest map.
        base_weight: of the base learner's loss (constant, unless the backbone is trained).
        ensemble: merge with the base learner; off, the matching network's probabilities are the result.
        shot_weights: `"published"` (see `Ensemble`; not trained) or `"matched"` to their shots, and trained.
        shot_hidden: channels inside the weights of the shots.
        transformer_lr: learning rate of the transformer, as a part of that of all other layers.
        dropout: channel dropout of the reduced features; attention_dropout: in the transformer.
        priors: whether the prior maps reach the query and the decoder; off, they are 0.
        freeze: keep the backbone's parameters as they are. start: see `StartedModel`; of the matching network's logits.
    Maps with `explain` (B episodes, K shots, C = width): `query_features` (B, C, h, w), `pooled` (B, K, C), `prior`
    (B, 2, h, w) of f5 and of the deepest stage; by stage i `correlation/i` (B, hᵢ, wᵢ), `query/i`, `matched/i`,
    `decoded/i` (B, C / 4, hᵢ, wᵢ) and `support/i` (B, K, C / 4, hᵢ, wᵢ); `meta` (B, 2, h, w) probabilities of the
    matching network, `base` (B, 1 + base classes, h, w) those of the base learner, `base_map` (B, 1, h, w) what of them
    counts as background; `scene_distance` (B, K), `scene/background`, `scene/object`, `merged/background` (B, 1, h, w).

    Raises ModelError: an unknown choice, an impossible number, or a backbone that ends before layer3.
    """

    stem = "deep"
    official_prefixes = OFFICIAL

    def __init__(
        self, backbone: nn.Module, *, base_classes: int = 15, shots: int = 1, width: int = 256, stages: int = 3,
        self_attention: bool = True, match_softmax: Softmax = "query", match_temperature: Positive = 0.1,
        mask_support: Literal["image", "features"] = "image", distil_weight: float = 1.0, distil_truth: bool = True,
        base_weight: float = 1.0, ensemble: bool = True, shot_weights: Literal["published", "matched"] = "published",
        shot_hidden: Whole = 2, transformer_lr: float = 0.1, dropout: Share = 0.5, attention_dropout: Share = 0.1,
        priors: bool = True, freeze: bool = True, start: Start = "random",
    ):  # fmt: skip
        super().__init__(backbone, freeze=freeze)
        check_options(HDMNet, locals(), "hdmnet")
        if width % 32 or stages > len(PYRAMID):
            raise ModelError(f"hdmnet: width={width}, stages={stages}: expected a multiple of 32, and 1 to 3 stages.")
        inputs = joined_width(backbone, "hdmnet")
        self.base_head = PSPHead(backbone.channels[backbone.deepest], 2 * width, 1 + base_classes).requires_grad_(False)
        self.down_query, self.down_supp = (
            nn.Sequential(Conv2d(inputs, width, 1, bias=False), nn.ReLU(), nn.Dropout2d(dropout)) for _ in range(2)
        )
        tokens = width // 4
        self.supp_merge = Merge(2 * width, tokens)
        self.query_merge = Merge(2 * width + 2, tokens)
        how = {"temperature": match_temperature, "softmax": match_softmax, "dropout": attention_dropout}
        self.transformer = MatchingPyramid(tokens, width, stages=stages, self_attention=self_attention, **how)
        self.begin(start, self.transformer.classifier[-1])
        self.ensemble = Ensemble(shots, shot_hidden, shot_weights == "matched") if ensemble else None
        self.mask_support, self.self_attention = mask_support, self_attention
        self.distil_truth, self.transformer_lr, self.priors = distil_truth, transformer_lr, priors
        self.weights = {"main": 1.0, "distill": distil_weight, "base": base_weight}

    @property
    def base_learner(self) -> BaseLearner:
        """PSPNet of this model's backbone and head: for base pre-training, and for loading the authors' own."""
        return BaseLearner(self.backbone, self.base_head)

    def train(self, mode: bool = True) -> "HDMNet":
        """As in torch, except that batch norms behind the backbone always use their running statistics; those of the
        backbone follow its mode `bn` (as published: `"frozen"`)."""
        super().train(mode)
        inside = set(self.backbone.modules())
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module not in inside:
                module.eval()
        return self

    def lr_factor(self, name: str) -> float:
        if name.startswith("ensemble.reweight") and not self.ensemble.matched:
            return 0.0  # in no group of the authors' optimiser: it keeps its random values
        return self.transformer_lr if name.startswith("transformer.") else 1.0

    def losses(self, episode: Episode) -> dict[str, Tensor]:
        """`main`, `distill`, `base` and their weighted sum `total`.

        Raises EpisodeError without `base_masks`, or for one way without `class_index`: in training the episode's own
        class is known to the base learner, and no background.
        """
        check_annotation(episode, self.base_head.classifier[-1].out_channels - 1)
        return super().losses(episode)

    def features(self, episode: Episode) -> tuple[Features, Features]:
        """`reduced` (C = width), `deep` and `context` features of both sides (the supports' context where their objects
        are), `scene` for the ensemble, and the base learner's `base` logits; for the losses the query's `base_masks`
        and each way's `own` base class (0: none)."""
        seen = episode
        if self.mask_support == "image":
            masks = (episode.support_masks == 1).unsqueeze(3)
            seen = replace(episode, support_images=episode.support_images * masks)
        query, support = self.encode(seen, list(dict.fromkeys(["layer2", "layer3", self.backbone.deepest])))
        split = episode.support_images.shape[:3]
        query = self._side(query, self.down_query)
        flat = {stage: value.flatten(0, 2) for stage, value in support.items()}
        support = self._side(flat, self.down_supp, episode.support_masks.flatten(0, 1))
        query["base"] = self.base_head.classifier(query["context"])
        support = {name: value.unflatten(0, split) for name, value in support.items()}
        if episode.base_masks is not None:
            query["base_masks"], support["own"] = episode.base_masks, _own_classes(episode)
        return query, support

    def _side(self, stages: Features, reduce: nn.Module, masks: Tensor | None = None) -> Features:
        deepest, wanted = stages[self.backbone.deepest], None
        if masks is not None and may_wait(masks):
            # Only the prior reads the supports' context: at their objects, and without gradient.
            wanted = block_mask(masks, tuple(deepest.shape[-2:])).view(-1, *deepest.shape[-2:]) > 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze and masks is None):
            context = self.base_head.features(deepest, wanted)
        scene = resize(stages["layer2"], tuple(stages["layer3"].shape[-2:]))
        return {"reduced": reduce(joined(stages)), "deep": deepest, "context": context, "scene": scene}

    def segment(self, query: Features, support: Features, masks: Tensor, labels: Tensor | None, learn: bool) -> Outcome:
        size, image = tuple(query["reduced"].shape[-2:]), tuple(masks.shape[-2:])
        if self.self_attention and min(size) < SMALLEST:
            raise EpisodeError(
                f"query_images: found {image} pixels, a grid of {size} cells; HDMNet's self-attention needs at least "
                f"{SMALLEST} cells a side. Use larger images, a backbone of smaller stride, or self_attention=False."
            )
        objects = (masks == 1).float()
        prototypes = masked_pool(support["reduced"], resize(objects, size))
        nearest = F.interpolate(objects, tuple(support["deep"].shape[-2:]), mode="nearest")
        if self.priors:
            found = [prior_mask(query[name], support[name], nearest, stretch=False) for name in ("context", "deep")]
            prior = torch.stack([shots.mean(1) for shots in found], 1)
        else:
            prior = query["deep"].new_zeros(len(masks), 2, *query["deep"].shape[-2:], dtype=torch.float32)
        queries = self.query_merge(query["reduced"], prototypes.mean(1), PRIOR_WEIGHT * prior)
        keys = self.supp_merge(support["reduced"].flatten(0, 1), prototypes.flatten(0, 1))
        small, correlations, maps = self.transformer(queries, keys.unflatten(0, masks.shape[:2]), masks, prior)
        small = small.float() + self.first_logits(query, support, masks, tuple(small.shape[-2:]))
        meta, base = small.softmax(1), query["base"].float().softmax(1)
        others = base
        if learn:
            # The episode's class is a base class here, and no background.
            others = base.scatter(1, support["own"][:, None, None, None].expand(-1, 1, *size), 0.0)
        base_map, merged = others[:, 1:].sum(1, keepdim=True), meta
        if self.ensemble is not None:
            scenes = gram_distance(query["scene"], support["scene"])
            # Probabilities are the logits of the loss here: bfloat16 would leave them two digits.
            with torch.autocast(meta.device.type, enabled=False):
                merged, inside = self.ensemble(meta, base_map, self.ensemble.distance(scenes))
            maps |= {"scene_distance": scenes, **inside}
        logits = resize(merged, image)
        maps |= {"query_features": query["reduced"], "pooled": prototypes, "prior": prior}
        maps |= {"meta": meta, "base": base, "base_map": base_map}
        losses: dict[str, Tensor] = {}
        if learn:
            main = segmentation(logits, labels) + segmentation(resize(small, image), labels)
            distilled = correlation_distillation(labels, correlations, truth=self.distil_truth)
            known = segmentation(resize(query["base"].float(), image), query["base_masks"])
            distill = torch.stack(distilled).mean() if distilled else main.new_zeros(())
            losses = {"main": main, "distill": distill, "base": known}
            losses["total"] = sum(self.weights[name] * value for name, value in losses.items())
        return Outcome(logits, losses, maps)


def _own_classes(episode: Episode) -> Tensor:
    """(B, N) long: the base learner's channel of each way's class; 0 where a query of several ways does not show it."""
    if episode.way == 1 and episode.class_index is not None:
        return episode.class_index[:, None] + 1
    if episode.way == 1 or episode.query_masks is None:
        return torch.zeros_like(episode.classes)
    ways = torch.arange(1, episode.way + 1, device=episode.query_masks.device)[:, None, None]
    shown = (episode.query_masks[:, None] == ways) & (episode.base_masks[:, None] != IGNORE)
    return torch.where(shown, episode.base_masks[:, None], 0).amax((-2, -1))
