"""Measures what single choices of an evaluation move in mIoU, for `data/results/protocol-lab.json`.

python tools/protocol_lab.py shapes                     on Shapes-5i, with shipped weights
python tools/protocol_lab.py photographs ROOT WEIGHTS   on PASCAL photographs, with frozen ImageNet features
python tools/protocol_lab.py table                      this and tools/protocol_trainings.py, in one file

ROOT is a VOC2012 folder, WEIGHTS a torchvision ResNet-18 with ImageNet weights. Finished evaluations are kept in
`runs/protocol-lab` and not computed again.
"""

import json
import operator
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from fsslib import Protocol, build_model, evaluate, files, load_dataset, load_model
from fsslib.analysis.intervals import apart, over_folds
from fsslib.checkpoints import shipped
from fsslib.data.shapes.dataset import Shapes5i
from fsslib.evaluation import Evaluation
from fsslib.experiments import recipe
from fsslib.metrics import Scores
from fsslib.models.base import FewShotModel
from fsslib.models.shot_by_shot import MEAN, VOTE
from fsslib.nn.backbones.cached import MemoryStore

RUNS = files.repository_folder() / "runs" / "protocol-lab"
TARGET = files.data_folder() / "results" / "protocol-lab.json"
SIZE, FOLDS = 241, (1, 2, 3)  # of the photographs; fold 0 needs classes that small subsets of VOC lack
# The share of the picture that 2,048 pixels are in VOC's 500 x 375: where the long side is 336 px (and 103 at 97 px).
AREA = 925
# switch -> (setting, shots, what changes: options of the protocol and of the data set, or the reference's own scores).
# Settings of `published` take the whole protocol of that paper.
COMMON = {
    "image-wise IoU": ("mean of single episodes", (1, 5), {"score": "image"}),
    "K-merge: vote": (VOTE, (5,), {"protocol": {"k_merge": VOTE}}),
    "K-merge: mean": (MEAN, (5,), {"protocol": {"k_merge": MEAN}}),
    "queries: every image": ("every_image", (1,), {"protocol": {"queries": "every_image"}}),
    "another list": ("seed 1", (1,), {"protocol": {"seeds": (1,)}}),
    "absent targets": ("30 %", (1,), {"protocol": {"absent": 0.3}}),
}
PHOTOGRAPHS = COMMON | {
    "label size": ("input", (1, 5), {"protocol": {"label_size": "input"}}),
    "area filter": (f"{AREA} px", (1, 5), {"dataset": {"min_area": AREA}}),
    "area filter, unscaled": ("2048 px", (1,), {"dataset": {"min_area": 2048}}),
    "padding": ("pad", (1, 5), {"protocol": {"resize": "pad"}}),
    "folds: interleaved": ("every fourth class", (1,), {"dataset": {"fold_scheme": "interleaved"}}),
    "published: panet": ("panet", (1, 5), {"published": "panet"}),
    **{f"published: {m}": (m, (1,), {"published": m}) for m in ("asgnet", "sdaanet", "hdmnet")},
}
SHAPES = COMMON | {
    # The same scenes, drawn twice as large as the input of the network.
    "drawn larger": (
        "193 px, label original",
        (1,),
        {"dataset": {"size": 193}, "protocol": {"label_size": "original"}},
    ),
    "label size": ("input", (1,), {"dataset": {"size": 193}, "against": "drawn larger"}),
    # At the standard difficulty no object is smaller than the filter.
    "small objects": ("half the radius", (1,), {"dataset": {"knobs": {"area": 0.5}}}),
    "area filter": ("103 px", (1,), {"dataset": {"knobs": {"area": 0.5}, "min_area": 103}, "against": "small objects"}),
    "two ways": ("2-way", (1,), {"protocol": {"way": 2}}),
    "two ways, present only": ("present", (1,), {"protocol": {"way": 2, "counting": "present"}, "against": "two ways"}),
}


def protocol_of(data: str, changes: Mapping, episodes: int = 1000) -> Protocol:
    """The reference protocol with `changes`: `{"protocol": fields}` or `{"published": method}`."""
    if data == "shapes":
        return Protocol.shapes5i(episodes=episodes, **changes.get("protocol", {}))
    own = {"input_size": SIZE, "episodes": episodes, "seeds": (0,)}
    if method := changes.get("published"):
        filtered = {"area_filter": AREA} if Protocol.published(method).area_filter else {}
        return Protocol.published(method, **own, **filtered)
    return Protocol.pascal5i(**own | changes.get("protocol", {}))


def image_gain(scores: Scores, draws: int = 500) -> tuple[float, float, float]:
    """Image-wise minus class-wise IoU of the same counts, and its 95 % interval."""

    def gap(picks) -> float:
        part = Scores(scores.table[picks], scores.classes[picks], scores.runs[picks])
        return part.image_iou - part.miou

    drawn = np.random.default_rng(0).integers(len(scores.runs), size=(draws, len(scores.runs)))
    return (gap(slice(None)), *np.quantile([gap(picks) for picks in drawn], [0.025, 0.975]).tolist())


def measured(name: str, compute: Callable[[], Evaluation]) -> Evaluation:
    """An evaluation, computed once and kept."""
    kept = RUNS / f"{name.replace(':', '').replace(',', '').replace(' ', '-')}.npz"
    if not kept.is_file():
        RUNS.mkdir(parents=True, exist_ok=True)
        compute().save(kept)
        print(kept.stem, {k: round(100 * s.miou, 1) for k, s in Evaluation.load(kept).scores.items()}, flush=True)
    return Evaluation.load(kept)


def rows(data: str, switches: Mapping, score: Callable[[str, int, Mapping, tuple], Evaluation], folds) -> list[dict]:
    """One row for every switch and number of shots: difference to the reference, each fold and their mean."""
    found = []
    base = {f: score("reference", f, {}, (1, 5)) for f in folds}
    known = {"reference": base}
    for switch, (setting, shots, changes) in switches.items():
        reference, own_folds = known[changes.get("against", "reference")], folds
        if changes.get("dataset", {}).get("fold_scheme"):
            own_folds = range(4)
        own = base if changes.get("score") else {f: score(switch, f, changes, shots) for f in own_folds}
        known[switch] = own
        for k in shots:
            scores, others = ([e.scores[k] for e in entry.values()] for entry in (own, reference))
            hashes = ([e.protocol.list_hash for e in entry.values()] for entry in (own, reference))
            paired = operator.eq(*hashes)
            if changes.get("score"):
                each = [image_gain(s) for s in scores]
            elif paired:
                each = [a.difference(b) for a, b in zip(scores, others)]
            else:
                sides = [[(s.miou, *s.interval()) for s in side] for side in (scores, others)]
                each = [apart(a, b) for a, b in zip(*sides)]
            unlike = not paired and len(scores) != len(others)
            gain = apart(*map(over_folds, sides)) if unlike else over_folds(each)
            row = {"data": data, "switch": switch, "setting": setting, "shots": k, "paired": paired}
            row |= {"difference": percent(gain), "per_fold": [] if unlike else [percent(x) for x in each]}
            row["miou"] = percent([s.image_iou if changes.get("score") else s.miou for s in scores])
            row |= {"changes": changes, "lists": [e.protocol.list_hash for e in own.values()]}
            if data == "photographs":
                row["protocol"] = next(iter(own.values())).protocol.as_dict()
            elif not changes.get("score"):
                row["first_200"] = _first(own[0].scores[k])
            found.append(row)
    whole = {k: [(e.scores[k].miou, *e.scores[k].interval()) for e in base.values()] for k in (1, 5)}
    card = next(iter(base.values())).protocol
    found.insert(0, {"data": data, "switch": "reference", "protocol": card.as_dict(), "folds": list(folds)})
    found[0] |= {f"K={k}": [percent(x) for x in each] for k, each in whole.items()}
    found[0]["first_200"] = [_first(base[folds[0]].scores[k]) for k in (1, 5)]
    return found


class LargeShapes(Shapes5i):
    """Shapes-5i where only images with `min_area` pixels of a class are listed for it."""

    def __init__(self, *where, min_area: int = 0, **options):
        super().__init__(*where, **options)
        self.area_filter = min_area

    def images_of(self, cls: int) -> list[int]:
        return [i for i in super().images_of(cls) if (self[i][1] == cls).sum() >= self.area_filter]


def _first(scores: Scores, episodes: int = 200) -> float:
    part = Scores(scores.table[:episodes], scores.classes[:episodes], scores.runs[:episodes])
    return percent([part.miou])[0]


def shapes() -> list[dict]:
    """Switches of the evaluation with the shipped PANet of every fold."""
    store = MemoryStore()

    def score(switch: str, fold: int, changes: Mapping, shots: tuple) -> Evaluation:
        def compute() -> Evaluation:
            net = load_model(shipped("panet", "shapes", fold))
            images = LargeShapes(fold, "test", val_classes=0, **changes.get("dataset", {}))
            return evaluate(net, images, rules, shots=shots, cache=store)

        rules = protocol_of("shapes", changes)
        return measured(f"shapes-{switch}-{fold}", compute)

    return rows("shapes", SHAPES, score, range(4))


def network(weights: str, **options) -> FewShotModel:
    """PANet on a frozen ResNet-18 up to layer3."""
    net = build_model(
        "panet", backbone="resnet18", weights=weights, stem="classic", last="layer3", freeze=True, **options
    )
    return net.to(memory_format=torch.channels_last)


def photographs(root: str, weights: str) -> list[dict]:
    """Switches of the evaluation with PANet's matching on ImageNet features."""
    net, store = network(weights), MemoryStore()

    def score(switch: str, fold: int, changes: Mapping, shots: tuple) -> Evaluation:
        rules = protocol_of("photographs", changes)
        options = {"min_area": rules.area_filter, **changes.get("dataset", {})}

        def compute() -> Evaluation:
            test = load_dataset("pascal", root=root, fold=fold, split="test", val_classes=0, **options)
            # What has too few images for five shots would come in at one shot, and another class is no switch.
            test.classes = tuple(c for c in test.classes if 5 in shots or len(test.images_of(c)) > 5)
            return evaluate(net, test, rules, shots=shots, cache=store)

        return measured(f"photographs-{switch}-{fold}", compute)

    return rows("photographs", PHOTOGRAPHS, score, FOLDS)


def table() -> None:
    """Collect the parts; the commands kept their rows."""
    missing = [command for name, command in PARTS.items() if not (RUNS / f"{name}.json").is_file()]
    if missing:
        raise SystemExit(f"not measured yet, run first: {'; '.join(missing)}")
    command = "; ".join(f"python tools/{c}" for c in [*PARTS.values(), "protocol_lab.py table"])
    content = {"command": command} | {name: json.loads((RUNS / f"{name}.json").read_text()) for name in PARTS}
    files.write_text(TARGET, json.dumps({**content, "versions": recipe.versions()}, indent=1))
    print(TARGET.name)


def percent(values: Sequence[float]) -> list[float]:
    return [round(100 * float(x), 2) for x in values]


PARTS = {
    "shapes": "protocol_lab.py shapes",
    "photographs": "protocol_lab.py photographs ROOT WEIGHTS",
    "trainings": "protocol_trainings.py shapes",
    "novel_pixels": "protocol_trainings.py photographs ROOT WEIGHTS",
}


def main(commands: Mapping[str, tuple[Callable, str]], usage: str) -> None:
    """Run the command of the command line; what it returns becomes a part of the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # classes that a subset of VOC lacks
    name, *arguments = sys.argv[1:] or [""]
    if name not in commands or len(arguments) != 2 * (name == "photographs"):
        raise SystemExit(usage)
    command, part_name = commands[name]
    found = command(*arguments)
    if part_name:
        files.write_text(RUNS / f"{part_name}.json", json.dumps(found))


if __name__ == "__main__":
    main({"shapes": (shapes, "shapes"), "photographs": (photographs, "photographs"), "table": (table, "")}, __doc__)
