"""Runs beside each other: paired on the same episodes, and averaged over training seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ParameterError, ProtocolError

if TYPE_CHECKING:
    import pandas as pd

COUNTS = "trained.npz"  # the counts of every episode, as the notebook `experiment` leaves them
_NOT_A_SETTING = {
    *["run", "seed", "duration_s", "miou", "low", "high", "fb_iou", "seconds", "gain", "gain_low", "gain_high"]
}


def compare(run: str | Path, reference: str | Path) -> "pd.DataFrame":
    """Score of `run` minus score of `reference` (folders of finished experiments), paired on the same episodes.

    Returns one row per number of shots that both have: both mIoUs, their difference and its 95 % interval, in percent.
    Raises ParameterError when a run holds no counts, or when the two were scored on different episode lists.
    """
    import pandas as pd

    from ..evaluation import Evaluation  # imports torch

    both = []
    for folder in (Path(run), Path(reference)):
        if not (folder / COUNTS).is_file():
            raise ParameterError(f"{folder} holds no {COUNTS}: give the folder of a finished experiment.")
        both.append(Evaluation.load(folder / COUNTS))
    one, two = both
    if one.protocol.list_hash != two.protocol.list_hash:
        lists = f"{one.protocol.list_hash} and {two.protocol.list_hash}"
        raise ParameterError(f"the runs were scored on different episodes ({lists}): use equal folds, shots and seeds.")
    rows = []
    for shot in sorted(one.scores.keys() & two.scores.keys()):
        try:
            difference = [100 * value for value in one.scores[shot].difference(two.scores[shot])]
        except ProtocolError as error:
            raise ParameterError(str(error)) from error
        mious = (100 * one.scores[shot].miou, 100 * two.scores[shot].miou)
        rows.append((shot, *mious, *difference))
    return pd.DataFrame(rows, columns=["shots", "run", "reference", "difference", "low", "high"])


def over_seeds(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of `collect` that differ in the training seed alone, as one: mean mIoU and its 95 % interval over seeds.

    The interval is Student's t over the seeds' scores and is left empty for a single seed. It covers what another
    training would change; the intervals within a run cover what other episodes would.
    """
    import pandas as pd
    from scipy.stats import t

    settings = [name for name in table.columns if name not in _NOT_A_SETTING]
    keys = table[settings].astype(str).agg("|".join, axis=1)
    rows = []
    for _, group in table.groupby(keys, sort=False):
        n, mean = len(group), float(group["miou"].mean())
        half = float(t.ppf(0.975, n - 1) * group["miou"].std() / n**0.5) if n > 1 else float("nan")
        shared = {name: group[name].iloc[0] for name in settings}
        rows.append({**shared, "training_seeds": n, "miou": mean, "low": mean - half, "high": mean + half})
    return pd.DataFrame(rows)
