"""The published numbers are complete, have a source each, and agree with themselves."""

import json

import pytest

from fsslib import files

PUBLISHED = json.loads((files.data_folder() / "published.json").read_text(encoding="utf-8"))
COMPARISON = PUBLISHED["comparison"]
TABLES = ("pascal5i", "coco20i")
ROWS = [(name, row) for name in TABLES for row in COMPARISON[name]]
IDS = [f"{name}-{row['method']}-{row['backbone']}-{row['source']}" for name, row in ROWS]
METHODS = {"PANet", "ASGNet", "SD-AANet", "HDMNet"}


def test_every_number_names_a_source_and_how_it_was_seen():
    own = [row for name in (*TABLES, "effects") for row in COMPARISON[name]]
    assert {row["source"] for row in own} == set(COMPARISON["sources"]), "no source is missing, none is idle"
    assert {row["tag"] for row in own} == set(COMPARISON["tags"])
    for name in ("sdaanet", "sdaanet_cost"):
        assert {row["source"] for row in PUBLISHED[name]} <= set(PUBLISHED["sources"])
        assert {row["tag"] for row in PUBLISHED[name]} <= set(PUBLISHED["tags"])


@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_a_row_agrees_with_itself(name, row):
    assert row["miou"] and set(row["miou"]) <= {"1", "5"}
    assert set(row.get("folds", {})) | set(row.get("fb_iou", {})) <= set(row["miou"])
    for shots, folds in row.get("folds", {}).items():
        # Papers round each fold and the mean for themselves.
        assert len(folds) == 4 and sum(folds) / 4 == pytest.approx(row["miou"][shots], abs=0.1)
    for shots, score in row["miou"].items():
        assert 0 < score < row.get("fb_iou", {}).get(shots, 100)
    assert row["miou"].get("5", 100) > row["miou"]["1"]


def test_the_four_methods_are_in_both_tables_with_equal_habits():
    assert all({row["method"] for row in COMPARISON[name]} >= METHODS for name in TABLES)
    assert {method.replace("-", "").lower() for method in METHODS} == set(COMPARISON["habits"])
    assert len({tuple(habit) for habit in COMPARISON["habits"].values()}) == 1


def test_both_places_say_the_same_of_sdaanet():
    for name, label in zip(TABLES, ("PASCAL-5i", "COCO-20i")):
        row = next(row for row in COMPARISON[name] if row["method"] == "SD-AANet")
        for shots, score in row["miou"].items():
            there = [
                entry["miou"]
                for entry in PUBLISHED["sdaanet"]
                if (entry["dataset"], str(entry["shots"]), entry["model"]) == (label, shots, "both")
            ]
            assert there == [score]


def test_the_effects_quote_the_tables():
    known = {score for _, row in ROWS for score in row["miou"].values()}
    for effect in COMPARISON["effects"]:
        assert effect["from"] != effect["to"] and effect["shots"] in (1, 5)
        if effect["source"] in ("BAM45", "HDM8"):
            assert {effect["from"], effect["to"]} <= known
