"""Trains the methods on PASCAL photographs, on frozen features, for `data/results/photographs*.json`.

python tools/photographs.py run ROOT BACKBONE WEIGHTS [EPISODES [ONLY ...]]   e.g. VOC2012 efficientnet_lite0 packaged
python tools/photographs.py table [EPISODES]                                   collects what was run
python tools/photographs.py factors ROOT BACKBONE WEIGHTS FOLD   photographs-factors.json: what decides in training
python tools/photographs.py matching ROOT BACKBONE WEIGHTS FOLD  photographs-matching.json: every setting of matching

ROOT is a VOC2012 folder; `resnet18` is the usual one, without layer4; ONLY names folds and methods. Trainings are
those of `data/recipes/photographs-*.yaml`. Whatever is finished lies in `runs/photographs` and is not computed again; a
training that was stopped goes on, and one that was scored on fewer episodes is only scored anew; `table` keeps the rows
of what does not lie there.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from fsslib import build_model, files, load_dataset
from fsslib.evaluation import Evaluation
from fsslib.experiments import check_parameters, recipe
from fsslib.experiments.parameters import ExperimentParameters, read_parameters
from fsslib.nn.backbones.cached import DiskStore

RUNS = files.repository_folder() / "runs" / "photographs"
TARGET = files.data_folder() / "results" / "photographs.json"
FOLDS = (1, 2, 3)  # fold 0 needs classes that small subsets of VOC lack
METHODS = ("panet", "asgnet", "sdaanet", "hdmnet")
FROZEN, MATCHING = "frozen features", "matching"
ORDER = (FROZEN, MATCHING, *METHODS)
# What these say, pixel by pixel, before they are trained; HDMNet's ensemble may turn a few.
BEGINS = {"panet": FROZEN, "asgnet": MATCHING, "sdaanet": MATCHING}
# What was measured is called after these; nothing of the machine is among them.
TOLD = ("method", "backbone", "width", "lr", "options", "pretrain_steps", "episodic_steps", "batch", "seed")


def parameters(method: str, root: str, backbone: str, weights: str, fold: int) -> ExperimentParameters:
    """The recipe of a method for this backbone and fold."""
    given = read_parameters(files.data_folder() / "recipes" / f"photographs-{method}.yaml")
    given |= {"root": root, "backbone": backbone, "weights": weights, "fold": fold}
    if backbone == "resnet18":
        given["lr"] = {"panet": 3e-4}.get(method, given["lr"])  # the recipe's rate was chosen for EfficientNet-Lite0
        given["options"] = {**given.get("options", {}), "last": "layer3", "stem": "classic"}
    return check_parameters(given)


def run(root: str, backbone: str, weights: str, episodes: str = "1000", *only: str) -> None:
    """Whatever is missing of the references and the trainings."""
    store = DiskStore(RUNS / "features" / backbone)
    folds = [fold for fold in FOLDS if str(fold) in only] or FOLDS
    names = [name for name in ORDER if name in only] or ORDER
    for fold in folds:
        for name in names:
            kept = _kept(backbone, fold, name, episodes)
            if kept.is_file():
                continue
            p = parameters(name if name in METHODS else "panet", root, backbone, weights, fold)
            train_set, test_set = recipe.datasets(p)
            net = _stored(p, store)
            if name == FROZEN:
                net = recipe.features_only(net)
            elif name == MATCHING:
                net = build_model(MATCHING, backbone=net.backbone).eval()
            else:
                folder = RUNS / f"{backbone}-{fold}-{name}"
                history = recipe.train(p, net, train_set, folder)["episodic training"]
                print(kept.stem, history.selected, _curve(history), flush=True)
                said = {"selected": history.selected, "val_miou": _curve(history)}
                said |= {"recipe": {key: value for key, value in p.model_dump().items() if key in TOLD}}
                files.write_text(kept.with_suffix(".json"), json.dumps(said))
                begun = _kept(backbone, fold, BEGINS.get(name), episodes)
                if not history.selected["step"] and begun.is_file():  # undone: what it begins with is known
                    Evaluation.load(begun).save(kept)
                    continue
            # A training knows nothing of how many episodes it will be scored on.
            recipe.score(p.model_copy(update={"episodes": int(episodes)}), net, test_set).save(kept)
            scores = Evaluation.load(kept).scores
            print(kept.stem, {shot: round(100 * s.miou, 1) for shot, s in scores.items()}, flush=True)


def _kept(backbone: str, fold: int | str, name: str | None, episodes: int | str) -> Path:
    return RUNS / f"{backbone}-{fold}-{str(name).replace(' ', '-')}-{episodes}.npz"


def _curve(history) -> list[float]:
    return [round(row["val_miou"], 2) for row in history.rows if "val_miou" in row]


def rows(episodes: int) -> Iterator[dict]:
    """A row for every backbone, fold, number of shots and model: mIoU and the paired difference to frozen features,
    of a training to matching too, with 95 % intervals."""
    for first in sorted(RUNS.glob(f"*-{FROZEN.replace(' ', '-')}-{episodes}.npz")):
        backbone, fold, _ = first.stem.split("-", 2)
        found = {}
        for name in ORDER:
            kept = _kept(backbone, fold, name, episodes)
            if kept.is_file():
                found[name] = Evaluation.load(kept)
        for shot in (1, 5):
            for row in recipe.table(found, [shot]):
                numbers = {key: round(row[key], 2) for key in ("miou", "low", "high", "gain", "gain_low", "gain_high")}
                if row["model"] in METHODS and MATCHING in found:
                    own, other = (found[name].scores[shot] for name in (row["model"], MATCHING))
                    numbers["over matching"] = [round(100 * value, 2) for value in own.difference(other)]
                yield {"backbone": backbone, "fold": int(fold), "shots": shot, "model": row["model"], **numbers}


def lines(found: list[dict]) -> list[str]:
    """The rows as lines of README's table: mIoU, and in brackets the interval of the difference to frozen features."""
    cells = {}
    for row in found:
        low, high = (f"{round(row[name], 1) + 0:+.1f}" for name in ("gain_low", "gain_high"))
        gain = "" if row["model"] == FROZEN else f" ({low} to {high})"
        place = row["backbone"], row["fold"], row["shots"]
        cells.setdefault(place, {})[row["model"]] = f"{row['miou']:.1f}{gain}".replace("-", "−")
    names = {"efficientnet_lite0": "EfficientNet-Lite0", "resnet18": "ResNet-18"}
    return [
        "| " + " | ".join([names[b], str(fold), str(shot), *(of.get(name, "–") for name in ORDER)]) + " |"
        for (b, fold, shot), of in sorted(cells.items())
    ]


def table(episodes: str = "1000") -> None:
    """Write the rows, and of every training its recipe and what was selected; print the lines for README."""
    found, trainings, cards = list(rows(int(episodes))), [], {}
    for said in sorted(RUNS.glob(f"*-{episodes}.json")):
        backbone, fold, method, _ = said.stem.split("-")
        trainings.append({"backbone": backbone, "fold": int(fold), "method": method, **json.loads(said.read_text())})
        if said.with_suffix(".npz").is_file():
            cards[fold] = Evaluation.load(said.with_suffix(".npz")).protocol
    chosen = next(card for card in cards.values() if card.selection == "val_classes")
    rules = chosen.replace(backbone="", list_hash="").as_dict()
    lists = {f"fold {fold}": cards[fold].list_hash for fold in sorted(cards)}
    before = json.loads(TARGET.read_text())
    if (before["protocol"], before["lists"]) == (rules, lists):
        found = _joined(before["rows"], found, ("backbone", "fold", "shots", "model"))
        trainings = _joined(before["trainings"], trainings, ("backbone", "fold", "method"))
    stored = {"protocol": rules, "lists": lists, "versions": recipe.versions(), "rows": found}
    files.write_text(TARGET, json.dumps(stored | {"trainings": trainings}, indent=1) + "\n")
    print("\n".join(lines(found)))


def _joined(old: list[dict], new: list[dict], key: tuple[str, ...]) -> list[dict]:
    """New rows, and those old ones that have no new one, in the order of the table."""
    rows = {tuple(row[name] for name in key): row for row in (*old, *new)}
    return [rows[place] for place in sorted(rows, key=lambda place: (*place[:-1], ORDER.index(place[-1])))]


def factors(root: str, backbone: str, weights: str, fold: str) -> None:
    """What training PANet's projection changes, in points over the frozen features, if one thing at a time is another:
    on the classes it is trained on, on those held back from it, and on the test classes. 1 shot, 300 episodes."""
    path = TARGET.with_name("photographs-factors.json")
    stored = json.loads(path.read_text()) if path.is_file() else {"rows": []}
    p = parameters("panet", root, backbone, weights, int(fold)).model_copy(update={"episodes": 300, "shots": [1]})
    train_set, test_set = recipe.datasets(p)
    held = {"split": "val", "val_classes": recipe.HELD_BACK, "min_area": 0, "novel": "background"}
    judges = {"train": train_set, "val": load_dataset("pascal", root=root, fold=int(fold), **held), "test": test_set}
    store = DiskStore(RUNS / "features" / backbone)
    first = recipe.features_only(_stored(p, store))
    frozen = {classes: recipe.score(p, first, data).scores[1] for classes, data in judges.items()}
    for name, (changes, fewer) in FACTORS.items():
        for seed in FACTOR_SEEDS:
            key = {"backbone": backbone, "fold": int(fold), "variant": name, "seed": seed}
            if any(key.items() <= row.items() for row in stored["rows"]):
                continue
            last = {"selection": "last", "training": {}, "validate_every": 0}  # nothing is selected
            q = check_parameters({**p.model_dump(), **changes, **last, "seed": seed})
            found = _gains(q, _stored(q, store), fewer(recipe.datasets(p)[0]), judges, frozen)
            stored["rows"] += [key | row for row in found]
            print(name, seed, found, flush=True)
            command = "python tools/photographs.py factors ROOT BACKBONE WEIGHTS FOLD"
            said = {"command": command, "method": "panet", "shots": 1, "episodes": 300, "versions": recipe.versions()}
            files.write_text(path, json.dumps(stored | said, indent=1) + "\n")


def _gains(p: ExperimentParameters, net, data, judges: dict, frozen: dict) -> list[dict]:
    """Train, and compare with `frozen` half way and at the end; the trained classes at the end only."""
    rows = []

    def measure(step: int, trained) -> None:
        if step + 1 in (p.episodic_steps // 2, p.episodic_steps):
            for classes in judges if step + 1 == p.episodic_steps else ("val", "test"):
                gain = recipe.score(p, trained, judges[classes]).scores[1].difference(frozen[classes])
                rows.append({"steps": step + 1, "classes": classes, "gain": [round(100 * x, 2) for x in gain]})

    recipe.train(p, net, data, stage="episodic", watch=measure)
    return rows


def matching(root: str, backbone: str, weights: str, fold: str) -> None:
    """Points of `matching` over the frozen features, 1 shot, with other settings than its own: what is left in them
    if somebody chose on the test classes? Nobody may; this asks whether settings or features are the limit."""
    path = TARGET.with_name("photographs-matching.json")
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    p = parameters("panet", root, backbone, weights, int(fold)).model_copy(update={"episodes": 300, "shots": [1]})
    net, data = _stored(p, DiskStore(RUNS / "features" / backbone)), recipe.datasets(p)[1]
    frozen = recipe.score(p, recipe.features_only(net), data).scores[1]
    for change in SETTINGS:
        key = {"backbone": backbone, "fold": int(fold), "setting": change}
        if any(key.items() <= row.items() for row in rows):
            continue
        own = recipe.score(p, build_model(MATCHING, backbone=net.backbone, **change).eval(), data).scores[1]
        gain, before = own.difference(frozen), frozen.per_class
        classes = {data.names[c]: value - before[c] for c, value in own.per_class.items()}
        rows.append({**key, "gain": [round(100 * x, 2) for x in gain]})
        rows[-1]["gain of classes"] = {name: round(100 * x, 1) for name, x in classes.items()}
        print(rows[-1], flush=True)
        command = "python tools/photographs.py matching ROOT BACKBONE WEIGHTS FOLD"
        said = {"command": command, "shots": 1, "episodes": 300, "versions": recipe.versions(), "rows": rows}
        files.write_text(path, json.dumps(said, indent=1) + "\n")


SETTINGS = [{}, {"refine": False}, {"prototypes": "means", "scale": 20.0}]
SETTINGS += [{"scale": scale} for scale in (10.0, 60.0)] + [{"ridge": ridge} for ridge in (0.001, 0.003, 0.03, 0.1)]


def _stored(p: ExperimentParameters, store: DiskStore):
    net = recipe.model(p)
    net.backbone.store = store
    return net


def _half_the_classes(data):
    data.classes = data.classes[::2]
    return data


def _half_the_pictures(data):
    pictures = data.images_of
    data.supports_of = data.queries_of = lambda cls: pictures(cls)[::2]
    return data


# One factor each: what is changed in the recipe, and in the training data.
FACTORS = {
    "rate 0.0003": ({"lr": 3e-4}, lambda data: data),
    "rate 0.0003, half the classes": ({"lr": 3e-4}, _half_the_classes),
    "rate 0.0003, half the pictures": ({"lr": 3e-4}, _half_the_pictures),
    "rate 0.0001": ({"lr": 1e-4}, lambda data: data),
}
FACTOR_SEEDS = (0, 1, 2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"run": run, "table": table, "factors": factors, "matching": matching}[sys.argv[1]](*sys.argv[2:])
