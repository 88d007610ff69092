"""`explore_episode`: any class, any supports, any query, any method."""

from ...ops import strongest
from .. import panels
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import Memo, ModelChoice, Models
from ..explorer import Explorer, Scene, dropdown


def explore_episode(
    dataset: Datasets = None, models: Models = None, *, size: int | None = None, shots: int = 1
) -> Explorer:
    """Pick data set, fold, class, supports and query; see the masks, and what a method makes of them.

    Args:
        dataset: see `EpisodeControls`: one data set, several by label, or None for Shapes-5i.
        models: see `ModelChoice`: one model, several by label, or None for the shipped four.
        size: pixels a side; None: what suits the chosen model's backbone. shots: supports at first.
    Returns:
        an `Explorer` with the controls `data`, `fold`, `cls`, `shots`, `support`, `query`, `method`, those that have a
        choice; facts `iou` (0..1), `episode` (the `Episode`) and `prediction` (H, W).
    """
    choice, memo = ModelChoice(models), Memo()
    method = dropdown("Method", choice.labels)
    picks = EpisodeControls(dataset, lambda fold: choice(method.value, fold), size=size, shots=shots)

    def draw(**_) -> Scene:
        episode, model = picks.episode(), picks.model
        query, truth = episode.query_images[0], episode.query_masks[0]
        mask = strongest(memo((picks.key, method.value), lambda: model(episode).logits))[0]
        shown = panels.supports(episode, picks.name)
        shown += [panels.photo("query", "Query", query), panels.photo("truth", "True mask", query, truth)]
        predicted, score = panels.prediction("prediction", method.value, query, mask, truth)
        words = f"{method.value} finds {score:.0%} (IoU) of {picks.name} from {episode.shot} support(s). "
        facts = {"iou": score, "episode": episode, "prediction": mask}
        return Scene([*shown, predicted], words + model.note(episode.shot), facts)

    return Explorer({**picks.controls, "method": method}, draw, label="Episode explorer", prepare=picks.prepare)
