"""The end of the index page: two experiments on the same episodes, or a sentence that says why there is nothing."""

import base64
import io
import json

import nbformat
import pytest
from PIL import Image
from report_tools import scored

from fsslib.evaluation import Evaluation
from fsslib.experiments import write_index
from fsslib.experiments.comparison import comparison_of, sentence
from fsslib.experiments.pages import external

NAMES = {"one": "SD-AANet", "two": "PANet"}


def finish(folder, shift, parameters=None, **protocol):
    """A finished run, see `scored`."""
    folder.mkdir(parents=True)
    entry = scored(shift, **protocol)
    entry.save(folder / "trained.npz")
    nbformat.write(nbformat.v4.new_notebook(), folder / "report.ipynb")
    result = {"scores": {str(k): {"miou": row["miou"]} for k, row in entry.summary().items()}, "protocol": {}}
    result |= {"versions": {}, "seed": 0, "list_hash": "abc", "duration_s": 2, "parameters": parameters or {}}
    (folder / "result.json").write_text(json.dumps(result))


def test_the_index_ends_with_a_paired_comparison(tmp_path):
    common = {"fold": 0, "pretrain_steps": 15, "episodic_steps": 9, "batch": 8, "seed": 0}
    finish(tmp_path / "one", 10, common | {"method": "sdaanet", "lr": 0.004, "options": {"dropout": 0.1}})
    finish(tmp_path / "two", 0, common | {"method": "panet", "lr": 0.002, "options": {}})
    shown = comparison_of(tmp_path, NAMES)
    assert shown["verdict"].startswith("SD-AANet is clearly ahead of PANet with 1 shot (+")
    assert "and clearly ahead of PANet with 5 shots" in shown["verdict"]
    assert "episodic_steps 9, batch 8, seed 0; the same 40 episodes (list abc)" in shown["terms"]
    assert 'differ in lr 0.004 and 0.002; options {"dropout": 0.1} and {}.' in shown["terms"]
    assert "1 shot: +" in shown["alt"] and "higher" in shown["alt"]
    assert Image.open(io.BytesIO(base64.b64decode(shown["picture"]))).text["Description"] == shown["alt"]

    page = write_index(tmp_path, compared=NAMES).read_text()
    scores, end = page.split("<h2>SD-AANet minus PANet</h2>")
    assert "<h2>Scores</h2>" in scores and shown["verdict"] in end and shown["picture"] in end and external(page) == []
    assert '<a href="one/report.html">SD-AANet</a>, <a href="two/report.html">PANet</a>' in end
    assert "SD-AANet minus PANet" not in write_index(tmp_path).read_text()


def test_what_cannot_be_compared_is_explained(tmp_path):
    finish(tmp_path / "one", 10)
    shown = comparison_of(tmp_path, NAMES)
    assert shown["problem"] == "PANet did not come to an end; run it again." and shown["links"] == {"one": "SD-AANet"}
    finish(tmp_path / "two", 0, annotation="box")
    assert "different protocols: annotation mask and box" in comparison_of(tmp_path, NAMES)["problem"]
    counts, scored = tmp_path / "two" / "trained.npz", Evaluation.load(tmp_path / "one" / "trained.npz")
    Evaluation({3: scored.scores[1]}, scored.protocol, {3: 0.1}, ()).save(counts)
    assert "with [1, 5] shots, the other with [3]" in comparison_of(tmp_path, NAMES)["problem"]
    counts.unlink()
    assert "two holds no trained.npz" in comparison_of(tmp_path, NAMES)["problem"]
    end = write_index(tmp_path, compared=NAMES).read_text().split("SD-AANet minus PANet")[1]
    assert "There is no comparison: two holds no trained.npz" in end and '<a href="two/report.html">PANet</a>' in end


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ((8.1, 5.9, 10.4), "clearly ahead of B with 1 shot (+8.1 points, 5.9 to 10.4)"),
        ((-2.1, -3.1, -1.2), "clearly behind B with 1 shot (-2.1 points, -3.1 to -1.2)"),
        ((0.4, -1.2, 2.0), "not clearly apart from B with 1 shot (+0.4 points, -1.2 to 2.0)"),
    ],
)
def test_the_sentence_says_clear_only_where_the_interval_does(difference, words):
    assert sentence("A", "B", {1: difference}) == f"A is {words}."
