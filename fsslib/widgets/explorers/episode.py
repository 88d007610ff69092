"""`explore_episode`: any class, any supports, any query, any method."""

from __future__ import annotations

from collections.abc import Mapping

from ...data.base import SegmentationDataset
from ...models.base import FewShotModel
from ...ops import strongest
from .. import panels
from ..episode_controls import EpisodeControls
from ..explained_models import Memo, ModelChoice
from ..explorer import Explorer, Scene, dropdown


def explore_episode(
    dataset: SegmentationDataset | Mapping[str, object] | None = None,
    models: FewShotModel | Mapping[str, object] | None = None,
    *,
    size: int | None = None,
    shots: int = 1,
) -> Explorer:
    """Pick data set, fold, class, supports and query; see the masks, and what a method makes of them.

    Args:
        dataset: see `EpisodeControls`: one data set, several by label, or None for Shapes-5i.
        models: see `ModelChoice`: one model, several by label, or None for the shipped four.
        size: pixels a side; None: what suits the chosen model's backbone.
        shots: supports at first.
    Returns:
        an `Explorer` with the controls `data`, `fold`, `cls`, `shots`, `support`, `query`, `method`, those that have a
        choice; facts `iou` (0..1), `episode` (the `Episode`) and `prediction` (H, W).
    """
    benches, memo = ModelChoice(models), Memo()
    method = dropdown("Method", benches.labels)

    def bench():
        return benches(method.value, picks.fold)

    picks = EpisodeControls(dataset, size=lambda: size or bench().size, shots=shots)

    def draw(**_) -> Scene:
        episode, own = picks.episode(), bench()
        logits = memo((picks.key, method.value), lambda: own(episode).logits.cpu())
        found = strongest(logits)[0]
        shown = [
            panels.photo(f"support {k}", f"Support {k + 1}: {picks.name}", image, mask)
            for k, (image, mask) in enumerate(zip(episode.support_images[0, 0], episode.support_masks[0, 0]))
        ]
        query, truth = episode.query_images[0], episode.query_masks[0]
        shown += [panels.photo("query", "Query", query), panels.photo("truth", "True mask", query, truth)]
        predicted, score = panels.prediction("prediction", method.value, query, found, truth)
        words = f"{method.value} finds {score:.0%} (IoU) of {picks.name} from {episode.shot} support(s). "
        facts = {"iou": score, "episode": episode, "prediction": found}
        return Scene([*shown, predicted], words + own.note(episode.shot), facts)

    return Explorer({**picks.controls, "method": method}, draw, label="Episode explorer", prepare=picks.prepare)
