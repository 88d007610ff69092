"""`explore_protocol`: a switchboard of protocol choices that moves a score and its interval, with the weights held."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ...analysis.intervals import Interval, apart, percent, verdict
from ...data import load_dataset
from ...data.base import SegmentationDataset
from ...evaluation import Evaluation, evaluate
from ...models.base import FewShotModel
from ...models.shot_by_shot import MEAN, VOTE
from ...nn.backbones.cached import MemoryStore
from ...plots.common import score_bars
from ...plots.display import picture
from ...protocol import Protocol
from ..board import Panel
from ..explained_models import ExplainedModel, Memo
from ..explorer import Explorer, Scene, dropdown, slider, steps, switch

OWN = "the method's own"
SHOTS = (1, 5)


def explore_protocol(
    model: FewShotModel | str | Path = "panet", dataset: SegmentationDataset | None = None, *, episodes: int = 50
) -> Explorer:
    """The same weights under other rules: every control is a choice that papers make, and the score follows.

    Args: model: see `ExplainedModel`. dataset: None: novel classes of Shapes-5i, fold 0. episodes: at first.
    Returns:
        an `Explorer` with the controls `average` ("classes" or "images"), `shots`, `merge` (of five shots), `way`,
        `counting`, `absent`, `list` (its seed) and `episodes`. Facts: `score` and `reference`, (value, low, high) in
        percent, of these rules and of the ones at first; `difference` of the two, and whether it is `paired`: same
        episodes, same counting of pixels; `protocol`, the card.
    """
    net = ExplainedModel(model).model
    data = load_dataset("shapes", fold=0, split="test", val_classes=0) if dataset is None else dataset
    memo, store, first = Memo(64), MemoryStore(), Protocol.shapes5i(episodes=episodes)
    controls = {
        "average": dropdown("Mean over", ("classes", "images")),
        "shots": dropdown("Shots", SHOTS),
        "merge": dropdown("Five shots by", (OWN, VOTE, MEAN)),
        "way": dropdown("Ways", (1, 2)),
        "counting": dropdown("False positives count", (("everywhere", "all"), ("where the class is", "present"))),
        "absent": switch("3 of 10 queries without the class", False),
        "list": slider("List (seed)", 0, 0, 9),
        "episodes": steps("Episodes", (25, 50, 100, 200), episodes),
    }

    def scored(rules: Protocol) -> Evaluation:
        how = {"shots": SHOTS, "cache": store, "progress": False}
        return memo((str(rules.as_dict()),), lambda: evaluate(net, data, rules, **how))

    def prepare(_) -> None:
        controls["merge"].disabled = controls["shots"].value == 1
        controls["counting"].disabled = controls["absent"].value  # an absent class is then all that is asked

    def draw(average, shots, merge, way, counting, absent, episodes, **values) -> Scene:
        changes = {"way": way, "seeds": (values["list"],), "episodes": int(episodes)}
        changes |= {"absent": 0.3} if absent else {"counting": counting}
        if shots > 1 and merge != OWN:
            changes["k_merge"] = merge
        before, after = scored(first), scored(first.replace(**changes))
        reference, score = _score(before, 1, "classes"), _score(after, shots, average)
        paired = before.protocol.list_hash == after.protocol.list_hash and average == "classes"
        difference = percent(after.scores[shots].difference(before.scores[1])) if paired else apart(score, reference)
        facts = {"score": score, "reference": reference, "difference": difference, "paired": paired}
        words = verdict("These rules - the reference", difference) + ("" if paired else " (not paired)")
        return Scene([_bars(reference, score)], f"{words}.", facts | {"protocol": after.protocol})

    return Explorer(controls, draw, label="Switchboard of a protocol", prepare=prepare)


def _score(evaluation: Evaluation, shots: int, average: str) -> Interval:
    scores = evaluation.scores[shots]
    if average == "images":
        return percent((scores.image_iou, *scores.image_interval()))
    return percent((scores.miou, *scores.interval()))


def _bars(reference: Interval, score: Interval) -> Panel:
    from PIL import Image

    figure, alt, _ = score_bars({"the reference": reference, "these rules": score}, "score, %")
    figure.axes[0].set_xlim(0, 100)
    pixels = np.asarray(Image.open(io.BytesIO(picture(figure))).convert("RGB"))
    plt.close(figure)
    return Panel("score", "The same weights: reference and these rules, with 95 % intervals", alt, pixels, width=560)
