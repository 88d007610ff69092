"""The data flow figure shows the maps it is given; words about an ablation follow its numbers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsslib import Episode, build_model, files
from fsslib.errors import FsslibError
from fsslib.plots import ablation as tables
from fsslib.plots import attention
from fsslib.plots import sdaanet_flow as flow
from fsslib.plots.display import picture
from fsslib.training import History


def episode(shot=1, batch=1):
    torch.manual_seed(0)
    masks = torch.zeros(batch, 1, shot, 65, 65, dtype=torch.long)
    masks[..., 10:40, 20:50] = 1
    images = torch.randn(batch, 1, shot, 3, 65, 65)
    return Episode(images[:, 0, 0], masks[:, 0, 0], images, masks, torch.zeros(batch, 1, dtype=torch.long))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = build_model("sdaanet", backbone="tiny", width=8, scales=(1.0, 0.5, 0.25)).eval()
    model.explain = True
    return model


@torch.no_grad()
def drawn(net, episode):
    query, support = net.features(episode)
    prediction = net(episode)
    return flow.dataflow(episode, prediction, (query["deep"], support["deep"]), "a square"), prediction


@pytest.fixture(scope="module")
def sheet(net):
    return drawn(net, episode())


def test_every_map_of_the_episode_stands_in_the_figure(sheet):
    (figure, alt, _), prediction = sheet
    shown = {a.get_title(): np.asarray(a.images[0].get_array()) for a in figure.axes if a.images}
    maps = prediction.maps
    wanted = {"prior R": maps["prior"][0, 0], "attention A": maps["attention"][0, 0]}
    wanted |= {"re-weighted query": maps["query_reweighted"][0].norm(dim=0)}
    wanted |= {"P(object)": prediction.logits[0].softmax(0)[1]}
    wanted |= {f"{s}: aux loss": maps[f"inner/{i}"][0].softmax(0)[1] for i, s in enumerate(("17x17", "8x8", "4x4"))}
    assert all(np.allclose(shown[title], values) for title, values in wanted.items())
    bars = {a.get_title(): [b.get_height() for b in a.patches] for a in figure.axes if a.patches and a.get_title()}
    assert np.allclose(bars["gate $g=(a+1)/2$"], (maps["gate"][0, 0] + 1) / 2)
    assert np.allclose(bars["student $S=g\\cdot p$"], maps["students"][0, 0])
    assert {"query, true mask", "teacher $T=(t+S)/2$"} <= {a.get_title() for a in figure.axes}
    assert "one episode of a square" in alt and "at 3 grids (17x17, 8x8, 4x4)" in alt and picture(figure)
    assert_apart(figure)


def test_the_words_hold_the_iou_of_the_prediction(net):
    given = episode()
    with torch.no_grad():
        predicted = net(given).masks()
    truth = predicted.clone()
    truth[:, ::3], truth[:, 1::4] = 1, 255
    both, either = ((predicted == 1) & (truth == 1)).sum(), ((predicted == 1) | (truth == 1))[truth != 255].sum()
    (_, alt, _), _ = drawn(net, replace(given, query_masks=truth))
    assert f"IoU {100 * both / either:.0f} %" in alt


def assert_apart(figure):
    """No picture leaves the sheet or covers another."""
    places = [a.get_position() for a in figure.axes[1:]]
    assert all(min(p.x0, p.y0) >= 0 and max(p.x1, p.y1) <= 1 for p in places)
    assert not any(p.overlaps(q) for i, p in enumerate(places) for q in places[:i])


def test_the_storyboard_of_sdpm_holds_its_values(net):
    with torch.no_grad():
        prediction = net(episode())
    figure, alt, _ = flow.storyboard(episode(), prediction, "a square")
    maps = prediction.maps
    bars = {a.get_title()[2:]: [b.get_height() for b in a.patches] for a in figure.axes if a.patches and a.get_title()}
    wanted = {"pool: prototype $p$": maps["pooled"][0, 0], "pool: prototype $t$": maps["query_prototype"][0]}
    wanted |= {"gate: $g=(a+1)/2$": (maps["gate"][0, 0] + 1) / 2, "student $S=g\\cdot p$": maps["students"][0, 0]}
    wanted |= {"teacher $T=(t+S)/2$": maps["teacher"][0, 0]}
    assert bars.keys() == wanted.keys() and all(np.allclose(bars[title], wanted[title]) for title in wanted)
    assert_apart(figure)
    apart = 1 - torch.cosine_similarity(maps["students"][0, 0], maps["query_prototype"][0], dim=0)
    assert f"S and t: {apart:.2f}" in alt and picture(figure)


def test_what_cannot_be_drawn_is_refused(net):
    bare = build_model("sdaanet", backbone="tiny", width=8, scales=(1.0, 0.5), saam=False).eval()
    bare.explain, counts = True, "found (episodes, ways, shots) ="
    refused = [(net, {"shot": 2}, f"{counts} (1, 1, 2)"), (net, {"batch": 2}, f"{counts} (2, 1, 1)")]
    for model, size, words in [*refused, (bare, {}, "needs the maps attention:")]:
        with pytest.raises(FsslibError, match=re.escape(words)):
            drawn(model, episode(**size))


def test_ablation_figure_holds_every_score_and_every_training(drawn):
    rows = [
        {"shots": k, "model": m, "miou": [v + k, v - 2, v + 7], "per_seed": [v - 1, v, v + 1]}
        for k in (1, 5)
        for m, v in (("baseline", 60.0), ("+ SDPM", 61.0))
    ]
    figure, alt, data = tables.ablation(rows, {"oracle": 66.0})
    assert data.loc["+ SDPM", "K=5"] == 66 and list(data.index) == ["baseline", "+ SDPM"]
    assert "baseline 61.0 (58.0 to 67.0) at K=1" in alt and alt.endswith("Line: oracle, 66.0.")
    dots = [list(line.get_xdata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert dots == [[59.0, 60.0, 61.0], [60.0, 61.0, 62.0]]
    assert [a.get_title() for a in figure.axes] == ["1 shot", "5 shots"]


def test_losses_are_weighted():
    history = History([{"main": 0.5, "kd": 1e-3, "total": 0.55}, {"main": 0.3, "kd": 5e-4, "total": 0.325}])
    figure, alt, data = tables.weighted_losses(history, {"main": 1.0, "kd": 50.0}, window=1)
    assert data.loc["50 × kd", "first"] == 0.05 and data.loc["main", "last"] == 0.3
    assert "50 × kd from 0.05 to 0.025" in alt and figure.axes[0].get_yscale() == "log"


def test_every_published_number_has_a_source_and_a_tag():
    published = json.loads((files.data_folder() / "published.json").read_text())
    rows = published["sdaanet"] + published["sdaanet_cost"]
    assert rows and all(row["source"] in published["sources"] and row["tag"] in published["tags"] for row in rows)
    own = {(r["dataset"], r["shots"], r["model"]): r for r in published["sdaanet"]}
    for dataset, shot in (("PASCAL-5i", 1), ("COCO-20i", 1), ("COCO-20i", 5)):
        base, both = own[dataset, shot, "baseline (PFENet-like)"], own[dataset, shot, "both"]
        assert both["miou"] - base["miou"] == pytest.approx(both["gain"])


def test_the_storyboard_of_saam_shows_what_the_head_sees_and_says(net):
    one = episode()
    with torch.no_grad():
        prediction = net(one)
    figure, alt, _ = attention.storyboard(one, prediction, "a square")
    shown = {a.get_title()[:1]: np.asarray(a.images[0].get_array()) for a in figure.axes if a.images}
    maps = {name: values[0] for name, values in prediction.maps.items()}
    wanted = {"2": maps["support_features"][0].norm(dim=0), "6": maps["query_features"].norm(dim=0)}
    wanted |= {"4": maps["support_attention"][0].softmax(0)[1], "7": maps["attention"][0]}
    assert shown.keys() == {"1", "2", "4", "5", "6", "7"}
    assert all(np.allclose(shown[title], values) for title, values in wanted.items())
    assert "one episode of a square" in alt and f"to {maps['attention'].max():.1f}" in alt and picture(figure)
    widths = [a.get_position().width * figure.get_figwidth() for a in figure.axes if a.images]
    assert min(widths) >= 1.6, "inches, 160 pixels"
