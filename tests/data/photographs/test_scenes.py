"""Tasks on the photographs of scikit-image: the drawings fit the pictures, and what is missing is said."""

import numpy as np
import pytest
import torch

from fsslib.data.photographs import scenes
from fsslib.errors import DatasetError
from fsslib.widgets import strokes

here = pytest.mark.skipif(scenes.find_spec("skimage") is None, reason="scikit-image is not installed")


@here
@pytest.mark.parametrize("name", scenes.SCENES)
def test_drawings_fit_their_pictures(name):
    """Each replays to a mask of the picture's size with an object; support and query share no pixel."""
    for picture, path in zip(scenes.pictures(name), scenes.drawings(name)):
        mask = strokes.rasterise(strokes.load(path), *picture.shape[1:])
        assert picture.dtype == torch.uint8 and picture.shape[0] == 3
        assert 0.01 < (mask == 1).mean() < 0.5 and (mask == 0).any() and path.stat().st_size < 8000
    (file, one), (other, two) = scenes.SCENES[name].support, scenes.SCENES[name].query
    if file == other:
        left, top, right, bottom = zip(one, two)
        assert max(left) >= min(right) or max(top) >= min(bottom), "the same pixels on both sides"


@here
def test_outlines_lie_on_what_they_outline():
    """Coins are brighter than their ground, galaxies than the sky, nuclei darker than the tissue around them."""
    for name, brighter in (("coins", True), ("galaxies", True), ("nuclei", False)):
        grey = scenes.pictures(name)[1].float().mean(0).numpy()
        mask = strokes.rasterise(strokes.load(scenes.drawings(name)[1]), *grey.shape)
        inside, outside = grey[mask == 1].mean(), grey[mask == 0].mean()
        assert (inside - outside > 30) if brighter else (outside - inside > 30), name
        for axis in (0, 1):  # moved by a few pixels it fits less well
            moved = np.roll(mask, 4, axis)
            assert abs(grey[moved == 1].mean() - outside) < abs(inside - outside) - 3, name


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    with pytest.raises(DatasetError, match=r"'coin' is unknown.*Did you mean 'coins'"):
        scenes.drawings("coin")
    monkeypatch.setattr(scenes, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"scikit-image.*not here: pip install .fsslib\[photographs\]"):
        scenes.pictures("eye")
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(scenes, "find_spec", lambda name: found)
    with pytest.raises(DatasetError, match=r"no picture data/chelsea.png.*pip install -U scikit-image"):
        scenes.pictures("eye")
