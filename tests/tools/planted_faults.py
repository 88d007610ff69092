"""Plants one small fault after another in a copy of the library and runs the tests that have to notice it.

python tests/tools/planted_faults.py --jobs 2                       every fault, about half a minute each
python tests/tools/planted_faults.py --only test_folds fsslib/nn    those of these tests, files or words of the line
python tests/tools/planted_faults.py --check                        run nothing: is every line there, and every test?

Lines are found by their text and tests by their file's name, wherever in the tree they stand. Exit status 1 if a fault
was missed, or if a line is not there exactly once.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Lines as they are, with the fault, and what notices.
# fmt: off
FAULTS = {
    # top-level modules, start-up and training
    "__version__, install_former_names, on_demand": ("*\nimport torch", "test_startup"),
    "return sorted({*space, *home_of, *": ("return sorted({*space, *", "test_startup"),
    "return self.lr * (1 - (step + 1) / self.steps)": ("return self.lr * (1 - step / self.steps)", "test_training"),
    "wrong = int(torch.stack(self._outside).sum())": ("wrong = 0", "test_metrics"),
    "confusion.sum(1) - diagonal": ("confusion.sum(1)", "test_metrics"),
    "_HALF = 0.5 - 1e-6": ("_HALF = 0.5 + 1e-6", "test_merging"),
    "_divisor((target != IGNORE).sum())": ("torch.tensor(target.numel())", "test_ops test_panet"),
    "if self.best is None or score > self.best:": ("if self.best is None or score >= self.best:", "test_selection"),
    # nn
    "if self.training and features.numel() == features.shape[1]:": ("if self.training:", "test_enrichment"),
    # what the networks compute with
    "return rows.T @ masks.to(rows.dtype) @ columns": ("return rows.T @ masks.float().sqrt() @ columns", "test_ops"),
    "factor = (gate + 1) / 2": ("factor = gate", "test_sdaanet test_golden_sdaanet"),
    'if merge == "mean":': ('if merge == "sum":', "test_superpixels"),
    "[order // width, order % width]": ("[order // width, order // width]", "test_superpixels"),
    # models
    "torch.stack([masks == 0, masks == 1], 3)": ("torch.stack([masks != 1, masks == 1], 3)", "test_golden_all"),
    'terms["query"] + self.align_weight * terms["align"]': ('terms["query"] + terms["align"]', "test_panet"),
    # data
    "return tuple(classes[fold::folds])": ("return tuple(classes[fold + 1 :: folds])", "test_folds"),
    "pool = self.supports[c][self.supports[c] != query]": ("pool = self.supports[c]", "test_sampler"),
    "tuple(w[:count] for w in s.supports)": ("tuple(w[-count:] for w in s.supports)", "test_sampler"),
    "other: 1 if other == cls else IGNORE for other": ("other: int(other == cls) for other", "test_sampler"),
    "alpha=-2 / width * sine": ("alpha=2 / width * sine", "test_transforms"),
    "EIGHT = np.ones((3, 3), bool)": ("EIGHT = np.eye(3, dtype=bool)", "test_weak"),
    ": inner[0], : inner[1]]": (": inner[1], : inner[0]]", "test_evaluation"),
    # shapes
    "CONTRAST = 0.7": ("CONTRAST = 0.6", "test_shapes test_stored"),
    "np.maximum(np.abs(x), np.abs(y)) - 0.75": ("np.maximum(np.abs(x), np.abs(y)) - 0.8", "test_shapes test_stored"),
    # a folder of one's own
    "broken[at] = bool(wrong)": ("broken[at] = False", "test_folder_checks"),
    "if label.shape[::-1] != upright:": ("if False:", "test_folder_checks"),
    "tenths = pixels.round(1)": ("tenths = pixels", "test_outlines"),
    # downloads
    "have = have if answer.status == 206 else 0": ("have = have if answer.status == 206 else have", "test_download"),
    "failed = failed + 1 if _length(part) <= farthest else 1": ("failed = failed + 1", "test_download"),
    # experiments
    "for attempt in taken if _record(attempt) == stamp": ("for attempt in taken", "test_experiments"),
    "@{secrets.token_hex(4)}.part": (".part", "test_claims"),
    'or name.endswith((".part", ".old"))': ("", "test_experiments"),
    # labs
    "or not agree(results[label], slipped, task.atol)": ("", "test_labs_exercises"),
    "if not above[name] and i not in well]": ("if not above[name]]", "test_labs_order"),
    "return self.status in DONE": ('return self.status == "right"', "test_labs_exercises"),
    "first in _FORMULA or value[:1] in _FORMULA": ("value[:1] in _FORMULA", "test_labs_outputs"),
    "waiting |= names(sources[i]).bound": ("waiting |= set()", "test_labs_editions"),
    "*before, indent + turn, *behind])": ('*before, "    return 0"])', "test_labs_editions"),
    # widgets
    "first = np.clip(np.ceil(left - 0.5), 0, width)": ("first = np.clip(np.ceil(left), 0, width)", "test_strokes"),
    "if self._still:\n            return": ("if False:\n            return", "test_explorer"),
    # plots
    "vmin=-top, vmax=top, cbar": ("vmin=0, vmax=top, cbar", "test_plots_comparison"),
    "return across > slack and": ("return across > 999 and", "test_plots"),
    "scale = min(1, PAGE / width) * 100": ("scale = 100", "test_plots"),
    "int((weights > 0.05 * top)": ("int((weights > 0.5 * top)", "test_plots_prototypes"),
    # analysis
    "values[picks].mean(1), [0.025, 0.975])": ("values[picks].mean(1), [0.25, 0.75])", "test_intervals"),
    "half = float(stdtrit(len(values) - 1, 0.975)": ("half = float(stdtrit(len(values), 0.975)", "test_intervals"),
    "and (min(seeds) > 0 or max(seeds) < 0)": ("", "test_intervals"),
    "n // 2 for kind, n in found.items()": ("n for kind, n in found.items()", "test_costs"),
    "marked = ((masks > 0) & (masks != IGNORE), torch.isin": ("marked = (masks > 99, torch.isin", "test_stored"),
    # notebooks
    'name.encode() + b"\\0" + file.read_bytes()': ("name.encode()", "test_notebooks"),
}
# fmt: on


def place_of(root: Path, line: str) -> Path:
    """The one file of the library or its tools that holds `line`, once. LookupError if there is not one."""
    files = [path for folder in ("fsslib", "tools") for path in sorted((root / folder).rglob("*.py"))]
    places = [path for path in files for _ in range(path.read_text().count(line))]
    if len(places) != 1:
        raise LookupError(f"{line!r} is there {len(places)} times: {', '.join(map(str, places))}")
    return places[0]


def tests_of(root: Path, names: str) -> list[Path]:
    """The test files of these names. LookupError if there is not one of each."""
    files = [list((root / "tests").rglob(f"{name}.py")) for name in names.split()]
    if any(len(found) != 1 for found in files):
        raise LookupError(f"not one test file each: {names}")
    return [found[0] for found in files]


def noticed(root: Path, line: str, fault: str, tests: str) -> bool:
    """Whether one of the tests fails with the fault; the file is as before afterwards."""
    place, files = place_of(root, line), tests_of(root, tests)
    whole = place.read_text()
    place.write_text(whole.replace(line, fault))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *map(str, files)]
        environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment.setdefault("FSSLIB_SHARED", str(ROOT.parent / "shared"))
        ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        return ran.returncode == 1  # neither all passed nor none collected
    finally:
        place.write_text(whole)


def in_a_copy(folder: str, line: str, fault: str, tests: str) -> str:
    """The verdict on one fault, planted in a copy below `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch) / "copy"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "editions"))
        try:
            return "caught" if noticed(root, line, fault, tests) else "MISSED"
        except LookupError as error:
            return f"ERROR {error}"


def misplaced(rows: list[tuple[str, str, str]]) -> list[str]:
    """What is wrong with rows of the table: lines that are not there once, tests that do not exist."""
    wrong = []
    for line, _, tests in rows:
        try:
            place_of(ROOT, line), tests_of(ROOT, tests)
        except LookupError as error:
            wrong.append(str(error))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="tests, files or words of the line")
    parser.add_argument("--jobs", type=int, default=1, help="faults at the same time")
    parser.add_argument("--check", action="store_true", help="run nothing, look for the lines and the tests")
    given = parser.parse_args()
    rows = [(line, fault, tests) for line, (fault, tests) in FAULTS.items()]
    if wrong := misplaced(rows):
        print("\n".join(wrong))
        return 1
    if given.check:
        return 0
    texts = {row: f"{place_of(ROOT, row[0]).relative_to(ROOT)} {' '.join(row)}" for row in rows}
    chosen = [row for row in rows if any(word in texts[row] for word in given.only)]
    caught = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as folder, ThreadPoolExecutor(given.jobs) as pool:
        for row, verdict in zip(chosen, pool.map(lambda row: in_a_copy(folder, *row), chosen)):
            caught += verdict == "caught"
            print(f"{verdict}  {row[1][:60]!r} in {row[2]}", flush=True)
    print(f"{caught} of {len(chosen)} caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
