"""Episode: whatever is legal validates and stays legal, and every single broken field is named."""

import re
from dataclasses import fields, replace

import pytest
import torch
from core_tools import random_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib import Episode
from fsslib.errors import EpisodeError

FIELDS = [item.name for item in fields(Episode)]
sizes = st.fixed_dictionaries({
    "batch": st.integers(1, 3), "way": st.integers(1, 3), "shot": st.integers(1, 3), "height": st.integers(1, 9),
    "width": st.integers(1, 9), "seed": st.integers(0, 10**6), "extras": st.booleans(),
})  # fmt: skip


def equal(a: Episode, b: Episode) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in FIELDS]
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


@settings(max_examples=30, deadline=None)
@given(sizes, st.data())
def test_legal_episodes_validate_and_stay_legal(size, data):
    episode = random_episode(**size)
    assert episode.validate() is episode
    assert (episode.batch, episode.way, episode.shot) == (size["batch"], size["way"], size["shot"])
    count = data.draw(st.integers(1, size["shot"]))
    cut = episode.shots(count).validate()
    assert cut.shot == count and torch.equal(cut.support_images, episode.support_images[:, :, :count])
    assert torch.equal(cut.support_masks, episode.support_masks[:, :, :count])
    items = data.draw(st.lists(st.integers(0, size["batch"] - 1), min_size=1, max_size=4))
    for form in (items, tuple(items)):
        part = episode.select(form).validate()
        assert part.batch == len(items) and torch.equal(part.query_images, episode.query_images[items])
        assert torch.equal(part.classes, episode.classes[items])
    assert equal(episode.select(slice(None)).validate(), episode)
    assert equal(Episode.stack([episode.select([i]) for i in range(episode.batch)]).validate(), episode)
    assert Episode.stack([episode, episode]).validate().batch == 2 * episode.batch
    assert equal(episode.to("cpu").validate(), episode)
    replace(episode, query_masks=None).validate()


def corrupted(name: str, kind: str, episode: Episode) -> Episode:
    value = getattr(episode, name)
    if kind == "type":
        wrong = value.tolist()
    elif kind == "dtype":
        wrong = value.to(torch.float64 if value.is_floating_point() else torch.int32)
    elif kind == "ndim":
        wrong = value[None]
    elif kind == "batch":
        wrong = torch.cat([value, value[:1]])
    elif kind == "size":
        wrong = torch.cat([value, value[..., :1]], -1)
    elif value.is_floating_point():
        wrong = value.clone()
        wrong.view(-1)[-1] = float("nan")
    else:
        wrong = value.clone()
        wrong.view(-1)[-1] = -1
    return replace(episode, **{name: wrong})


@pytest.mark.parametrize("kind", ["type", "dtype", "ndim", "batch", "size", "value"])
@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=4, deadline=None)
@given(size=sizes)
def test_one_broken_field_is_named(name, kind, size):
    episode = corrupted(name, kind, random_episode(**{**size, "extras": True}))
    with pytest.raises(EpisodeError, match=rf"\b{name}\b") as caught:
        episode.validate()
    assert re.search("expected", str(caught.value)) and re.search("found", str(caught.value))


@pytest.mark.parametrize("name", ["query_images", "support_images", "support_masks", "classes"])
def test_needed_fields_cannot_be_none(name):
    with pytest.raises(EpisodeError, match=name):
        replace(random_episode(), **{name: None}).validate()


@pytest.mark.parametrize(
    ("name", "value"),
    [("query_masks", 3), ("support_masks", 2), ("query_masks", 254), ("support_masks", 256), ("base_masks", 256)],
)
def test_values_out_of_range(name, value):
    episode = random_episode(way=2, extras=True)
    getattr(episode, name).view(-1)[5] = value
    with pytest.raises(EpisodeError, match=rf"{name}.*{value}.*255"):
        episode.validate()
    episode.validate(values=False)


def test_mixed_devices_are_named():
    episode = random_episode()
    with pytest.raises(EpisodeError, match=r"support_images.*meta.*cpu.*\.to\("):
        replace(episode, support_images=episode.support_images.to("meta")).validate(values=False)


def test_empty_episode_and_wrong_requests():
    episode = random_episode(batch=2, shot=2)
    with pytest.raises(EpisodeError, match="B=0"):
        episode.select([]).validate()
    for count in (0, 3, -1):
        with pytest.raises(EpisodeError, match="1 to 2"):
            episode.shots(count)
    with pytest.raises(EpisodeError, match="at least one"):
        Episode.stack([])
    with pytest.raises(EpisodeError, match=r"support_images differs.*\(2, 1, 1, 3"):
        Episode.stack([episode, episode.shots(1)])
    with pytest.raises(EpisodeError, match=r"query_masks differs.*None"):
        Episode.stack([episode, replace(episode, query_masks=None)])


def test_an_episode_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        random_episode().query_masks = None
