"""Runs a claim's experiment, written down in `data/experiments/NAME.yaml`, and stores its table in `data/results`.

python tools/claims.py train NAME [SEED ...]   every variant for each training seed, by `sweep`; what is done is skipped
python tools/claims.py table NAME              data/results/NAME.json: means over the seeds, paired gains, each seed

A plan says, before anything runs: `question`, `claim` and `source` (what the paper says and where), `ground` (the
condition it was made for), `chosen` (how settings were chosen: never on the test classes) and `counts_as_yes`.
Then parameters of the notebook `experiment`: `base` for all, `pretraining` (once a seed; its backbone goes to every
variant) or `start: shipped` (every variant goes on from the method's shipped weights), `variants` (name -> what
changes) and `seeds`. Each trained variant is scored under every one of `conditions` (name -> changed parameters), and
measured by every one of `measures` (names in MEASURES). `compare` pairs a variant with the reference its gain is
measured against. `subsets` (name -> [condition, name in KEPT]) are some of a condition's episodes, scored once more by
themselves.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from fsslib import EpisodeSampler, build_model, files, load_model, save_model
from fsslib.analysis.guides import guide_aucs, guide_use
from fsslib.analysis.prototypes import prototype_distances, prototype_worth
from fsslib.analysis.superpixels import superpixel_quality
from fsslib.checkpoints import shipped
from fsslib.data.shapes.plan import shape_texture
from fsslib.errors import ParameterError
from fsslib.evaluation import Evaluation
from fsslib.experiments import check_parameters, recipe, run, sweep
from fsslib.experiments.parameters import read_parameters
from fsslib.files import atomic
from fsslib.metrics import Scores, over_trainings
from fsslib.nn.backbones.cached import CachedBackbone

WORDS = ("question", "claim", "source", "ground", "chosen", "counts_as_yes")
NEEDED = {*WORDS, "base", "variants", "seeds", "compare"}
OPTIONAL = {"pretraining", "start", "conditions", "measures", "subsets"}
# What may be measured beside the score: name -> function of a trained model and episodes that returns numbers by name.
MEASURES = {"guide AUC": guide_aucs, "guide use": guide_use, "prototype distances": prototype_distances}
MEASURES |= {"prototype worth": prototype_worth, "superpixels": superpixel_quality}
# Which episodes a subset keeps: name -> function of a data set (Shapes-5i) and an episode.
KEPT = {
    "same texture": lambda data, spec: any(
        shape_texture(cls)[1] == shape_texture(spec.classes[0])[1] for cls in data.plan(spec.query).classes[1:] if cls
    )
}
MEASURED = 200  # episodes, the first of the list that the score takes


def read_plan(name: str) -> dict:
    """The plan NAME. Raises ParameterError for keys that are missing or unknown, and for comparisons of nothing."""
    path = _file(name)
    plan = read_parameters(path)
    wrong = [f"{key} is missing" for key in sorted(NEEDED - plan.keys())]
    wrong += [f"{key} is unknown" for key in sorted(plan.keys() - NEEDED - OPTIONAL)]
    named = {side for pair in plan.get("compare", []) for side in pair}
    wrong += [f"compare: there is no variant {side!r}" for side in sorted(named - plan.get("variants", {}).keys())]
    if wrong:
        raise ParameterError(f"{path.name}: {'; '.join(wrong)}.")
    return plan


def _file(name: str) -> Path:
    return files.data_folder() / "experiments" / f"{name}.yaml"


def folder_of(name: str) -> Path:
    """Where the runs of a plan lie."""
    return files.repository_folder() / "runs" / "claims" / name


def train(name: str, *seeds: str) -> None:
    """Make the runs of a plan that are missing, and score them under every condition."""
    plan, drawn, backbones = read_plan(name), {}, {}
    for variant in plan["variants"]:
        for seed in [int(s) for s in seeds] or plan["seeds"]:
            trained = _trained(name, plan, variant, seed)
            for condition, changes in plan.get("conditions", {}).items():
                target = trained / f"{condition}.npz"
                if not target.is_file():
                    p = check_parameters(_parameters(name, plan, variant, seed) | changes)
                    net, data = load_model(trained / "model.safetensors"), recipe.datasets(p)[1]
                    data = drawn.setdefault(data.signature(), data)  # pictures are drawn once for all runs
                    if net.freeze and (p.weights or "start" in plan):  # variants share one frozen backbone
                        held = CachedBackbone(net.backbone, dtype=torch.float32)
                        net.backbone = backbones.setdefault(p.weights or seed, held)
                    files.write_text(target.with_suffix(".json"), json.dumps(_measured(p, net, data, plan)))
                    recipe.score(p, net, data).save(target)


def _measured(p, net, data, plan: dict) -> dict:
    """The numbers of every measure on the first episodes of the list, by measure and name."""
    sampler = EpisodeSampler(data, recipe.protocol(p), shot=max(p.shots))
    specs = sampler.fixed(min(MEASURED, p.episodes), p.seeds[0]).specs
    chunks = [specs[i : i + p.batch] for i in range(0, len(specs), p.batch)]
    return {m: MEASURES[m](net, map(sampler.build, chunks)) for m in plan.get("measures", ())}


def _parameters(name: str, plan: dict, variant: str, seed: int) -> dict:
    """All parameters of one run."""
    own = plan["base"] | plan["variants"][variant] | {"seed": seed}
    if "start" in plan:
        return own | {"checkpoint": str(_start(name, own, variant)), "options": {}}
    return own | ({"weights": str(_backbone(name, plan, seed))} if "pretraining" in plan else {})


def _start(name: str, own: dict, variant: str) -> Path:
    """The shipped model of a method with a variant's options, which have no weights, as a file."""
    target = folder_of(name) / f"start-{variant}.safetensors"
    if not target.is_file():
        net = load_model(shipped(own["method"], own.get("dataset", "shapes"), own.get("fold", 0)))
        again = build_model(**net.config | own["options"])
        again.load_state_dict(net.state_dict())
        save_model(again, target)
    return target


def _trained(name: str, plan: dict, variant: str, seed: int) -> Path:
    """The finished run of a variant; made if it is not there."""
    parameters = _parameters(name, plan, variant, seed)
    grid = {"seed": [parameters.pop("seed")]}
    made = sweep(grid, base=parameters, runs=folder_of(name), report=lambda line: None).iloc[0]
    if made.problem:
        raise SystemExit(f"{variant}, seed {seed}: {made.problem}")
    print(f"{variant}, seed {seed}: {made.state}", flush=True)
    return folder_of(name) / made.run


def _backbone(name: str, plan: dict, seed: int) -> Path:
    """Weights of the backbone that all variants of a seed begin with."""
    target = folder_of(name) / f"backbone-{seed}.pt"
    if not target.is_file():
        asked = plan["base"] | plan["pretraining"] | {"seed": seed, "episodic_steps": 0}
        net = load_model(run(asked, runs=folder_of(name), progress=False) / "model.safetensors")
        with atomic(target) as part:
            torch.save(net.backbone.state_dict(), part)
    return target


def table(name: str) -> None:
    """Collect the runs of a plan, all of which must be there."""
    plan = read_plan(name)
    runs = {v: [_trained(name, plan, v, s) for s in plan["seeds"]] for v in plan["variants"]}
    rows = []
    conditions = plan.get("conditions", {"trained": {}})
    subsets = {name: (name, None) for name in conditions} | plan.get("subsets", {})
    for subset, (condition, kept) in subsets.items():
        found = {v: [Evaluation.load(folder / f"{condition}.npz") for folder in own] for v, own in runs.items()}
        for shot in next(iter(found.values()))[0].scores:
            scores = {v: [entry.scores[shot] for entry in entries] for v, entries in found.items()}
            if kept:
                where = _kept(KEPT[kept], plan["base"] | conditions[condition], shot)
                scores = {v: [_part(entry, where) for entry in entries] for v, entries in scores.items()}
            for variant, own in scores.items():
                row = {"condition": subset, "shots": shot, "variant": variant, "miou": over_trainings(own)}
                row["per_seed"] = [s.miou for s in own]
                row = {k: _percent(v) for k, v in row.items()} | {"measures": _measures(runs[variant], subset)}
                row["list_hash"] = found[variant][0].protocol.list_hash
                for reference in [b for a, b in plan["compare"] if a == variant]:
                    row[f"gain over {reference}"] = _percent(over_trainings(own, scores[reference]))
                    pairs = zip(own, scores[reference])
                    row[f"gain over {reference} per seed"] = _percent([a.miou - b.miou for a, b in pairs])
                rows.append(row)
    one = next(iter(runs.values()))[0]
    protocol = Evaluation.load(one / f"{next(iter(conditions))}.npz").protocol
    versions = json.loads((one / "result.json").read_text())["versions"]
    sha256 = hashlib.sha256(_file(name).read_bytes()).hexdigest()
    content = {
        "command": f"python tools/claims.py train {name}; python tools/claims.py table {name}",
        "plan": {"file": f"data/experiments/{name}.yaml", "sha256": sha256},
        "training_seeds": plan["seeds"],
        "rows": rows,
        "protocol": protocol.as_dict(),
        "list_hash": protocol.list_hash,
        "versions": versions,
    }
    target = files.data_folder() / "results" / f"{name}.json"
    files.write_text(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(target.name)


def _kept(keep, parameters: dict, shot: int) -> np.ndarray:
    """Which episodes of the (single) list of a condition a subset keeps, (E,) bool."""
    p = check_parameters(parameters)
    data = recipe.datasets(p)[1]
    specs = EpisodeSampler(data, recipe.protocol(p), shot=shot).fixed(p.episodes, *p.seeds).specs
    return np.array([keep(data, spec) for spec in specs])


def _part(scores: Scores, where: np.ndarray) -> Scores:
    return Scores(scores.table[where], scores.classes[where], scores.runs[where])


def _measures(folders: list[Path], condition: str) -> dict:
    """Measure -> name -> the number of every training."""
    paths = [folder / f"{condition}.json" for folder in folders]
    found = [json.loads(path.read_text()) for path in paths if path.is_file()]
    return {
        measure: {name: [round(one[measure][name], 4) for one in found] for name in numbers}
        for measure, numbers in (found[0] if found else {}).items()
    }


def _percent(value):
    return [round(100 * x, 2) for x in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "table": table}[sys.argv[1]](*sys.argv[2:])
