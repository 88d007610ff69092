"""Six tasks on photographs that come with the package scikit-image. The pictures stay there; ours are the drawings.

What is marked in the support has to be found in the query. They are two views, or two crops of one picture that share
no pixel. Drawings are strokes (`fsslib.widgets.strokes`): of the support what a reader might draw, of the query the
true object, as careful outlines; 255 where nobody could say. All were drawn by eye; the coins' outlines follow the
edges in the picture, those of the right motorcycle are the left one's, moved by the disparity that comes with the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ...arguments import choose
from ...errors import DatasetError
from ...files import data_folder
from ..pictures import read_image

Box = tuple[int, int, int, int]
CURE = 'pip install "fsslib[photographs]"'


@dataclass(frozen=True)
class Scene:
    """Where the two pictures of a task come from: a file of scikit-image each, and of a crop its left, top, right and
    bottom in pixels."""

    title: str
    support: tuple[str, Box | None]
    query: tuple[str, Box | None]


SCENES = {
    "coins": Scene("one coin, then the others", ("coins.png", (0, 0, 384, 151)), ("coins.png", (0, 151, 384, 303))),
    "motorcycle": Scene("left view, then the right one", ("motorcycle_left.png", None), ("motorcycle_right.png", None)),
    "eye": Scene("one eye, then the other", ("chelsea.png", (62, 20, 257, 215)), ("chelsea.png", (257, 20, 451, 214))),
    "tissue": Scene("one gland, then the others", ("ihc.png", (0, 256, 256, 512)), ("ihc.png", (256, 256, 512, 512))),
    "nuclei": Scene("one nucleus, then others", ("ihc.png", (376, 296, 472, 392)), ("ihc.png", (160, 352, 256, 448))),
    "galaxies": Scene(
        "one galaxy, then the others",
        ("hubble_deep_field.jpg", (60, 340, 190, 470)),
        ("hubble_deep_field.jpg", (380, 25, 540, 185)),
    ),
}  # fmt: skip


def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Support and query of a scene, each (3, H, W) uint8 RGB.

    Raises DatasetError: an unknown scene; scikit-image is not installed, or a version without this picture.
    """
    choose(name, tuple(SCENES), "scene", DatasetError)
    return _cropped(*SCENES[name].support), _cropped(*SCENES[name].query)


def drawings(name: str) -> tuple[Path, Path]:
    """Files with the strokes on a scene's support and on its query, see `fsslib.widgets.strokes.load`.
    Raises DatasetError for an unknown scene."""
    choose(name, tuple(SCENES), "scene", DatasetError)
    folder = data_folder() / "strokes" / "photographs"
    return folder / f"{name}-support.json", folder / f"{name}-query.json"


def _cropped(file: str, box: Box | None) -> Tensor:
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise DatasetError(f"these photographs come with the package scikit-image, which is not here: {CURE}.")
    # Reading the file itself spares the import of scikit-image, which takes a second.
    path = Path(package.submodule_search_locations[0]) / "data" / file
    if not path.is_file():
        raise DatasetError(
            f"this scikit-image has no picture data/{file}; a newer one has: pip install -U scikit-image."
        )
    left, top, right, bottom = box or (0, 0, None, None)
    return torch.from_numpy(read_image(path)[top:bottom, left:right]).permute(2, 0, 1).contiguous()
