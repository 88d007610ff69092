"""An object of a support that has no pixel left at the network's size is said once, with its image and class."""

import warnings

import numpy as np
import pytest
import torch
from core_tools import panet
from PIL import Image

from fsslib import EpisodeSampler, Protocol, load_dataset, segment
from fsslib.data.transforms import Resize
from fsslib.inference import supports
from fsslib.widgets.episode_controls import EpisodeControls

SIZE = 33


def folder(root, tiny=3, count=4):
    """Photographs of 400 x 300 with a cat; in the first `tiny` it is 2 x 2 pixels, between those that are kept."""
    (root / "cat").mkdir()
    for at in range(count):
        Image.new("RGB", (400, 300), (9 * at, 50, 90)).save(root / "cat" / f"p{at}.jpg")
        mask = np.zeros((300, 400), np.uint8)
        mask[50 : 52 if at < tiny else 200, 50 : 52 if at < tiny else 200] = 255
        Image.fromarray(mask).save(root / "cat" / f"p{at}.png")
    return load_dataset("folder", root=root, split="test")


def by_segment(data, count):
    images, masks = zip(*(data[at] for at in range(count)))
    return segment(images[0], list(images), [mask == 1 for mask in masks], model=panet(), size=SIZE)


def by_sampler(data, count):
    sampler = EpisodeSampler(data, Protocol(input_size=SIZE), shot=1)
    specs = [spec for spec in (sampler.draw(0, at) for at in range(60)) if spec.supports[0][0] < count]
    for spec in specs:  # most of them again and again
        sampler.build([spec])
    assert {image for image, _ in sampler.vanished} == set(range(min(count, 3)))


def by_augmented_sampler(data, count):
    sampler = EpisodeSampler(data, Protocol(input_size=SIZE), shot=1, augment=True)
    for step in range(40):
        sampler.batch(step, 1)


def by_controls(data, count):
    picks = EpisodeControls(data, size=SIZE, shots=count)
    picks.prepare(None)
    picks.episode()
    picks.episode()


DOORS = {"segment": by_segment, "sampler": by_sampler, "augmented": by_augmented_sampler, "controls": by_controls}


@pytest.mark.parametrize("door", DOORS)
def test_it_is_said_once_with_image_and_class(tmp_path, door):
    data = folder(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        DOORS[door](data, 3)
    texts = [str(warning.message) for warning in said if "none is left" in str(warning.message)]
    assert len(texts) == len(set(texts)) == 3, texts
    for text in texts:
        assert "4 pixels of 400x300" in text and "33 pixels a side" in text and "Crop the picture" in text
        assert "'object'" in text if door == "segment" else "cat" in text and "image " in text
    if "sampler" in door:
        assert all(f"(cat/p{at})" in "".join(texts) for at in range(3))


@pytest.mark.parametrize("door", DOORS)
def test_objects_that_stay_are_not_mentioned(tmp_path, door):
    data = folder(tmp_path, tiny=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        if door != "sampler":
            DOORS[door](data, 3)


def test_the_size_that_is_advised_is_enough():
    mask = torch.zeros(1500, 2000, dtype=torch.uint8)
    mask[700:703, 900:905] = 1
    image = torch.zeros(3, 1500, 2000, dtype=torch.uint8)
    for mode in ("squash", "pad"):
        with pytest.warns(UserWarning, match="none is left") as said:
            supports(Resize(97, mode), [image], [mask])
        size = int(str(said[0].message).split("about ")[1].split(")")[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (supports(Resize(size, mode), [image], [mask])[1] == 1).any()


def test_many_images_make_few_warnings(tmp_path):
    sampler = EpisodeSampler(folder(tmp_path, tiny=9, count=9), Protocol(input_size=SIZE))
    with pytest.warns(UserWarning, match=r"counted in \.vanished") as said:
        sampler.build([sampler.draw(0, at) for at in range(40)])
    assert len(said) == 5 and len(sampler.vanished) == 9
