"""Runs a claim's experiment, written down in `data/experiments/NAME.yaml`, and stores its table in `data/results`.

python tools/claims.py train NAME [SEED ...]   every variant for each training seed, by `sweep`; what is done is skipped
python tools/claims.py table NAME              data/results/NAME.json: means over the seeds, paired gains, each seed

A plan says, before anything runs: `question`, `claim` and `source` (what the paper says and where), `ground` (the
condition it was made for), `chosen` (how settings were chosen: never on the test classes) and `counts_as_yes`.
Then parameters of the notebook `experiment`: `base` for all, `pretraining` (once a seed; its backbone goes to every
variant), `variants` (name -> what changes) and `seeds`. Each trained variant is scored under every one of `conditions`
(name -> changed parameters), and measured by every one of `measures` (names in MEASURES). `compare` pairs a variant
with the reference its gain is measured against.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from fsslib import EpisodeSampler, files, load_model
from fsslib.analysis.prototypes import prototype_distances, prototype_worth
from fsslib.errors import ParameterError
from fsslib.evaluation import Evaluation
from fsslib.experiments import check_parameters, recipe, run, sweep
from fsslib.experiments.parameters import read_parameters
from fsslib.files import atomic
from fsslib.metrics import over_trainings
from fsslib.nn.backbones.cached import CachedBackbone

WORDS = ("question", "claim", "source", "ground", "chosen", "counts_as_yes")
NEEDED = {*WORDS, "base", "variants", "seeds", "compare"}
OPTIONAL = {"pretraining", "conditions", "measures"}
# What may be measured beside the score: name -> function of a trained model and episodes that returns numbers by name.
MEASURES = {"prototype distances": prototype_distances, "prototype worth": prototype_worth}
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
    plan, drawn = read_plan(name), {}
    for seed in [int(s) for s in seeds] or plan["seeds"]:
        backbone = None
        for variant in plan["variants"]:
            trained = _trained(name, plan, variant, seed)
            for condition, changes in plan.get("conditions", {}).items():
                target = trained / f"{condition}.npz"
                if not target.is_file():
                    p = check_parameters(_parameters(name, plan, variant, seed) | changes)
                    net, data = load_model(trained / "model.safetensors"), recipe.datasets(p)[1]
                    data = drawn.setdefault(data.signature(), data)  # pictures are drawn once for all runs
                    if net.freeze and "pretraining" in plan:  # one frozen backbone for all variants of a seed
                        net.backbone = backbone = backbone or CachedBackbone(net.backbone, dtype=torch.float32)
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
    return own | ({"weights": str(_backbone(name, plan, seed))} if "pretraining" in plan else {})


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
    for condition in plan.get("conditions", {"trained": {}}):
        found = {v: [Evaluation.load(folder / f"{condition}.npz") for folder in own] for v, own in runs.items()}
        for shot in next(iter(found.values()))[0].scores:
            scores = {v: [entry.scores[shot] for entry in entries] for v, entries in found.items()}
            for variant, own in scores.items():
                row = {"condition": condition, "shots": shot, "variant": variant, "miou": over_trainings(own)}
                row["per_seed"] = [s.miou for s in own]
                row = {k: _percent(v) for k, v in row.items()} | {"measures": _measures(runs[variant], condition)}
                row["list_hash"] = found[variant][0].protocol.list_hash
                for reference in [b for a, b in plan["compare"] if a == variant]:
                    row[f"gain over {reference}"] = _percent(over_trainings(own, scores[reference]))
                    pairs = zip(own, scores[reference])
                    row[f"gain over {reference} per seed"] = _percent([a.miou - b.miou for a, b in pairs])
                rows.append(row)
    first = json.loads((next(iter(runs.values()))[0] / "result.json").read_text())
    protocol = next(iter(found.values()))[0].protocol  # of the scores in the rows
    sha256 = hashlib.sha256(_file(name).read_bytes()).hexdigest()
    content = {
        "command": f"python tools/claims.py train {name}; python tools/claims.py table {name}",
        "plan": {"file": f"data/experiments/{name}.yaml", "sha256": sha256},
        "training_seeds": plan["seeds"],
        "rows": rows,
        "protocol": protocol.as_dict(),
        "list_hash": protocol.list_hash,
        "versions": first["versions"],
    }
    target = files.data_folder() / "results" / f"{name}.json"
    files.write_text(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(target.name)


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
