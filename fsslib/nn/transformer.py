"""The attention blocks of HDMNet (arXiv 2303.14652): a pyramid of self-attention, and masked correlation."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import full_precision

EPS_NORM = 1e-6  # of every layer norm
EPS_UNIT = 1e-12  # lower limit of the norms of queries and keys in the correlation
EPS_COUNT = 1e-9
SMALL = 2**16  # pairs of a query and a key, up to which a CPU multiplies matrices one after the other


class Attention(nn.Module):
    """Multi-head self-attention, optionally with spatially reduced keys and values (PVT, arXiv 2102.12122).

    Args:
        width: channels, a multiple of `heads`. heads: number of heads; each takes a contiguous block of channels.
        reduction: side of the squares of cells that are merged into one key. dropout: of the output.
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
        source = tokens
        if self.reduce is not None:
            source = self.norm(to_tokens(self.reduce(to_map(tokens, size))))
        query, key, value = self.project(tokens, source)
        scale = 1 / (math.sqrt(query.shape[-1]) + EPS_COUNT)
        return self.join(attend(query, key, value, scale))

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
    nothing in both.

    Args:
        width, heads, dropout: see `Attention`. temperature: of the cosines. softmax: axis.
    """

    def __init__(
        self, width: int, heads: int = 2, dropout: float = 0.1, temperature: float = 0.1, softmax: str = "query"
    ):
        super().__init__(width, heads, 1, dropout)
        self.temperature, self.softmax = temperature, softmax

    def forward(self, tokens: Tensor, source: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the query receives (B, L, C), and the correlation map (B, L), the mean of S over object and heads.

        Args:
            tokens: (B, L, C) of the query. source: (B, M, C) of the support. masks: (B, M) float 0 or 1.
        """
        query, key, value = self.project(tokens, source)
        found, weight = correlate(query, key, value, masks, self.temperature, self.softmax)
        return self.join(found.to(tokens.dtype)), weight


@full_precision
def correlate(
    query: Tensor, key: Tensor, value: Tensor, masks: Tensor, temperature: float, softmax: str
) -> tuple[Tensor, Tensor]:
    """Attention of the object positions only, and the correlation map without the matrix of all pairs.

    Args:
        query: (B, heads, L, C) float. key, value: (B, heads, M, C) float. masks: (B, M) float 0 or 1.
        temperature, softmax: see `Correlation`.
    Returns: (B, heads, L, C) and (B, L), float32; both 0 for an empty mask.
    """
    masks = masks.float()
    query, key = F.normalize(query.float(), dim=-1, eps=EPS_UNIT), F.normalize(key.float(), dim=-1, eps=EPS_UNIT)
    # The mean over the object comes first, since the cosine is linear in the unit keys.
    mean = (key * masks[:, None, :, None]).sum(2) / (masks.sum(1) + EPS_COUNT)[:, None, None]
    weight = (query @ mean[..., None]).squeeze(-1).mean(1) / temperature
    # Only the object's positions attend; one synchronisation tells how many the largest object has.
    most = max(1, int(masks.sum(1).max()))
    order = masks.argsort(dim=-1, descending=True, stable=True)[:, :most]
    valid = masks.gather(1, order)[:, None, :, None]
    index = order[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[-1])
    scores = key.gather(2, index) @ query.transpose(-2, -1) / temperature
    # A large number instead of infinity, for objects without any position.
    attention = scores.softmax(-1) if softmax == "query" else scores.masked_fill(valid == 0, -1e9).softmax(-2)
    return (attention * valid).transpose(-2, -1) @ value.float().gather(2, index), weight


class MixFFN(nn.Sequential):
    """SegFormer's feed-forward part (arXiv 2105.15203): 1x1, depthwise 3x3 (the only sign of position), GELU, 1x1."""

    def __init__(self, width: int, ratio: int = 4, dropout: float = 0.1):
        hidden = ratio * width
        super().__init__(
            nn.Conv2d(width, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, width, 1),
            nn.Dropout(dropout),
        )


class EncoderLayer(nn.Module):
    """Attention and MixFFN, each behind a layer norm and beside an identity path.

    Args:
        attention: an `Attention` (the layer then attends to its own tokens) or a `Correlation` (to a support).
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
        found, weight = self.attention(self.norm1(tokens), self.norm1(source), masks)
        return self._mix(tokens + found, size), weight

    def _mix(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return tokens + to_tokens(self.ffn(to_map(self.norm2(tokens), size)))


class Stage(nn.Module):
    """One stage of the self-attention pyramid: patch embedding, encoder layers, layer norm.

    Args:
        width: channels. heads, reduction: of the attention. step: cells that the embedding strides over.
        layers: number of encoder layers; 0 leaves only the embedding (no self-attention).
    """

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
