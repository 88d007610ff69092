"""What `tools/bench.py` times: it runs this file in a process of its own for every revision of the library.

A request is a line: a cell, e.g. `training panet 1`; an answer is one of JSON. When a cell has warmed up, every `go` is
one repetition, and anything else ends it. Only what all revisions since 0cb37ca offer is used, so that they can be
compared: the public names, `recipe.model` (how a model is laid out in memory) and `FewShotModel.encode`.
"""

import contextlib
import gc
import itertools
import json
import math
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import conv2d, interpolate
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import fsslib
from fsslib import Episode, Protocol, evaluate, load_dataset, pretraining, training
from fsslib.data.base import SegmentationDataset
from fsslib.data.episodes import EpisodeSampler
from fsslib.experiments import check_parameters
from fsslib.training import Schedule

try:
    from fsslib.experiments import recipe
    from fsslib.models.base import evaluating
except ImportError:  # as they were in 0cb37ca
    from fsslib.costs import _evaluation as evaluating

    from fsslib import recipe

# Method -> backbone, pixels a side with one shot and with five, episodes in a training step, deepest stage.
METHODS = {
    "panet": ("vgg16", 417, 321, 1, "layer4"), "sdaanet": ("resnet50", 321, 321, 2, "layer4"),
    "asgnet": ("resnet50", 321, 321, 2, "layer3"), "hdmnet": ("resnet50", 321, 321, 2, "layer4"),
}  # fmt: skip
# The trainings from scratch of `make reports`.
SHAPES = {"checkpoint": None, "pretrain_steps": 1500, "episodic_steps": 900, "lr": 2e-3}
SHAPES |= {"options": {"backbone_options": {"stride": 8}}, "data_options": {"pool": 600}}
SMALLER = {"scales": [1.0, 0.5, 0.25, 0.125], "dropout": 0.1, **SHAPES["options"]}
SHAPES_METHODS = {"panet": {}, "sdaanet": {"width": 32, "lr": 4e-3, "options": SMALLER}}
LAST = torch.channels_last
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": LAST}
ENDLESS = 10**6
HEIGHT, WIDTH = 375, 500  # of a photograph
EPISODES = 16  # in one call of `evaluate`
DRAWN = 20  # images of Shapes-5i in a repetition


class Stop(Exception):
    """Nobody wants another repetition."""


class Bench:
    """The settings, the clock, and this end of the conversation.

    Args:
        settings: device; data: a VOC folder or None; backbone, size: in place of every method's own, or None.
        answers: where they are written.
    """

    def __init__(self, settings: dict, answers):
        self.settings, self.answers = settings, answers
        self.device = torch.device(settings["device"])
        side = 8192 if self.device.type == "cuda" else 1024
        self.square = torch.rand(side, side, device=self.device)
        shapes = (side // 1024, 256, 60, 60), (256, 256, 3, 3)
        self.grid, self.kernel = (torch.rand(shape, device=self.device).to(memory_format=LAST) for shape in shapes)

    def now(self) -> float:
        """CPU seconds of this process; with a GPU those of a clock, once it has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    def ceilings(self) -> dict[str, float]:
        """GFLOP/s of a large matrix product and of a large 3 x 3 convolution, now: the clock rate of a processor and
        its neighbours change. Two, as their libraries may use other instructions."""
        found, runs = {}, {"mm": (lambda: self.square @ self.square, 2 * len(self.square) ** 3)}
        run = partial(conv2d, self.grid, self.kernel, padding=1)
        runs["convolution"] = run, 18 * self.grid.numel() * len(self.kernel)
        for name, (run, operations) in runs.items():
            run()
            began = self.now()
            for _ in range(2):
                run()
            found[name] = 2e-9 * operations / (self.now() - began)
        return found

    def say(self, **facts) -> None:
        """Answer with one line."""
        print(json.dumps(facts), file=self.answers, flush=True)

    def wait(self) -> dict[str, float]:
        """Until a repetition is wanted; returns the ceilings at that time. Raises Stop when none is."""
        if sys.stdin.readline().strip() != "go":
            raise Stop
        return self.ceilings()

    def peak(self) -> int:
        """Bytes that this process has held at most."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def accelerator(self) -> str:
        """What a Schedule calls the device."""
        return "gpu" if self.device.type == "cuda" else "cpu"

    def size(self, method: str, shot: int) -> int:
        """Pixels a side."""
        return self.settings["size"] or METHODS[method][1 if shot == 1 else 2]

    def model(self, method: str, shot: int = 1):
        """The method with random weights as an experiment would have it: the recipe decides how it lies in memory."""
        backbone = self.settings["backbone"] or METHODS[method][0]
        given = {"method": method, "backbone": backbone, "train_shot": shot}
        given |= {"checkpoint": None, "pretrain_steps": 1}  # no experiment keeps a random backbone as it is
        built = recipe.model(check_parameters(given | {"accelerator": self.accelerator()}))
        return built.to(self.device)

    def sampler(self, method: str, shot: int, augment: bool = False) -> EpisodeSampler:
        """Episodes of made-up photographs, loaded as the method's paper has it."""
        size = self.size(method, shot)
        rules = Protocol.published(method, input_size=size, train_size=size)
        return EpisodeSampler(Pictures(), rules, shot=shot, augment=augment)


class Pictures(SegmentationDataset):
    """`count` pictures in memory with one or two ellipses of class 1 to 4 that fill 15 % of them."""

    name, fold, split = "pictures", 0, "train"
    classes, base_classes = (1, 2, 3, 4), tuple(range(1, 16))

    def __init__(self, count: int = 24):
        self.names = {number: str(number) for number in range(1, 21)}
        self.kept = [picture(index) for index in range(count)]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.kept[index]

    def images_of(self, cls: int) -> list[int]:
        return list(range(cls - 1, len(self), len(self.classes)))

    def signature(self) -> str:
        return f"{len(self)} pictures"


@lru_cache
def picture(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft colours with some noise (3, H, W) uint8, and the mask (H, W) uint8 of its object, of class 1 + index % 4."""
    rng = np.random.default_rng(index)
    colours = torch.from_numpy(rng.random((1, 3, 9, 12), np.float32))
    soft = interpolate(colours, (HEIGHT, WIDTH), mode="bicubic")[0]
    noise = torch.from_numpy(rng.normal(0, 0.02, (3, HEIGHT, WIDTH)).astype(np.float32))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask, count = np.zeros((HEIGHT, WIDTH), bool), 1 + index % 2
    for blob in range(count):
        tall = math.sqrt(0.15 / count * HEIGHT * WIDTH / math.pi) * rng.uniform(0.8, 1.25)
        wide = 0.15 / count * HEIGHT * WIDTH / math.pi / tall
        centre = HEIGHT * rng.uniform(0.4, 0.6), WIDTH * (blob + 1) / (count + 1)
        mask |= ((y - centre[0]) / tall) ** 2 + ((x - centre[1]) / wide) ** 2 < 1
    mask = torch.from_numpy(mask.astype(np.uint8)) * (1 + index % 4)
    return ((soft + noise).clamp(0, 1) * 255).byte(), mask


class Watch:
    """Seconds of a repetition by part, and operations of one pass.

    Parts: `forward`, the backbone's calls with the cutting and joining around them; `backward`, from the first gradient
    that reaches their results to the end of the pass (autograd runs what was computed last first); `loading`. What is
    left are the heads; in training with clipping and the optimiser.
    """

    def __init__(self, bench: Bench, model=None):
        self.bench, self.model = bench, model
        self.spent, self.operations, self.facts = Counter(), Counter(), {}
        self.inside, self.reached, self.counter = "", None, None

    def __enter__(self) -> "Watch":
        self.undo = contextlib.ExitStack()
        if self.model is not None:
            for owner, name in ((self.model, "encode"), (self.model.backbone, "deeper")):
                self.undo.enter_context(patch.object(owner, name, self._watched(getattr(owner, name))))
            backward = self._backward(torch.autograd.backward)
            self.undo.enter_context(patch.object(torch.autograd, "backward", backward))
        return self

    def __exit__(self, *_) -> None:
        self.undo.close()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done inside belongs to this part, unless it is inside another one already."""
        if self.inside:
            yield
            return
        self.inside, began, before = name, self.bench.now(), self._counted()
        try:
            yield
        finally:
            self.spent[name] += self.bench.now() - began
            self.operations[name] += self._counted() - before
            self.inside = ""

    def _counted(self) -> int:
        return self.counter.get_total_flops() if self.counter else 0

    def _watched(self, call: Callable) -> Callable:
        def watched(*args, **how):
            with self.part("forward"):
                found = call(*args, **how)
            for leaf in tree_leaves(found):
                if leaf.requires_grad:
                    leaf.register_hook(self._arrived)
            return found

        return watched

    def _arrived(self, gradient: torch.Tensor) -> None:
        if self.reached is None:
            self.reached = self.bench.now()

    def _backward(self, backward: Callable) -> Callable:
        def watched(*args, **how):
            self.reached = None
            backward(*args, **how)
            if self.reached is not None:
                self.spent["backward"] += self.bench.now() - self.reached

        return watched

    def count(self, run: Callable[[], object]) -> None:
        """Count the operations (two for a multiply-accumulate) of `run`, which warms up at the same time."""
        with FlopCounterMode(display=False) as self.counter:
            run()
        self.facts = {"gflop": self._counted() / 1e9, "backbone_gflop": self.operations["forward"] / 1e9}
        self.counter = None

    def begin(self) -> None:
        """Wait for a repetition, and start its clock."""
        self.facts |= self.bench.wait()
        self.spent.clear()
        self.began = self.bench.now()

    def answer(self, count: int = 1) -> None:
        """Say what the repetition took for each of the `count` things that were done in it."""
        total = self.bench.now() - self.began
        seconds = {"total": total, **self.spent}
        if self.model is not None:
            seconds["total"] -= self.spent["loading"]
            seconds |= {name: self.spent[name] for name in ("forward", "backward")}
            seconds["heads"] = seconds["total"] - seconds["forward"] - seconds["backward"]
        self.bench.say(**{name: value / count for name, value in seconds.items()}, **self.facts)

    def repeat(self, run: Callable[[], object], count: int = 1) -> NoReturn:
        """One `run` a repetition, in which `count` things are done."""
        self.bench.say(ready=True)
        while True:
            self.begin()
            run()
            self.answer(count)

    def train(self, fit: Callable, steps: int = 1) -> Callable:
        """`fit`, with a repetition for every `steps` steps after the first."""

        def done(step: int, model) -> None:
            if step % steps == 0:
                self.answer(steps) if step else self.bench.say(ready=True)
                self.begin()

        def watched(model, batch_at, schedule, **how):
            def loaded(step: int):
                with self.part("loading"):
                    return batch_at(step)

            return fit(model, loaded, schedule, **how | {"progress": False, "callback": done})

        return watched


def training_step(bench: Bench, method: str, shot: str) -> None:
    """Steps of `fit` on one and the same episode (the work depends on its masks), and the loading of augmented ones."""
    model, episode, schedule = _training(bench, method, int(shot))
    sampler = bench.sampler(method, int(shot), augment=True)

    def batch_at(step: int) -> Episode:
        sampler.batch(step, schedule.batch)
        return episode

    with Watch(bench, model.train()) as watch:
        watch.count(lambda: model.losses(episode.to(bench.device))["total"].backward())
        watch.train(training.fit)(model, batch_at, schedule, name="bench")


def _training(bench: Bench, method: str, shot: int, steps: int = ENDLESS) -> tuple:
    model, sampler, batch = bench.model(method, shot), bench.sampler(method, shot), METHODS[method][3]
    schedule = Schedule(steps, batch=batch, lr=1e-6, accelerator=bench.accelerator())
    return model, sampler.build(sampler.fixed(batch).specs), schedule


def evaluated_episode(bench: Bench, method: str, shot: str) -> None:
    """One episode in evaluation, and its loading."""
    model, sampler = bench.model(method, int(shot)), bench.sampler(method, int(shot))
    specs = sampler.fixed(1).specs
    episode = sampler.build(specs).to(bench.device)
    with evaluating(model), Watch(bench, model) as watch:

        def run() -> None:
            with watch.part("loading"):
                sampler.build(specs)
            model(episode)

        watch.count(lambda: model(episode))
        watch.repeat(run)


def bare_backbone(bench: Bench, method: str, task: str) -> None:
    """The backbone alone on the images of a training step, or on six, in both layouts and cut into calls."""
    learn, stage = task == "training", METHODS[method][4]
    count, shot = (2 * METHODS[method][3], 1) if learn else (6, 5)
    backbone, watch = bench.model(method).backbone.train(learn), Watch(bench)
    images = torch.randn(count, 3, *2 * (bench.size(method, shot),), device=bench.device)

    def run(pictures: torch.Tensor, size: int) -> None:
        for part in pictures.split(size):
            found = backbone(part, [stage])[stage]
            if found.requires_grad:
                found.backward(torch.ones_like(found))

    with torch.set_grad_enabled(learn):
        watch.count(lambda: run(images, 1))
        bench.say(ready=True)
        while True:
            ceilings, seconds = bench.wait(), {}
            for (name, layout), size in itertools.product(LAYOUTS.items(), sorted({1, 2, count})):
                backbone.to(memory_format=layout).zero_grad()
                pictures = images.to(memory_format=layout)
                began = bench.now()
                run(pictures, size)
                seconds[f"{name} by {size}"] = bench.now() - began
            bench.say(**seconds, **watch.facts, **ceilings)


def whole_evaluation(bench: Bench, cache: str) -> None:
    """`evaluate` with ASGNet and one shot on twelve pictures, which recur."""
    model, data = bench.model("asgnet"), Pictures(12)
    rules = Protocol.pascal5i(input_size=bench.size("asgnet", 1), episodes=EPISODES, seeds=(0,))
    how = {"cache": None if cache == "none" else cache, "progress": False}
    evaluate(model, data, rules.replace(episodes=1), **how)
    Watch(bench).repeat(lambda: evaluate(model, data, rules, **how), EPISODES)


def photograph_loader(bench: Bench, method: str) -> None:
    """Training batches of 16 episodes, 32 photographs, with the published augmentation."""
    rules = Protocol.published(method, input_size=bench.size(method, 1), train_size=bench.size(method, 1))
    root = bench.settings["data"] or made_up_photographs()
    data = load_dataset("pascal", root=root, val_classes=0, min_area=rules.area_filter, cache=False)
    sampler, steps = EpisodeSampler(data, rules, augment=True), itertools.count()
    sampler.batch(ENDLESS, 1)
    Watch(bench).repeat(lambda: sampler.batch(next(steps), 16), 32)


def made_up_photographs() -> Path:
    """A VOC folder of 32 pictures, among the temporary files that go with this process."""
    root = Path(tempfile.mkdtemp())
    os.environ["FSSLIB_CACHE"] = str(root / "cache")  # of the index of its labels
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for index in range(32):
        image, mask = picture(index)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"JPEGImages/{index}.jpg", quality=90)
        Image.fromarray((mask + 5 * (mask > 0)).byte().numpy()).save(root / f"SegmentationClass/{index}.png")
    for part, ids in (("train", range(31)), ("val", [31])):
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(map(str, ids)))
    return root


def shapes_training(bench: Bench, method: str, stage: str) -> None:
    """Ten steps at a time of a training from scratch on Shapes-5i, whose images are drawn and kept already."""
    p = check_parameters({**SHAPES, **SHAPES_METHODS[method], "method": method, "accelerator": bench.accelerator()})
    net, (data, _) = recipe.model(p), recipe.datasets(p)
    for index in range(len(data)):
        data[index]
    watch = Watch(bench)
    with contextlib.ExitStack() as patches:
        for module in (training, pretraining):
            patches.enter_context(patch.object(module, "fit", watch.train(module.fit, 10)))
        recipe.train(p, net, data, stage=stage)


def shapes_drawing(bench: Bench) -> None:
    """Twenty images of Shapes-5i at a time, drawn."""
    data = load_dataset("shapes", cache=False)
    indices = itertools.cycle(range(len(data)))
    Watch(bench).repeat(lambda: [data[next(indices)] for _ in range(DRAWN)], DRAWN)


def memory(bench: Bench, method: str, task: str, shot: str) -> None:
    """MiB that this process, which must be new, has grown by: in all, and after model and episode were there."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    begun = bench.peak()
    model, episode, schedule = _training(bench, method, int(shot), steps=2)
    if task == "evaluation":
        sampler = bench.sampler(method, int(shot))
        episode = sampler.build(sampler.fixed(1).specs).to(bench.device)
    built = bench.peak()
    if task == "evaluation":
        with evaluating(model):
            model(episode)
    else:
        training.fit(model, lambda step: episode, schedule, name="bench", progress=False)
    bench.say(mib=(bench.peak() - begun) / 2**20, passes_mib=(bench.peak() - built) / 2**20)


CELLS = {
    "training": training_step, "evaluation": evaluated_episode, "backbone": bare_backbone, "evaluate": whole_evaluation,
    "loader": photograph_loader, "shapes": shapes_training, "drawing": shapes_drawing, "memory": memory,
}  # fmt: skip


def main() -> None:
    """Say what is measured, then answer requests until there are no more."""
    settings = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not get between the answers
    torch.set_num_threads(settings["threads"])
    bench = Bench(settings, answers)
    bench.say(fsslib=str(Path(fsslib.__file__).parents[1]), torch=torch.__version__)
    while request := sys.stdin.readline().split():
        try:
            CELLS[request[0]](bench, *request[1:])
        except Stop:
            bench.say(stopped=True)
        except Exception as error:
            traceback.print_exc()
            bench.say(error=f"{type(error).__name__}: {error}")
        gc.collect()


if __name__ == "__main__":
    main()
