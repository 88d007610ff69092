"""The frame of the explorers, without a browser: drawing, controls, errors, stills, models left as they were."""

import asyncio
import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import ipywidgets
import numpy as np
import pytest
import torch
from explorer_tools import as_made, keys, overlap
from PIL import Image

from fsslib import build_model, load_dataset, load_model
from fsslib.checkpoints import shipped
from fsslib.errors import DatasetError, FsslibError
from fsslib.ops import strongest
from fsslib.widgets import explore_episode, explorer, snapshot
from fsslib.widgets.board import Bars, Panel
from fsslib.widgets.episode_controls import EpisodeControls
from fsslib.widgets.explained_models import ExplainedModel, Memo, ModelChoice
from fsslib.widgets.explorer import Explorer, Scene

GREY = np.full((20, 30, 3), 128, np.uint8)


def counting(**options):
    """An explorer of two numbers that writes down what it was asked to draw."""
    drawn = []

    def draw(a, b, point):
        drawn.append((a, b))
        if a == 9:
            raise ValueError("nine is too much")
        if a == 8:
            raise DatasetError("eight is no picture.")
        return Scene([Panel("one", f"a = {a}", f"the number {a}", GREY)], f"a is {a}, b is {b}", {"sum": a + b})

    controls = {"a": ipywidgets.IntSlider(1, 0, 10), "b": ipywidgets.IntSlider(2, 0, 10)}
    return Explorer(controls, draw, label="Numbers", **options), drawn


def test_a_value_set_from_python_shows_at_once():
    assert explorer.from_page() is False
    found, drawn = counting()
    assert drawn == [(1, 2)] and found.board.words == "a is 1, b is 2"
    found.controls["a"].value = 5
    assert drawn[-1] == (5, 2) and found.board.words == "a is 5, b is 2" and found.scene.facts["sum"] == 7
    assert found.board.panels[0]["caption"] == "a = 5" and not found.board.busy
    assert found.set(a=3, b=4) is found
    assert drawn == [(1, 2), (5, 2), (3, 4)], "several values, one drawing"
    assert found.runs == 3


def test_mistakes_are_told_on_the_page_and_lose_nothing():
    found, _ = counting()
    with pytest.raises(ValueError, match="nine"):
        found.controls["a"].value = 9
    assert found.board.trouble == "ValueError: nine is too much" and not found.board.busy
    assert found.board.panels[0]["caption"] == "a = 1", "the last picture stays"
    with pytest.raises(DatasetError):
        found.set(a=8)
    assert found.board.trouble == "eight is no picture."
    found.set(a=2)
    assert found.board.trouble == "" and found.board.words == "a is 2, b is 2"
    for change, told in (({"c": 1}, "no control 'c'; there are: a, b, point"), ({"b": "many"}, "b='many'")):
        with pytest.raises(FsslibError, match=told):
            found.set(**change)


def test_controls_that_change_others_are_settled_before_drawing():
    seen = []

    def prepare(changed):
        seen.append(changed)
        if changed == "a":
            found.controls["b"].value = found.controls["a"].value

    found, drawn = counting(prepare=prepare)
    found.controls["a"].value = 7
    assert drawn == [(1, 2), (7, 7)] and seen == [None, "a"]


def test_a_still_stands_in_where_no_kernel_runs():
    found, _ = counting()
    data, notes = found._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    (mime,) = [key for key in data if key.startswith("image/")]  # whichever is smaller
    assert data["text/plain"] == "Numbers: a = 1. a is 1, b is 2" == notes[mime]["alt"]
    picture = Image.open(io.BytesIO(base64.b64decode(data[mime]))).convert("RGB")
    pixels, high = np.asarray(picture).astype(int), snapshot.SIDE * 20 // 30
    assert picture.width >= snapshot.SIDE and picture.height > high
    assert abs(pixels[high // 2, 60] - 128).max() <= 3, "the picture"
    assert pixels[high + 2 :].min() < 140, "and its caption"


def test_bars_are_numbers_in_words_too():
    bars = Bars("k", "Shares", {"channel 3": {"teacher": 0.25, "student": 0.125}}, form="{:.3f}")
    assert bars.alt == "Shares. channel 3: teacher 0.250, student 0.125."
    row = bars.message()["bars"][0]
    assert row["label"] == "channel 3" and [v["text"] for v in row["values"]] == ["0.250", "0.125"]


def test_large_pictures_travel_as_jpeg_and_small_ones_without_loss():
    noise = np.random.default_rng(0).integers(0, 255, (97, 97, 3), dtype=np.uint8)
    small = Panel("s", "s", "noise", noise, marks=[(3, 4, "", "cross")], pick=True).message()
    assert small["mime"] == "image/png" and small["at"] == [3, 4] and small["size"] == [97, 97]
    assert (np.asarray(Image.open(io.BytesIO(small["image"]))) == noise).all()
    assert Panel("l", "l", "grey", np.full((300, 300, 3), 9, np.uint8)).message()["mime"] == "image/jpeg"


def in_a_loop(steps):
    """In a thread of its own: a browser that other tests have opened keeps this one's loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, steps).result()


def test_messages_of_the_page_wait_for_a_moment_and_only_the_last_counts(monkeypatch):
    """Fifty moves while a slow model runs: at most three runs, and it ends at the last value."""
    monkeypatch.setattr(explorer, "from_page", lambda: True)
    drawn = []

    def draw(a, point):
        drawn.append(a)
        time.sleep(0.5)
        return Scene([Panel("p", f"a = {a}", "a grey picture", GREY)], "")

    async def moves():
        slider = ipywidgets.IntSlider(0, 0, 50)
        found = Explorer({"a": slider}, draw, label="Slow")
        assert drawn == [0]
        slider.value = 1
        await asyncio.sleep(0.1)  # the first run begins; what the page sends meanwhile arrives behind it
        start = time.monotonic()
        for value in range(2, 51):
            slider.value = value
            await asyncio.sleep(0)
        waits = (time.monotonic() - start) // explorer.PATIENCE
        await asyncio.sleep(0.2)
        return found, waits

    found, waits = in_a_loop(moves())
    assert drawn[-1] == 50 and found.board.panels[0]["caption"] == "a = 50"
    assert len(drawn) - 1 <= 3 + waits, drawn  # on a slow machine the moves themselves take longer than patience lasts


def test_every_control_that_the_page_has_moved_is_settled(monkeypatch):
    monkeypatch.setattr(explorer, "from_page", lambda: True)

    async def move():
        settled = []
        found, drawn = counting(prepare=settled.append)
        for name, value in {"b": 3, "a": 4}.items():
            found.controls[name].value = value
        found.controls["b"].value = 5
        await asyncio.sleep(0.1)
        assert settled == [None, "a", "b"] and drawn == [(1, 2), (4, 5)]
        found.controls["a"].value = 8
        await asyncio.sleep(0.1)
        assert found.board.trouble == "eight is no picture.", "trouble on the page stays there"

    in_a_loop(move())


def test_an_explained_model_is_left_as_it_was():
    model, episode = build_model("asgnet", backbone="tiny", width=32).train(), EpisodeControls().episode()
    plain, before, explained = model.backbone, model.max_superpixels, ExplainedModel(model)
    one = explained(episode, max_superpixels=1)
    assert one.maps["prototypes"].shape[1] == 1 and one.maps.keys() > {"guide", "probability"}
    assert model.training and not model.explain and model.backbone is plain and model.max_superpixels == before
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert torch.equal(explained(episode).logits, model.eval()(episode).logits)
    with pytest.raises(AttributeError), explained.ready(no_such_option=1):
        pass
    assert model.backbone is plain and not model.explain


def test_features_of_unchanged_images_are_not_computed_again(monkeypatch):
    model, calls = load_model(shipped("panet")), []
    backbone, forward = type(model.backbone), type(model.backbone).forward
    monkeypatch.setattr(backbone, "forward", lambda *given: calls.append(len(given[1])) or forward(*given))
    found = explore_episode(models=model)
    assert calls == [2]
    for query in (9, 5):  # the support is known, and then both are
        found.set(query=query)
        assert calls == [2, 1]


def test_models_by_name_file_function_and_fold(tmp_path):
    shipped_four = ModelChoice()
    assert shipped_four.labels == ["PANet", "SD-AANet", "ASGNet", "HDMNet"]
    assert shipped_four("PANet", 2).note(1) == "" and shipped_four("PANet", 2) is shipped_four("PANet", 2)
    assert "has seen the classes of fold 2" in shipped_four("HDMNet", 2).note(1)
    own = ModelChoice({"file": str(shipped("panet")), "made": lambda fold: load_model(shipped("panet", fold=fold))})
    assert own("file", 3) is own("file", 0) and own("made", 1) is not own("made", 0)
    assert ModelChoice(load_model(shipped("sdaanet"))).labels == ["SD-AANet"]


def test_memo_forgets_the_oldest():
    memo, made = Memo(2), []
    for key in (1, 2, 1, 3, 1, 2):
        memo((key,), lambda key=key: made.append(key))
    assert made == [1, 2, 3, 2]


def test_episode_controls_offer_what_there_is():
    picks = EpisodeControls()
    assert list(picks.controls) == ["fold", "cls", "shots", "support", "query"]
    assert picks.name == "disc/stripes"
    fold0 = picks.episode()
    picks.controls["fold"].value = 1
    picks.prepare("fold")
    assert picks.cls in load_dataset("shapes", fold=1, split="test").classes and picks.cls not in (1, 6, 11)
    assert not torch.equal(picks.episode().query_images, fold0.query_images)
    picks.controls["query"].value = picks.controls["support"].value + 1
    picks.controls["shots"].value = 3
    supports, query = picks.indices()
    assert len(supports) == 3 and query not in supports and picks.episode() is picks.episode()
    assert torch.equal(picks.episode().validate().query_masks[0] == 1, picks.dataset[query][1] == picks.cls)
    one = load_dataset("shapes", fold=2, split="val")
    alone = EpisodeControls(one, show=("cls", "query"))
    assert list(alone.controls) == ["cls", "query"] and alone.dataset is one
    two = EpisodeControls({"a": one, "b": lambda fold: load_dataset("shapes", fold=fold, split="test")})
    assert list(two.controls)[:2] == ["data", "fold"] and two.controls["fold"].disabled
    two.controls["data"].value = "b"
    two.prepare("data")
    assert not two.controls["fold"].disabled and two.dataset.split == "test"
    with pytest.raises(DatasetError, match="no data set"):
        EpisodeControls({})


def test_the_episode_explorer_shows_what_the_library_computes():
    found = as_made("explore_episode").set(shots=2)
    facts, model = found.scene.facts, load_model(shipped("panet"))
    with torch.no_grad():
        wanted = strongest(model(facts["episode"]).logits)[0]
    assert torch.equal(facts["prediction"], wanted) and facts["episode"].shot == 2
    assert facts["iou"] == pytest.approx(overlap(wanted, facts["episode"].query_masks[0]))
    assert keys(found) == ["support 0", "support 1", "query", "truth", "prediction"]
    for name, value in {"fold": 1, "shots": 5, "support": 7, "query": 30, "method": "ASGNet"}.items():
        before = found.scene.facts["prediction"]
        found.set(**{name: value})
        assert not torch.equal(found.scene.facts["prediction"], before), name
    assert len(found.scene.panels) == 8 and "trained" not in found.scene.words
    assert "has seen the classes of fold 1" in found.scene.words
    mine = {"mine": build_model("panet", backbone="tiny")}
    found = explore_episode(load_dataset("shapes", fold=3, split="test"), mine)
    assert "fold" not in found.controls and found.controls["method"].options == ("mine",)


@pytest.mark.parametrize("method", ["PANet", "SD-AANet", "ASGNet", "HDMNet"])
def test_the_next_picture_is_there_in_time(method):
    found, times = as_made("explore_episode").set(method=method), []
    for query in range(20, 23):
        start = time.process_time()
        found.set(query=query)
        times.append(time.process_time() - start)
    assert sorted(times)[1] < 0.5, times  # the median of this process's time: 0.02 to 0.15 on a quiet machine
