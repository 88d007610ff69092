"""The stored table of the protocol laboratory: how rows come about, and that a part of it comes out again."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib").use("agg")

from fsslib import Protocol, evaluate, files, load_model  # noqa: E402
from fsslib.checkpoints import shipped  # noqa: E402
from fsslib.data.episodes import EpisodeSampler  # noqa: E402
from fsslib.evaluation import Evaluation  # noqa: E402
from fsslib.metrics import Scores  # noqa: E402
from tools import protocol_lab as lab  # noqa: E402

STORED = files.data_folder() / "results" / "protocol-lab.json"


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text())


def made_up(seed, list_hash, gain=0):
    """An evaluation at one shot and five: 40 episodes of two classes, `gain` pixels better than without."""
    generator = np.random.default_rng(seed)
    hit = generator.integers(20, 40, size=40)
    table = np.stack([hit * 0, hit * 0, hit * 0, hit + gain, 10 + hit * 0, 60 - hit - gain], -1).reshape(40, 2, 3)
    scores = Scores(table, np.arange(40)[:, None] % 2 + 1, np.zeros(40, int))
    return Evaluation({1: scores, 5: scores}, Protocol(list_hash=list_hash), {1: 0.0, 5: 0.0}, ())


SWITCHES = {
    "better": ("on", (1, 5), {}), "other episodes": ("seed 1", (1,), {}),
    "better again": ("on", (1,), {"against": "better"}), "image-wise IoU": ("mean", (1,), {"score": "image"}),
    "folds": ("interleaved", (1,), {"dataset": {"fold_scheme": "interleaved"}}),
}  # fmt: skip


def made_up_score(switch, fold, changes, shots):
    return {
        "better": lambda: made_up(fold, f"list {fold}", gain=3),
        "better again": lambda: made_up(fold, f"list {fold}", gain=5),
        "other episodes": lambda: made_up(fold + 50, f"other {fold}"),
        "folds": lambda: made_up(fold + 90, f"cut {fold}"),
    }.get(switch, lambda: made_up(fold, f"list {fold}"))()


def test_rows_are_paired_exactly_where_the_lists_are_the_same():
    head, *rows = lab.rows("shapes", SWITCHES, made_up_score, (0, 1))
    found = {(row["switch"], row["shots"]): row for row in rows}
    assert len(head["K=1"]) == 2 and list(found) == [
        *(("better", 1), ("better", 5), ("other episodes", 1), ("better again", 1)),
        *(("image-wise IoU", 1), ("folds", 1)),
    ]
    better, again, other = found["better", 1], found["better again", 1], found["other episodes", 1]
    assert better["paired"] and again["paired"] and not other["paired"]
    base = np.mean([value for value, *_ in head["K=1"]])
    assert np.isclose(better["difference"][0], np.mean(better["miou"]) - base, atol=0.02)
    assert np.isclose(again["difference"][0], np.mean(again["miou"]) - np.mean(better["miou"]), atol=0.02)
    width = {name: found[name, 1]["difference"][2] - found[name, 1]["difference"][1] for name in ("better", "folds")}
    assert width["better"] < 0.5 < width["folds"], "pairing takes the noise of the episodes away"
    assert found["folds", 1]["per_fold"] == [] and len(found["folds", 1]["miou"]) == 4, "folds that do not correspond"
    assert better["lists"] == ["list 0", "list 1"] and len(better["per_fold"]) == 2
    image = found["image-wise IoU", 1]
    scores = made_up(0, "").scores[1]
    assert np.isclose(image["per_fold"][0][0], 100 * (scores.image_iou - scores.miou), atol=0.01)
    assert image["per_fold"][0][1] <= image["per_fold"][0][0] <= image["per_fold"][0][2]


def test_the_stored_table_agrees_with_itself(stored):
    assert STORED.stat().st_size < 200_000 and set(lab.PARTS) <= set(stored)
    for part, switches in (("shapes", lab.SHAPES), ("photographs", lab.PHOTOGRAPHS)):
        head, *rows = stored[part]
        assert {row["switch"] for row in rows} == set(switches)
        for row in rows:
            value, low, high = row["difference"]
            assert low <= value <= high and row["changes"] == json.loads(json.dumps(switches[row["switch"]][2]))
            if "against" not in row["changes"] and not row["changes"].get("score"):
                base = np.mean([entry[0] for entry in head[f"K={row['shots']}"]])
                assert np.isclose(value, np.mean(row["miou"]) - base, atol=0.02), row["switch"]
    for row in stored["trainings"] + stored["novel_pixels"]:
        assert len(row["per_seed"]) > 1 and np.isclose(np.mean(row["per_seed"]), row["miou"][0], atol=0.02)


@pytest.fixture(scope="module")
def test_set():
    return lab.LargeShapes(0, "test", val_classes=0)


def test_a_list_of_the_stored_table_is_drawn_again(stored, test_set):
    row = next(row for row in stored["shapes"] if row["switch"] == "another list")
    rules = lab.protocol_of("shapes", row["changes"])
    assert EpisodeSampler(test_set, rules, shot=row["shots"]).fixed(1000, rules.seeds[0]).hash == row["lists"][0]


def test_a_row_of_the_stored_table_is_scored_again(stored, test_set):
    """Its first 200 episodes, on the shipped weights; another processor may round a pixel to the other side."""
    row = next(row for row in stored["shapes"] if row["switch"] == "two ways, present only")
    rules, net = lab.protocol_of("shapes", row["changes"], episodes=200), load_model(shipped("panet", "shapes", 0))
    scores = evaluate(net, test_set, rules, shots=(row["shots"],), progress=False).scores
    assert abs(100 * scores[row["shots"]].miou - row["first_200"]) < 0.5


def test_only_large_objects_are_listed():
    plain, large = (lab.LargeShapes(0, "test", val_classes=0, pool=60, min_area=area) for area in (0, 1000))
    for c in plain.classes:
        areas = {i: int((plain[i][1] == c).sum()) for i in plain.images_of(c)}
        assert large.images_of(c) == [i for i, area in areas.items() if area >= 1000] != list(areas)
    assert large.area_filter == 1000, "the card of the protocol names it"


def test_commands_want_their_arguments(monkeypatch):
    for given in ([], ["nothing"], ["photographs", "one"], ["shapes", "too", "many"]):
        monkeypatch.setattr("sys.argv", ["protocol_lab.py", *given])
        with pytest.raises(SystemExit, match=r"python tools/protocol_lab.py photographs ROOT WEIGHTS"):
            lab.main({"shapes": (lab.shapes, "shapes"), "photographs": (lab.photographs, "photographs")}, lab.__doc__)


def test_the_table_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "RUNS", tmp_path)
    (tmp_path / "shapes.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"run first: protocol_lab.py photographs ROOT WEIGHTS; protocol_trainings.py"):
        lab.table()
