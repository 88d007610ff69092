"""Plants one small fault after another in a copy of the library and runs the tests that have to notice it.

python tests/tools/planted_faults.py                       every fault, about half a minute each
python tests/tools/planted_faults.py test_folds test_ops   those of these tests, or whose line holds such a word

Lines are found by their text and tests by their file's name, wherever in the tree they stand. Exit status 1 if a fault
was missed, or if a line is not there exactly once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Lines as they are, with the fault, and what notices.
# fmt: off
FAULTS = {
    # top-level modules
    "wrong = int(torch.stack(self._outside).sum())": ("wrong = 0", "test_metrics"),
    "confusion.sum(1) - diagonal": ("confusion.sum(1)", "test_metrics"),
    "_HALF = 0.5 - 1e-6": ("_HALF = 0.5 + 1e-6", "test_merging"),
    "return total / (target != IGNORE).sum().clamp_min(1)": ("return total / target.numel()", "test_ops test_panet"),
    "if self.best is None or score > self.best:": ("if self.best is None or score >= self.best:", "test_selection"),
    # nn
    "return rows.T @ masks.to(rows.dtype) @ columns": ("return rows.T @ masks.float().sqrt() @ columns", "test_ops"),
    "factor = (gate + 1) / 2": ("factor = gate", "test_sdaanet test_golden_sdaanet"),
    'if merge == "mean":': ('if merge == "sum":', "test_superpixels"),
    "[order // width, order % width]": ("[order // width, order // width]", "test_superpixels"),
    # models
    "torch.stack([masks == 0, masks == 1], 3)": ("torch.stack([masks != 1, masks == 1], 3)", "test_panet"),
    'terms["query"] + self.align_weight * terms["align"]': ('terms["query"] + terms["align"]', "test_panet"),
    # data
    "return tuple(classes[fold::folds])": ("return tuple(classes[fold + 1 :: folds])", "test_folds"),
    "pool = [image for image in self.supports[c] if image != query]": ("pool = list(self.supports[c])", "test_sampler"),
    "tuple(w[:count] for w in s.supports)": ("tuple(w[-count:] for w in s.supports)", "test_sampler"),
    "out[mask == other] = 1 if other == cls else IGNORE": ("out[mask == other] = int(other == cls)", "test_sampler"),
    "EIGHT = np.ones((3, 3), bool)": ("EIGHT = np.eye(3, dtype=bool)", "test_weak"),
    ": inner[0], : inner[1]]": (": inner[1], : inner[0]]", "test_evaluation"),
    # shapes
    "CONTRAST = 0.7": ("CONTRAST = 0.6", "test_shapes test_stored"),
    "np.maximum(np.abs(x), np.abs(y)) - 0.75": ("np.maximum(np.abs(x), np.abs(y)) - 0.8", "test_shapes test_stored"),
    # a folder of one's own
    "broken[at] = bool(faults)": ("broken[at] = False", "test_folder_checks"),
    "if label.shape[::-1] != upright:": ("if False:", "test_folder_checks"),
    # downloads
    "if not inherited:\n                raise GiveUp": ("if False:\n                raise GiveUp", "test_download"),
    'sorted(urls, key=lambda url: url != source)': ("urls", "test_download"),
    # experiments
    "keep_training=_record(part) == stamp and": ("keep_training=", "test_experiments"),
    'or name.endswith((".part", ".old"))': ("", "test_experiments"),
    # labs
    "or not agree(found[label], slipped, made.atol)": ("", "test_labs_exercises"),
    "waiting |= names(sources[i]).bound": ("waiting |= set()", "test_labs_editions"),
    "f\"    {turn}\"])": ('"    return 0"])', "test_labs_editions"),
    # widgets
    "first = np.clip(np.ceil(left - 0.5), 0, width)": ("first = np.clip(np.ceil(left), 0, width)", "test_strokes"),
    "if self._still:\n            return": ("if False:\n            return", "test_explorer"),
    # plots
    "and (min(seeds) > 0 or max(seeds) < 0)": ("", "test_plots_comparison"),
    # baselines and costs
    "n // 2 for kind, n in found.items()": ("n for kind, n in found.items()", "test_costs"),
    "marked = ((mask > 0) & (mask != IGNORE), torch.isin": ("marked = (mask > 99, torch.isin", "test_stored"),
    # notebooks
    'name.encode() + b"\\0" + file.read_bytes()': ("name.encode()", "test_notebooks"),
}
# fmt: on


def sources(root: Path) -> list[Path]:
    return [path for folder in ("fsslib", "tools") for path in sorted((root / folder).rglob("*.py"))]


def place_of(root: Path, line: str) -> Path:
    """The one file that holds `line`, once."""
    places = [path for path in sources(root) for _ in range(path.read_text().count(line))]
    if len(places) != 1:
        raise LookupError(f"{line!r} is there {len(places)} times: {', '.join(map(str, places))}")
    return places[0]


def noticed(root: Path, line: str, fault: str, tests: str) -> bool:
    """Whether one of the tests fails with the fault; the file is as before afterwards."""
    place = place_of(root, line)
    whole = place.read_text()
    files = [str(next((root / "tests").rglob(f"{stem}.py"))) for stem in tests.split()]
    place.write_text(whole.replace(line, fault))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment.setdefault("FSSLIB_SHARED", str(ROOT.parent / "shared"))
        ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        return ran.returncode == 1  # neither all passed nor none collected
    finally:
        place.write_text(whole)


def main(*words: str) -> int:
    rows = [(line, fault, tests) for line, (fault, tests) in FAULTS.items()]
    chosen = [row for row in rows if not words or any(word in " ".join(row) for word in words)]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        root = Path(folder) / "copy"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "editions"))
        for line, fault, tests in chosen:
            try:
                verdict = "caught" if noticed(root, line, fault, tests) else "MISSED"
            except (LookupError, StopIteration) as error:
                verdict = f"ERROR {error}"
            bad += verdict != "caught"
            print(f"{verdict}  {fault[:60]!r} in {tests}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} caught")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
