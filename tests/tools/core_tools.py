"""Small episodes, data sets and models that the tests of the library's core share."""

import os
from functools import lru_cache, partial

import torch
from torch import nn

from fsslib import Episode, build_model, load_dataset
from fsslib.models.base import FewShotModel
from fsslib.training import Schedule

SIZE = 33


@lru_cache(maxsize=8)
def shapes(split: str = "train", pool: int = 40, seed: int = 0):
    """A Shapes-5i of 33-pixel images; drawn images are kept, so that tests share them."""
    return load_dataset("shapes", fold=0, split=split, size=SIZE, pool=pool, seed=seed, val_classes=0)


def built(method: str, seed: int = 0, backbone: str = "tiny", **options) -> FewShotModel:
    """A seeded model, in eval mode."""
    torch.manual_seed(seed)
    return build_model(method, backbone=backbone, **options).eval()


panet = partial(built, "panet")


def random_episode(batch=2, way=1, shot=1, height=SIZE, width=SIZE, seed=0, extras=False) -> Episode:
    """A legal episode of noise with every legal mask value in it."""
    g = torch.Generator().manual_seed(seed)
    query = torch.randint(0, way + 2, (batch, height, width), generator=g)
    support = torch.randint(0, 3, (batch, way, shot, height, width), generator=g)
    query[query == way + 1] = 255
    support[support == 2] = 255
    optional = {}
    if extras:
        optional["base_masks"] = torch.randint(0, 16, (batch, height, width), generator=g)
        optional["class_index"] = torch.randint(0, 15, (batch,), generator=g)
    return Episode(
        torch.randn(batch, 3, height, width, generator=g), query,
        torch.randn(batch, way, shot, 3, height, width, generator=g), support,
        torch.stack([torch.randperm(20, generator=g)[:way] + 1 for _ in range(batch)]), **optional,
    )  # fmt: skip


class Line(nn.Module):
    """y = w·x against y = 3x: training that costs nothing. The batch of step t is t."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.drop = nn.Dropout(0.5)
        self.register_buffer("moved", torch.zeros(()))

    def losses(self, batch):
        self.moved += 1
        noise = self.drop(torch.ones(4))
        return {"total": ((self.weight * noise - 3) ** 2 * (1 + batch % 3)).mean()}


def at(step):
    """The batch of a step for `Line`."""
    return torch.tensor(step)


TEN, QUIET = Schedule(steps=10, lr=0.1, warmup=2), {"name": "line", "progress": False}


def interrupted(when: int, then=lambda step: None):
    """A callback, or with `then` a loader, with Ctrl-C at step `when`."""

    def call(step, *rest):
        if step == when:
            raise KeyboardInterrupt
        return then(step)

    return call


def forked(*works) -> list[int]:
    """Call each of `works` in a process of its own, side by side; their exit statuses, 1 after an error."""
    children = []
    for work in works:
        child = os.fork()
        if not child:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
