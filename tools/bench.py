"""Times the library part by part, beside what the machine can do and beside another revision of itself.

python tools/bench.py                                everything: about an hour on one core
python tools/bench.py panet evaluate --repeats 5     some parts
python tools/bench.py sdaanet --compare 0cb37ca      this clone and a revision of it (or a folder with one), in turns
python tools/bench.py asgnet --device cuda           on a GPU
python tools/bench.py --backbone tiny --size 65      a quick look at how it works

Parts:
  panet, sdaanet, asgnet, hdmnet
             a training step as `fit` takes it and an evaluated episode at one and five shots, with the forward and
             backward passes of the backbone, heads and loading; beside them the backbone alone
  evaluate   `evaluate` of ASGNet on pictures that recur, without cache and with cache="memory"
  loader     photographs for training, with the published augmentation of SD-AANet and ASGNet
  shapes     the trainings from scratch of `make reports` on Shapes-5i, and the drawing of its images
  memory     most memory of a training and an evaluation at one and five shots, each in a process of its own

Weights are random. Times are CPU seconds of a process (with a GPU those of a clock, synchronised): median, least and
most; loading is a part of them in `shapes` only. `of mm` and `of conv` are shares of the speed of a large matrix
product and of a large convolution, measured before every repetition; operations are counted as if no algorithm saved
any. MiB are what a process grows by, `passes` what it does so once model and episode are there, with a memory allocator
that keeps no large blocks: runs agree within 1 %, other allocators need more. With --compare two revisions take turns,
repetition by repetition; a ratio above 1 says that this clone is faster or needs less memory.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fsslib import files
from fsslib.arguments import choose
from fsslib.errors import FsslibError, ParameterError

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("panet", "sdaanet", "asgnet", "hdmnet")
PARTS = (*METHODS, "evaluate", "loader", "shapes", "memory")
SHAPES = ("shapes panet pretrain", "shapes panet episodic", "shapes sdaanet episodic", "drawing")
UNITS = {"training": "step", "shapes": "step", "loader": "image", "drawing": "image"}  # others: an episode
SPLIT = ("forward", "backward", "heads", "loading")
SHARES = ("gflops", "of_mm", "of_convolution", "backbone_gflops", "backbone_of_mm", "backbone_of_convolution")
# What a row of the JSON file holds; None where a cell has no such figure.
KEYS = (
    "cell", "revision", "unit", "repeats", "error", "seconds", "least", "most", "per_second", *SPLIT, "gflop",
    "backbone_gflop", "mm", "convolution", *SHARES, "choice", "choices", "mib", "passes_mib", "ratio", "ratio_least",
    "ratio_most",
)  # fmt: skip
# Title -> key and width of a column of the table.
COLUMNS = {"cell": ("cell", 25), "revision": ("revision", 9), "seconds": ("seconds", 7)}
COLUMNS |= {name: (name, 7) for name in ("least", "most", *SPLIT)} | {"a second": ("per_second", 8)}
COLUMNS |= {"GFLOP/s": ("gflops", 7), "of mm": ("of_mm", 5), "of conv": ("of_convolution", 7)}
COLUMNS |= {"backbone": ("backbone_gflops", 8), "its mm": ("backbone_of_mm", 6)}
COLUMNS |= {"its conv": ("backbone_of_convolution", 8), "MiB": ("mib", 5), "passes": ("passes_mib", 6)}
COLUMNS |= {"ratio": ("ratio", 5), "from": ("ratio_least", 5), "to": ("ratio_most", 5), "best": ("choice", 0)}


class Revision:
    """A process that times one revision of the library, whose `tools/bench_cells.py` is always ours.

    Args: name: for the table. folder: its clone. settings: of the cells. more: environment variables.
    Raises ParameterError when `folder` is not what the process imports, or it cannot start.
    """

    def __init__(self, name: str, folder: Path, settings: dict, **more: str):
        self.name, self.folder, self.settings = name, folder, settings
        threads = str(settings["threads"])
        env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        env |= {"TMPDIR": settings["temporary"], "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", **more}
        command = [sys.executable, str(ROOT / "tools" / "bench_cells.py"), json.dumps(settings)]
        # In a session of its own: Ctrl-C reaches this process alone, which then ends the others.
        self.process = subprocess.Popen(
            command, env=env, text=True, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.about = self._answer()
        if "error" in self.about or not Path(self.about["fsslib"]).samefile(folder):
            self.__exit__()
            raise ParameterError(f"{name}: {folder} holds no fsslib that can be timed: {self.about}.")

    def ask(self, request: str) -> dict:
        """The answer to one line; `{"error": …}` when the process has ended."""
        with contextlib.suppress(BrokenPipeError):
            print(request, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with status {self.process.wait()}"}

    def alone(self, cell: str) -> dict:
        """The answer of a new process to one request. In it glibc returns every large block at once: what it keeps
        otherwise is a tenth of all, more or less, and another in every run."""
        with Revision(self.name, self.folder, self.settings, MALLOC_MMAP_THRESHOLD_="131072") as other:
            return other.ask(cell)

    def __enter__(self) -> "Revision":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what it no longer read
            self.process.stdin.close()


@contextlib.contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """The folder `revision` if it holds a clone, or that revision of this one in the new worktree `folder`."""
    if Path(revision, "fsslib", "__init__.py").is_file():
        yield Path(revision).resolve()
        return
    try:
        git("worktree", "add", "--detach", "--quiet", str(folder), revision)
        yield folder
    finally:
        if folder.exists():
            git("worktree", "remove", "--force", str(folder))


def git(*command: str) -> str:
    """What git prints. Raises ParameterError with git's own words."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True)
    except OSError as error:
        raise ParameterError(f"git cannot be run ({error}): give --compare a folder with a clone.") from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise ParameterError(f"--compare: expected a revision, or a folder with a clone; git says: {words}")
    return done.stdout.strip()


def cells(parts: list[str]) -> list[str]:
    """The requests for `parts`; memory is that of the methods among them, or of all."""
    chosen = [method for method in METHODS if method in parts]
    found = []
    for method in chosen:
        found += [f"training {method} 1", f"evaluation {method} 1", f"evaluation {method} 5"]
        # Only PANet trains its backbone.
        found += [f"backbone {method} {task}" for task in ("evaluation", *["training"] * (method == "panet"))]
    found += [f"evaluate {cache}" for cache in ("none", "memory") if "evaluate" in parts]
    found += [f"loader {method}" for method in ("sdaanet", "asgnet") if "loader" in parts]
    found += SHAPES if "shapes" in parts else ()
    if "memory" in parts:
        tasks = [f"{task} {shot}" for task in ("training", "evaluation") for shot in (1, 5)]
        found += [f"memory {method} {task}" for method in chosen or METHODS for task in tasks]
    return found


def measure(cell: str, revisions: list[Revision], repeats: int) -> list[dict]:
    """A row for every revision, the first being compared with the second."""
    kind = cell.split()[0]
    if kind == "memory":
        answers = [[revision.alone(cell)] for revision in revisions]
    else:
        # How fast a bare backbone can be says nothing about a revision.
        revisions = revisions[:1] if kind == "backbone" else revisions
        answers = in_turns(cell, revisions, repeats)
    rows = [row(cell, revision.name, own) for revision, own in zip(revisions, answers)]
    if len(rows) == 2 and not any(row["error"] for row in rows):
        ours, theirs = ([answer.get("mib") or answer["total"] for answer in own] for own in answers)
        ratios = [b / a for a, b in zip(ours, theirs)]
        rows[0] |= {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
    return rows


def in_turns(cell: str, revisions: list[Revision], repeats: int) -> list[list[dict]]:
    """Answers of every revision, A B A B; a single one with its `error` where that is how it ended."""
    answers: list[list[dict]] = [[revision.ask(cell)] for revision in revisions]
    for _ in range(repeats):
        for revision, own in zip(revisions, answers):
            if "error" not in own[-1]:
                own.append(revision.ask("go"))
    for revision, own in zip(revisions, answers):
        if "error" not in own[-1]:
            revision.ask("stop")
    return [own[-1:] if "error" in own[-1] else own[1:] for own in answers]


def row(cell: str, name: str, answers: list[dict]) -> dict:
    """The figures of one cell and revision: medians of its answers, with the least and most seconds."""
    out = dict.fromkeys(KEYS) | {"cell": cell, "revision": name, "unit": UNITS.get(cell.split()[0], "episode")}
    if "error" in answers[0]:
        return out | {"repeats": 0, "error": answers[0]["error"]}
    middle = {key: statistics.median([answer[key] for answer in answers]) for key in answers[0]}
    if cell.startswith("backbone"):
        choices = {key: middle.pop(key) for key in list(middle) if " by " in key}
        best = min(choices, key=choices.get)
        out |= {"unit": "batch", "choice": best, "choices": choices}
        middle["total"], answers = choices[best], [{"total": answer[best]} for answer in answers]
    seconds = middle.pop("total", None)
    if seconds:
        every = [answer["total"] for answer in answers]
        out |= {"seconds": seconds, "least": min(every), "most": max(every), "per_second": 1 / seconds}
    return out | middle | speeds(middle, seconds) | {"repeats": len(answers)}


def speeds(middle: dict, seconds: float) -> dict:
    """GFLOP/s of all and of the backbone's forward pass, where operations were counted, and their shares of what a
    large matrix product and a large convolution reach."""
    found = {}
    for whose, spent in (("", seconds), ("backbone_", middle.get("forward"))):
        if middle.get(f"{whose}gflop"):
            speed = found[f"{whose}gflops"] = middle[f"{whose}gflop"] / spent
            found |= {f"{whose}of_{kind}": speed / middle[kind] for kind in ("mm", "convolution")}
    return found


def line(out: dict) -> str:
    """A row of the table."""
    if out["error"]:
        return f"{out['cell']}  {out['revision']}  {out['error']}"
    texts = []
    for key, width in COLUMNS.values():
        value = "" if out[key] is None else out[key]
        form = "" if isinstance(value, str) else ".0%" if "of_" in key else ".4g"
        texts.append(f"{value:{form}}".ljust(width))
    return "  ".join(texts).rstrip()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line. Raises ParameterError for parts and numbers that do not exist."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python tools/bench.py", description=__doc__, formatter_class=form)
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts (default: all)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="repetitions of each cell (default: 3)")
    parser.add_argument("--compare", metavar="REV", help="a git revision, or a folder with another clone")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a process (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--backbone", help="in place of every method's own")
    parser.add_argument("--size", type=int, help="pixels a side, in place of every method's own")
    parser.add_argument("--data", metavar="VOC", help="folder of photographs (default: FSSLIB_SHARED's, else made up)")
    parser.add_argument("--json", default="runs/bench.json", metavar="FILE", help="(default: runs/bench.json)")
    given = parser.parse_args(arguments)
    for part in given.parts:
        choose(part, PARTS, "part", ParameterError)
    choose(given.device, ("cpu", "cuda"), "--device", ParameterError)
    for name in ("repeats", "threads"):
        if getattr(given, name) < 1:
            raise ParameterError(f"--{name} {getattr(given, name)}: expected a whole number from 1.")
    subset = Path(os.environ.get("FSSLIB_SHARED", ROOT.parent / "shared"), "data", "voc-subset")
    given.data = given.data or (str(subset) if subset.is_dir() else None)
    return given


def bench(given: argparse.Namespace) -> list[dict]:
    """Measure, print and keep, row by row."""
    settings = {key: getattr(given, key) for key in ("device", "threads", "backbone", "size")}
    settings["data"] = str(Path(given.data).resolve()) if given.data else None
    rows, content = [], {"settings": settings | {"repeats": given.repeats}, "machine": platform.processor()}
    with contextlib.ExitStack() as stack:
        # Everything temporary lies in it, also what the processes write: they are killed.
        settings["temporary"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="fsslib-bench-"))
        folders = {"this": ROOT}
        if given.compare:
            worktree = Path(settings["temporary"], "worktree")
            folders[Path(given.compare).name] = stack.enter_context(checkout(given.compare, worktree))
        revisions = [stack.enter_context(Revision(name, folder, settings)) for name, folder in folders.items()]
        print(*(title.ljust(width) for title, (_, width) in COLUMNS.items()), sep="  ", flush=True)
        for cell in cells(given.parts or list(PARTS)):
            new = measure(cell, revisions, given.repeats)
            print(*map(line, new), sep="\n", flush=True)
            rows += new
            facts = {"torch": revisions[0].about["torch"], "rows": rows}
            files.write_text(given.json, json.dumps(content | facts, indent=1))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if a cell failed, 2 for what is refused, 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that worktree and processes go then, too
    try:
        return int(any(row["error"] for row in bench(parse(arguments))))
    except FsslibError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
