"""Two finished experiments on the same episodes: the end of the index page, in a sentence, a picture and numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FsslibError
from ..files import located
from .results import differences, finished, paired, read_result

if TYPE_CHECKING:
    from ..analysis.intervals import Interval
    from ..evaluation import Evaluation


def comparison_of(runs: str | Path, names: Mapping[str, str]) -> dict[str, Any]:
    """What the index page says about two runs, the first minus the second.

    Only experiments with one episode list and one protocol are compared; where that is not so, or where a run is not
    finished or has lost its counts, the page says why.

    Args: runs: folder of all runs. names: folder -> what the run is called, two of them.
    Returns: `title`, and `links` to those that are finished (folder -> name); then `problem`, or `verdict`, `picture`
        (a PNG, base64), `alt`, `table` (HTML, in percent) and `terms`.
    """
    folders, (one, two) = [located(runs, "runs") / folder for folder in names], names.values()
    there = {folder.name for folder in finished(runs)}
    shown = {"title": f"{one} minus {two}", "links": {f: name for f, name in names.items() if f in there}}
    try:
        if missing := [name for folder, name in names.items() if folder not in there]:
            raise FsslibError(f"{' and '.join(missing)} did not come to an end; run it again.")
        evaluations = paired(*folders, same_protocol=True)
        differed = differences(*evaluations)
        terms = _terms(evaluations[0], [read_result(folder)["parameters"] for folder in folders])
    except FsslibError as error:
        return shown | {"problem": str(error)}
    shown |= {"verdict": sentence(one, two, differed), "terms": terms}
    return shown | _picture(differed) | {"table": _table((one, two), evaluations, differed)}


def sentence(one: str, two: str, differed: Mapping[int, "Interval"]) -> str:
    """Which of two is ahead, and whether clearly; `differed`: number of shots -> (value, low, high) in points."""
    from ..analysis.intervals import clear

    clauses = []
    for shot, difference in differed.items():
        value, low, high = difference
        side = "clearly ahead of" if value > 0 else "clearly behind"
        word = side if clear(difference, [value]) else "not clearly apart from"
        clauses.append(f"{word} {two} with {_shots(shot)} ({value:+.1f} points, {low:.1f} to {high:.1f})")
    return f"{one} is {' and '.join(clauses)}."


def _shots(count: int) -> str:
    return f"{count} shot{'s' * (count > 1)}"


def _terms(scored: "Evaluation", given: list[dict[str, Any]]) -> str:
    """What the two have in common, and every parameter in which they differ."""
    budget = "fold", "pretrain_steps", "episodic_steps", "batch", "seed"
    same = [f"{name} {given[0][name]}" for name in budget if given[0].get(name) == given[1].get(name)]
    rules = scored.protocol
    common = f"Both: {', '.join(same)}; the same {rules.episodes} episodes (list {rules.list_hash}), the same protocol."
    pairs = {name: [_shown(p.get(name)) for p in given] for name in given[0] if name != "method"}
    other = [f"{name} {' and '.join(values)}" for name, values in pairs.items() if values[0] != values[1]]
    return f"{common} They differ in {'; '.join(other)}." if other else common


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def _picture(differed: Mapping[int, "Interval"]) -> dict[str, str]:
    import base64

    from matplotlib import pyplot as plt

    from ..plots import common, display

    figure, alt, _ = common.differences({_shots(shot): value for shot, value in differed.items()})
    content = display.picture(figure, alt=alt)
    plt.close(figure)
    return {"picture": base64.b64encode(content).decode(), "alt": alt}


def _table(
    names: tuple[str, str], evaluations: tuple["Evaluation", "Evaluation"], differed: Mapping[int, "Interval"]
) -> str:  # fmt: skip
    """An HTML table, a row for each number of shots: both mIoUs and their difference with 95 % intervals."""
    import pandas as pd

    rows, summaries = [], [entry.summary() for entry in evaluations]
    for shot, difference in differed.items():
        cells = ["{miou:.1f} ({low:.1f} to {high:.1f})".format(**summary[shot]) for summary in summaries]
        rows.append([_shots(shot), *cells, "{:+.1f} ({:.1f} to {:.1f})".format(*difference)])
    columns = ["mIoU, 95 % interval", *names, "difference, paired"]
    return pd.DataFrame(rows, columns=columns).to_html(index=False, border=0)
