"""Damaged checkpoints and drawings: each is read rightly or refused by an error of ours that says what to do.

FSSLIB_FUZZ=2000 in the environment tries as many of each; a hundred are enough for every day.
"""

import numpy as np
import pytest
import torch
from core_tools import panet
from fuzzing import KEPT, mutated, nothing_written, outcome, tally

from fsslib import load_model, load_official, save_model
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.weights import load_weights
from fsslib.widgets import strokes


def finite(model) -> bool:
    return all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """Door -> what a good file holds, its ending, what opens it, and what a right result is."""
    folder = tmp_path_factory.mktemp("good")
    small = panet(width=2, backbone_options={"width": 2})
    ours = save_model(small, folder / "m.safetensors", note={"command": "make"}).read_bytes()
    torch.save({"state_dict": {f"module.{k}": v for k, v in small.state_dict().items()}}, folder / "a.pth")
    backbone = build_backbone("tiny", width=2)
    torch.save(backbone.state_dict(), folder / "b.pth")

    def drawing(path):
        document = strokes.load(path)
        height, width = document["size"] or (24, 32)
        return strokes.rasterise(document, height, width) if height * width < 10**6 else np.zeros((1, 1), np.uint8)

    official = lambda path: load_official(panet(width=2, backbone_options={"width": 2}), path)  # noqa: E731
    weights = lambda path: load_weights(backbone, path) or backbone  # noqa: E731
    official_file, weight_file = (folder / "a.pth").read_bytes(), (folder / "b.pth").read_bytes()
    return {
        "load_model": (ours, ".safetensors", load_model, finite),
        "load_official": (official_file, ".pth", official, finite),
        "weights": (weight_file, ".pth", weights, finite),
        "drawing": (DRAWING, ".json", drawing, lambda mask: set(np.unique(mask)) <= {0, 1, 255}),
    }


DRAWING = {
    "version": 1, "size": [24, 32], "cursor": 5, "history": [
        {"tool": "brush", "label": 1, "width": 6.0, "points": [[3, 4], [10.5, 9]]},
        {"tool": "scribble", "label": 0, "width": 2.0, "points": [[20, 4]]},
        {"tool": "eraser", "width": 6.0, "points": [[3, 4], [5, 5]]},
        {"tool": "box", "label": 1, "points": [[1, 2], [8, 9]]},
        {"tool": "polygon", "label": 1, "points": [[1, 2], [8, 9], [3, 20]]}, {"tool": "clear"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("door", ["load_model", "load_official", "weights", "drawing"])
def test_damaged_files(door, doors, tmp_path, monkeypatch):
    example, ending, opens, right = doors[door]
    monkeypatch.chdir(tmp_path)
    file, outcomes, wrong = tmp_path / f"given{ending}", [], []

    def work():
        assert right(opens(file)), "a damaged file gave a wrong result"

    for number, content in enumerate(mutated([example])):
        file.write_bytes(content)
        try:
            with nothing_written(tmp_path):
                outcomes.append(outcome(work))
        except Exception as error:
            wrong.append(f"number {number}: {type(error).__name__}: {str(error)[:300]}")
    print(f"{door}: {tally(outcomes)}")
    assert not wrong, f"{len(wrong)} of {KEPT}: " + "\n".join(wrong[:10])
    assert 0 < outcomes.count("right") < len(outcomes)
