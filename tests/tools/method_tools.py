"""All methods on a tiny backbone, and episodes for them: what the tests of several methods share."""

from dataclasses import replace

import asgnet_tools
import hdmnet_tools
import sdaanet_tools
import torch
from core_tools import panet, random_episode
from hdmnet_tools import everything as everything  # for every method

from fsslib import Episode

ONE_WAY = {"sdaanet": sdaanet_tools, "asgnet": asgnet_tools, "hdmnet": hdmnet_tools}
TINY = {"panet": panet} | {method: tools.tiny for method, tools in ONE_WAY.items()}
LOSSES = {"panet": ("query", "align", "total")} | {method: tools.LOSSES for method, tools in ONE_WAY.items()}


def legal(method: str, *shape, seed: int = 0) -> Episode:
    """As `random_episode`, with all that the losses of the method ask for; of several ways no class index."""
    episode = random_episode(*shape, seed=seed, extras=method == "hdmnet")
    return replace(episode, class_index=None) if episode.way > 1 else episode


def differing(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The names, the same in both, of the values that are not equal to the bit."""
    assert before.keys() == after.keys()
    return {n for n, value in before.items() if value.shape != after[n].shape or not torch.equal(value, after[n])}


def one_way(episode: Episode, way: int) -> Episode:
    """Way `way` of an episode as an episode of its own; the other ways are background."""
    labels = torch.where(episode.query_masks == 255, 255, (episode.query_masks == way + 1).long())
    parts = {name: getattr(episode, name)[:, [way]] for name in ("support_images", "support_masks", "classes")}
    if episode.base_masks is not None:
        shown = torch.where((labels == 1) & (episode.base_masks != 255), episode.base_masks, 0).amax((1, 2))
        assert (shown > 0).all()
        parts["class_index"] = shown - 1
    return replace(episode, query_masks=labels, **parts)


def of_shots(episode: Episode, shots: list[int]) -> Episode:
    """The episode with these of its support images."""
    parts = {name: getattr(episode, name)[:, :, shots] for name in ("support_images", "support_masks")}
    return replace(episode, **parts)


def blind(episode: Episode) -> Episode:
    """The episode without anything that only losses ask for."""
    return replace(episode, query_masks=None, base_masks=None, class_index=None)


SPOILED = ("an empty support", "empty supports", "void supports", "full supports", "void query", "empty query")


def spoiled(method: str, what: str) -> Episode:
    """An episode with one thing missing: one of `SPOILED`, or a void base annotation."""
    episode = legal(method, 2, 1, 2)
    supports, query, base = episode.support_masks.clone(), episode.query_masks.clone(), episode.base_masks
    if "support" in what:
        supports[:, :, : 1 if "an empty" in what else 2] = {"full": 1, "void": 255}.get(what.split()[0], 0)
    elif "query" in what:
        query[query == 1] = 0
        query[:] = 255 if "void" in what else query
    else:
        base = torch.full_like(base, 255)
    return replace(episode, support_masks=supports, query_masks=query, base_masks=base)
