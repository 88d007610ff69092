"""The file `result.json` an experiment leaves behind: checking, writing, collecting and comparing."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError, ProtocolError
from ..files import located, parse_json, plain, read_text, write_text

if TYPE_CHECKING:
    import pandas as pd

    from ..analysis.intervals import Interval
    from ..evaluation import Evaluation

RESULT = "result.json"
REQUIRED = {
    "scores": dict,  # shot -> {measure: number}; lists and dictionaries beside the numbers are allowed
    "protocol": dict,  # every choice that moves a score
    "versions": dict,  # package -> version
    "seed": int,  # of initialisation and training
    "list_hash": str | dict,  # of the evaluation episodes; one text, or one for each shot
    "duration_s": int | float,
    "parameters": dict,
}
COUNTS = "trained.npz"  # the counts of every episode, as the notebook `experiment` leaves them
_NOT_A_SETTING = {"run", "seed", "workers", "duration_s", "miou", "low", "high", "fb_iou", "seconds"}
_NOT_A_SETTING |= {"gain", "gain_low", "gain_high"}


def check_result(result: dict[str, Any], where: str = "the result") -> dict[str, Any]:
    """The result as JSON gives it back. Raises ParameterError, listing every problem, unless it holds what REQUIRED
    asks for."""
    if not isinstance(result, dict):
        raise ParameterError(f"{where}: expected a dictionary, found {type(result).__name__}.")
    problems = []
    try:
        result = plain(result, "result")
    except (TypeError, RecursionError) as error:
        problems.append(f"it cannot be written as JSON: {error}; convert tensors and other objects")
    for name, kind in REQUIRED.items():
        value = result.get(name)
        if name not in result:
            problems.append(f"the key {name!r} is missing")
        elif not isinstance(value, kind) or isinstance(value, bool):
            names = getattr(kind, "__name__", str(kind).replace("|", "or"))
            problems.append(f"{name!r} must be {names}, found {type(value).__name__}")
    scores = result.get("scores")
    if scores == {}:
        problems.append("'scores' is empty")
    for shot, measures in scores.items() if isinstance(scores, dict) else ():
        if not str(shot).isdigit() or int(shot) < 1:
            problems.append(f"'scores' has the key {shot!r}, expected a number of shots")
        if not isinstance(measures, dict) or not any(map(_is_number, measures.values())):
            problems.append(f"'scores' for {shot} shots must be a dictionary with at least one number")
    if problems:
        raise ParameterError(f"{where}: {'; '.join(problems)}.")
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def write_result(path: str | Path | None, result: dict[str, Any]) -> Path | None:
    """Check a result and write it, whole or not at all, as `result.json` (into `path` if that is a folder).

    With `path=None` it is checked only: a notebook run by hand leaves no file. Absolute paths among the parameters are
    shortened to their last part, a result is to be passed on. Returns the file written.
    Raises ParameterError for missing keys, wrong types or numbers that are not finite.
    """
    result = check_result(result)
    if path is None:
        return None
    short = {k: Path(v).name for k, v in result["parameters"].items() if isinstance(v, str) and os.path.isabs(v)}
    parameters = {**result["parameters"], **short}
    result = {"command": command(parameters), **result, "parameters": parameters}
    return write_text(_file(path), json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def command(parameters: dict[str, Any]) -> str:
    """The command line that runs an experiment with these parameters; what has its default is left out."""
    from .parameters import ExperimentParameters  # imports pydantic

    known = ExperimentParameters.model_fields
    given = {k: v for k, v in parameters.items() if k in known and v != known[k].default}
    pairs = [f"-p {shlex.quote(f'{k}={_typed(v)}')}" for k, v in given.items()]
    return " ".join(["python -m fsslib.experiments run", *pairs])


def _typed(value: Any) -> str:
    """A value as the command line reads it: texts as they are, unless they would be read as something else there."""
    try:
        json.loads(value if isinstance(value, str) else "0")
    except ValueError:
        if value not in ("None", "True", "False"):
            return value
    return json.dumps(value)


def _file(path: str | Path) -> Path:
    path = located(path, "result", ParameterError)
    return path / RESULT if path.is_dir() else path


def read_result(path: str | Path) -> dict[str, Any]:
    """A checked result from its file (or from the folder of its run). Raises ParameterError if it is not one."""
    path = _file(path)
    if not path.is_file():
        raise ParameterError(f"there is no result {path}.")
    cure = "Delete it and run the experiment again."
    text = read_text(path, "the result", cure, ParameterError)
    result = parse_json(text, f"{path} is not a JSON file", cure, ParameterError)
    return check_result(result, str(path))


def collect(runs: str | Path = "runs") -> "pd.DataFrame":
    """One row for each finished run and shot: `run`, the parameters, `shot`, the numbers of its score, `list_hash`,
    `duration_s`. Unfinished runs are left out. The parameter `shots` is left out: each row has its `shot`.

    Raises ParameterError for a damaged result.
    """
    import pandas as pd

    return pd.DataFrame(rows(runs))


def rows(runs: str | Path = "runs") -> list[dict[str, Any]]:
    """The rows of `collect` as plain dictionaries."""
    collected = []
    for folder in finished(runs):
        if not (folder / RESULT).is_file():
            continue  # a stage notebook, which has no score
        result = read_result(folder)
        given = {k: v for k, v in result["parameters"].items() if k not in ("shots", "out")}
        digest = result["list_hash"]
        for shot, measures in sorted(result["scores"].items(), key=lambda item: int(item[0])):
            about = {"list_hash": digest.get(shot) if isinstance(digest, dict) else digest}
            about["duration_s"] = result["duration_s"]
            numbers = {k: v for k, v in measures.items() if _is_number(v)}
            collected.append({"run": folder.name, **given, "shot": int(shot), **numbers, **about})
    return collected


def finished(runs: str | Path) -> list[Path]:
    """Folders of finished runs, by name."""
    folders = located(runs, "runs").glob("*/report.ipynb")
    return sorted(f.parent for f in folders if not f.parent.name.endswith(".part"))


def compare(run: str | Path, reference: str | Path) -> "pd.DataFrame":
    """Score of `run` minus score of `reference` (folders of finished experiments), paired on the same episodes.

    Returns one row per number of shots that both have: both mIoUs, their difference and its 95 % interval, in percent.
    Raises ParameterError as `paired` and `differences`.
    """
    import pandas as pd

    one, two = paired(run, reference)
    differed = differences(one, two).items()
    rows = [(shot, 100 * one.scores[shot].miou, 100 * two.scores[shot].miou, *found) for shot, found in differed]
    return pd.DataFrame(rows, columns=["shots", "run", "reference", "difference", "low", "high"])


def differences(one: "Evaluation", two: "Evaluation") -> dict[int, "Interval"]:
    """Number of shots -> paired difference in points, for those that both were scored with.
    Raises ParameterError where they share none."""
    shots = sorted(one.scores.keys() & two.scores.keys())
    if not shots:
        raise ParameterError(f"one was scored with {[*one.scores]} shots, the other with {[*two.scores]}.")
    return {shot: tuple(100 * v for v in one.scores[shot].difference(two.scores[shot])) for shot in shots}


def paired(
    run: str | Path, reference: str | Path, same_protocol: bool = False
) -> tuple["Evaluation", "Evaluation"]:  # fmt: skip
    """The counts of two finished experiments that were scored on the same episodes.

    Args: same_protocol: refuse also where another choice of the protocol differs, such as the supports' annotation.
    Raises ParameterError when a run holds no counts that can be read, or when the two must not be compared.
    """
    from ..evaluation import Evaluation  # imports torch

    found = []
    for folder in map(Path, (run, reference)):
        if not (folder / COUNTS).is_file():
            cure = "give the folder of a finished experiment, or run it again with --force"
            raise ParameterError(f"{folder.name} holds no {COUNTS}, the counts of every episode: {cure}.")
        try:
            found.append(Evaluation.load(folder / COUNTS))
        except ProtocolError as error:
            raise ParameterError(f"{folder.name}: {COUNTS} cannot be read: run the experiment again.") from error
    one, two = (entry.protocol for entry in found)
    if one.list_hash != two.list_hash:
        lists = f"{one.list_hash} and {two.list_hash}"
        raise ParameterError(f"the runs were scored on different episodes ({lists}): use equal folds, shots and seeds.")
    choices = {name: (value, two.as_dict()[name]) for name, value in one.as_dict().items()}
    other = [f"{name} {mine} and {theirs}" for name, (mine, theirs) in choices.items() if mine != theirs]
    if same_protocol and other:
        raise ParameterError(f"the runs were scored under different protocols: {', '.join(other)}.")
    return tuple(found)


def over_seeds(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of `collect` that differ in the training seed alone, as one: mean mIoU and its 95 % interval over seeds.

    The interval is Student's t over the seeds' scores and is left empty for a single seed. It covers what another
    training would change; the intervals within a run cover what other episodes would.
    """
    from scipy.stats import t

    settings = [name for name in table.columns if name not in _NOT_A_SETTING]
    keys = table[settings].map(str).agg("|".join, axis=1)  # astype leaves what is missing as it is
    found = table["miou"].groupby(keys, sort=False).agg(["count", "mean", "sem"]).reset_index(drop=True)
    half = found["sem"] * t.ppf(0.975, found["count"] - 1)
    numbers = {"training_seeds": found["count"], "miou": found["mean"]}
    numbers |= {"low": found["mean"] - half, "high": found["mean"] + half}
    return table[settings].groupby(keys, sort=False).head(1).reset_index(drop=True).assign(**numbers)
