"""The stored tables are what the library computes, and the shipped weights are as good as they are said to be."""

import hashlib
import json
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import torch

from fsslib import Protocol, build_model, evaluate, files, load_dataset, load_model
from fsslib.analysis.baselines import baselines
from fsslib.checkpoints import read_note, shipped
from fsslib.evaluation import Evaluation, episode_lists
from fsslib.experiments.results import check_result
from fsslib.nn.backbones.base import LITE
from tools import claims, photographs

RESULTS = files.data_folder() / "results"
METHODS = ("panet", "sdaanet", "asgnet", "hdmnet")
EPISODES = 40  # of each stored row are evaluated again
FILES = sorted(RESULTS.glob("*-shapes-fold*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_stored_results_are_complete(path):
    result = json.loads(path.read_text())
    check_result(result, path.name)
    one, five = (result["scores"][k] for k in ("1", "5"))
    assert result["protocol"]["episodes"] == 1000 and one["low"] < one["miou"] < one["high"]
    if result["parameters"]["method"] == "panet":
        assert five["miou"] >= one["miou"]


def test_every_shipped_weight_has_its_stored_result_and_its_command():
    weights = sorted((files.data_folder() / "weights").glob("*.safetensors"))
    # Those of the comparison belong to its tables.
    compared = [f"{m}-shapes-fold0" for m in ("asgnet", "hdmnet")] + ["panet-shapes-fold0-short"]
    assert sorted(p.stem for p in weights) == sorted([p.stem for p in FILES] + compared)
    assert sum(path.stat().st_size for path in weights) < 15 * 2**20
    for path in weights:
        assert path.stat().st_size < 1.5 * 2**20 and read_note(path)["command"].startswith("python tools/")
    for fold in range(4):
        assert read_note(shipped("panet", "shapes", fold))["command"] == f"python tools/train_shipped.py panet {fold}"


def test_the_ablation_of_sdaanet_is_complete():
    """Seven variants, three trainings each; one of them is shipped."""
    stored = json.loads((RESULTS / "sdaanet-ablation.json").read_text())
    rows = {(row["shots"], row["model"]): row for row in stored["rows"]}
    assert len(rows) == 14 and stored["protocol"]["episodes"] == 1000
    for row in rows.values():
        mean, low, high = row["miou"]
        assert low < mean < high and len(row["per_seed"]) == 3
        assert mean == pytest.approx(sum(row["per_seed"]) / 3, abs=0.02)
        gain, low, high = row["gain over baseline"]
        assert low <= gain <= high
        assert gain == pytest.approx(mean - rows[row["shots"], "baseline"]["miou"][0], abs=0.02)
    result = json.loads((RESULTS / "sdaanet-shapes-fold0.json").read_text())
    for shot in (1, 5):
        miou = result["scores"][str(shot)]["miou"]
        assert miou == pytest.approx(rows[shot, "both"]["per_seed"][0], abs=0.3)
        assert miou == pytest.approx(comparison()["sdaanet", 0]["scores"][str(shot)]["miou"], abs=0.3)
    assert result["list_hash"] == stored["list_hash"] and result["scores"]["1"]["miou"] >= 60


@pytest.mark.parametrize("path", sorted((files.data_folder() / "experiments").glob("*.yaml")), ids=lambda p: p.stem)
def test_claims_belong_to_their_plans(path):
    """Every plan can be read and has its table, made by this very plan, with a well-formed row for each variant."""
    plan = claims.read_plan(path.stem)
    stored = json.loads((RESULTS / f"{path.stem}.json").read_text())
    assert stored["plan"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    seeds = stored["training_seeds"]
    assert seeds == plan["seeds"] and len(set(seeds)) >= 3 and stored["protocol"]["episodes"] == 1000
    rows = {(row["condition"], row["shots"], row["variant"]): row for row in stored["rows"]}
    conditions, shots = plan.get("conditions", {"trained": {}}) | plan.get("subsets", {}), {key[1] for key in rows}
    assert rows.keys() == set(product(conditions, shots, claims.scored(plan))) and len(rows) == len(stored["rows"])
    for (condition, k, variant), row in rows.items():
        mean, low, high = row["miou"]
        assert low < mean < high and mean == pytest.approx(np.mean(row["per_seed"]), abs=0.02)
        for reference in [b for a, b in plan["compare"] if a == variant]:
            gain, low, high = row[f"gain over {reference}"]
            per_seed = np.subtract(row["per_seed"], rows[condition, k, reference]["per_seed"])
            assert low <= gain <= high and gain == pytest.approx(per_seed.mean(), abs=0.02)
            assert row[f"gain over {reference} per seed"] == pytest.approx(per_seed.tolist(), abs=0.02)
        for numbers in (x for measure in row["measures"].values() for x in measure.values()):
            assert len(numbers) == len(seeds) and np.isfinite(numbers).all()
    for row in stored.get("equal_recall", []):
        per_seed = [row[f"{name} per seed"] for name in ("ensemble", "matching alone", "difference")]
        assert np.allclose(np.subtract(*per_seed[:2]), per_seed[2], atol=0.02) and len(per_seed[2]) == len(seeds)
        low, high = row["difference"][1:]
        assert low <= row["difference"][0] <= high and 0 < row["base probability, wanted object"][0] < 100


def test_a_claim_may_go_on_from_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "folder_of", lambda name: tmp_path)
    before = load_model(shipped("asgnet", "shapes", 0))
    after = load_model(claims._start("plan", {"method": "asgnet", "options": {"sharpness": 4.5}}, "sharper"))
    assert (before.sharpness, after.sharpness, after.superpixel_area) == (None, 4.5, before.superpixel_area)
    assert all(torch.equal(after.state_dict()[name], value) for name, value in before.state_dict().items())


@pytest.fixture(scope="module")
def test_set():
    return load_dataset("shapes", fold=0, split="test")


@pytest.mark.parametrize(("weights", "row"), [
    ("panet-shapes-fold0", "panet-shapes-fold0"), ("panet-shapes-fold0-short", "comparison/panet-0"),
    ("sdaanet-shapes-fold0", "comparison/sdaanet-0"), ("asgnet-shapes-fold0", "comparison/asgnet-0"),
    ("hdmnet-shapes-fold0", "comparison/hdmnet-0"),
])  # fmt: skip
def test_a_stored_row_is_recomputed(test_set, weights, row):
    """The stored counts of all episodes give the stored score; the first of the same list, evaluated again from the
    weights as they ship, give the same counts. Another processor turns a few pixels, and half precision did."""
    result, counts = json.loads((RESULTS / f"{row}.json").read_text()), Evaluation.load(RESULTS / f"{row}.npz")
    model = load_model(files.data_folder() / "weights" / f"{weights}.safetensors")
    again = evaluate(model, test_set, Protocol(episodes=EPISODES), shots=(1, 5), batch=20, progress=False)
    _, lists, whole = episode_lists(test_set, Protocol(), (1, 5))
    assert whole.list_hash == counts.protocol.list_hash == result["list_hash"]
    assert again.lists[0].specs == lists[0].specs[:EPISODES]
    for shot in (1, 5):
        stored, scores = counts.scores[shot], again.scores[shot]
        assert len(stored.table) == 1000
        assert 100 * stored.miou == pytest.approx(result["scores"][str(shot)]["miou"], abs=0.1)
        assert np.array_equal(scores.classes, stored.classes[:EPISODES])
        pixels = np.abs(scores.table - stored.table[:EPISODES]).max((1, 2))
        assert np.median(pixels) <= 3 and np.mean(pixels) <= 10, f"{row}, {shot} shots: {pixels}"
    if row == "panet-shapes-fold0":
        assert 100 * counts.scores[1].miou >= 55 and counts.scores[5].difference(counts.scores[1])[0] >= 0


def test_difficulty_of_the_embedded_data_is_as_stated(test_set):
    scores = {name: 100 * s.miou for name, s in baselines(test_set).items()}
    assert 25 < scores["every object (oracle)"] < 33 and scores["all foreground"] == pytest.approx(8, abs=1.5)
    torch.manual_seed(0)
    net = build_model("panet", backbone="tiny")
    untrained = evaluate(net, test_set, Protocol(episodes=60), batch=20, progress=False)
    assert 100 * untrained.scores[1].miou <= 12


@lru_cache
def comparison() -> dict[tuple[str, int], dict]:
    """The twelve results of the comparison by method and training seed."""
    return {
        (method, seed): json.loads((RESULTS / f"comparison/{method}-{seed}.json").read_text())
        for method in METHODS
        for seed in range(3)
    }


def test_the_comparison_is_one_of_equals():
    """Twelve reports: the same episodes, budget and data; only what belongs to a method differs."""
    results = comparison()
    for (method, seed), result in results.items():
        check_result(result, f"{method}-{seed}")
        assert (result["parameters"]["method"], result["seed"]) == (method, seed)
        assert set(result["scores"]) == {"1", "5"} and result["protocol"]["episodes"] == 1000
    own = {"method", "seed", "lr", "width", "options", "plugin"}
    shared = [{k: v for k, v in r["parameters"].items() if k not in own} for r in results.values()]
    assert all(parameters == shared[0] for parameters in shared)
    assert len({json.dumps(r["protocol"], sort_keys=True) for r in results.values()}) == 1
    for (method, seed), result in results.items():
        counts = Evaluation.load(RESULTS / f"comparison/{method}-{seed}.npz")
        for shot in (1, 5):
            assert 100 * counts.scores[shot].miou == pytest.approx(result["scores"][str(shot)]["miou"], abs=0.01)


def test_the_trainings_on_photographs_and_readmes_lines_of_them():
    """Both references and four methods, with paired intervals; what README shows of them is what is stored."""
    stored = json.loads((RESULTS / "photographs.json").read_text())
    rows = {tuple(row[name] for name in ("backbone", "fold", "shots", "model")): row for row in stored["rows"]}
    trained = {(row["backbone"], row["fold"], row["method"]): row for row in stored["trainings"]}
    assert stored["protocol"]["selection"] == "val_classes" and stored["protocol"]["label_size"] == "original"
    for (backbone, fold, shots, model), row in rows.items():
        frozen = rows[backbone, fold, shots, "frozen features"]
        assert row["low"] < row["miou"] < row["high"] and row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert row["gain"] == pytest.approx(row["miou"] - frozen["miou"], abs=0.02)
        if model in METHODS:
            gain, low, high = row["over matching"]
            assert low <= gain <= high
            assert gain == pytest.approx(row["miou"] - rows[backbone, fold, shots, "matching"]["miou"], abs=0.02)
            training = trained[backbone, fold, model]
            scores = [training["selected"]["start"], *training["val_miou"]]
            assert training["selected"]["val_miou"] == pytest.approx(max(scores), abs=0.01)
            if not training["selected"]["step"] and model in photographs.BEGINS:
                begun = rows[backbone, fold, shots, photographs.BEGINS[model]]
                assert row["miou"] == pytest.approx(begun["miou"], abs=0.05), "undone, it is what it began with"
    below = {key for key, row in rows.items() if row["gain_high"] < 0}
    assert below == {(LITE, 2, 1, "panet")}, "the one that fell below its own frozen features"
    assert set(product([LITE, "resnet18"], (1, 2, 3), (1, 5), photographs.ORDER)) == set(rows)
    text = (files.repository_folder() / "README.md").read_text()
    if "photographs.json" in text:
        for line in photographs.lines(stored["rows"]):
            assert line in text


def test_what_decides_on_photographs():
    """README's lines: fewer classes or pictures cost test classes more, a smaller rate less; settings are no limit."""
    text = (files.repository_folder() / "README.md").read_text()
    rows, means = json.loads((RESULTS / "photographs-factors.json").read_text())["rows"], {}
    for variant in photographs.FACTORS:
        cells = []
        for classes in ("train", "val", "test"):
            picked = {"variant": variant, "steps": 200, "classes": classes}
            gains = [row["gain"][0] for row in rows if picked.items() <= row.items()]
            assert len(gains) == len(photographs.FACTOR_SEEDS)
            means[variant, classes] = np.mean(gains)
            cells.append(f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})".replace("-", "−"))
        assert f"| {variant} | {' | '.join(cells)} |" in text
    first, *fewer, slower = photographs.FACTORS
    assert all(means[name, "test"] < means[first, "test"] < 0 < means[name, "train"] for name in fewer)
    assert means[first, "test"] < means[slower, "test"] < 0 < means[slower, "val"]
    settings = json.loads((RESULTS / "photographs-matching.json").read_text())["rows"]
    assert len(settings) == 3 * len(photographs.SETTINGS) and max(row["gain"][0] for row in settings) < 5


def test_the_other_tables_are_complete():
    knobs = json.loads((RESULTS / "comparison-knobs.json").read_text())["rows"]
    assert {row["method"] for row in knobs} == set(METHODS)
    assert {row["knob"] for row in knobs} == {"gap", "parts", "area", "co_occurrence"}
    intervals = [row[name] for row in knobs for name in ("miou", "gain over panet")]
    assert all(low <= mean <= high for mean, low, high in intervals)
    sharp = json.loads((RESULTS / "asgnet-sharpness.json").read_text())["rows"]
    for kind in {row["features"] for row in sharp}:
        by_sharpness = sorted((row["sharpness"], row["entropy"]) for row in sharp if row["features"] == kind)
        entropies = [entropy for _, entropy in by_sharpness]
        assert len(entropies) == 5 and entropies == sorted(entropies, reverse=True) and 0 <= min(entropies) <= 1
