"""kill -9 at random moments, of whatever works long or writes files: nothing half, nothing lost, the same end."""

import hashlib
import os
import random
import re
import resource
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import coco_tree
import pytest
import torch
from archive_tools import holds, made, packed, visible
from core_tools import SIZE, Line, at, forked, panet, shapes
from file_server import serving
from killed import Work, survives
from torch.utils._pytree import tree_map_only

from fsslib import EpisodeSampler, Protocol, save_model
from fsslib.data import loading
from fsslib.data.download import fetch as download
from fsslib.data.download.fetch import fetch
from fsslib.data.download.sources import Source
from fsslib.data.download.sources import download as data_set
from fsslib.data.download.unpack import unpack
from fsslib.data.photographs import coco_label_maps, label_index
from fsslib.data.photographs.label_index import LabelIndex, load_checked
from fsslib.errors import OutputError
from fsslib.experiments import execute_notebook, run, runs, sweep
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.cached import CachedBackbone, DiskStore
from fsslib.training import Schedule, Selection, fit, train_episodes, validation_score

# Autograd on a machine with a GPU starts threads, after which a process cannot be forked; the clock is that of Linux.
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available() or sys.platform != "linux", reason="forks need a CPU under Linux"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def training(tmp_path, monkeypatch, server, workers):
    """Random drops, moving statistics and the best state on validation episodes have to come back too."""
    monkeypatch.setattr(torch.utils.data._utils.worker.ManagerWatchdog, "is_alive", lambda _: True)  # asked too late
    monkeypatch.setattr(loading, "GRACE", 0)
    schedule, rules = Schedule(steps=6, batch=2, lr=1e-2, warmup=2, seed=3), Protocol(input_size=SIZE, episodes=2)
    score, told = validation_score(shapes("test"), rules, batch=2)
    name = "episodic.ckpt"

    def do(folder):
        model = panet(bn="batch")
        model.project = torch.nn.Dropout(0.3)
        chosen = Selection(score, every=2, steps=schedule.steps, rules=told)
        sampler = EpisodeSampler(shapes(), Protocol(input_size=SIZE), seed=5, augment=True)
        how = {"folder": folder, "save_every": 2, "workers": workers, "progress": False}
        history = train_episodes(model, sampler, schedule, callback=chosen, **how)
        assert [at for at, row in enumerate(history.rows, 1) if "val_miou" in row] == [2, 4, 6]

    def read(file):
        state = tree_map_only(torch.Tensor, lambda t: t.numpy().tobytes(), torch.load(file, weights_only=True))
        return {**state, "seconds": 0}

    def kept(folder):
        return read(folder / name)["step"] if (folder / name).exists() else 0

    return Work(do, kept, read, growing=(name,))


BOOK = """
# %% tags=["parameters"]
seed = 0
out = None
# %%
import torch
from core_tools import Line, at
from fsslib.experiments import write_result
from fsslib.training import Schedule, fit
model, schedule = Line(), Schedule(steps=6, lr=0.1, warmup=2, seed=seed)
rows = fit(model, at, schedule, name="line", folder=out, save_every=1, progress=False).rows
# %%
result = {"scores": {"1": {"miou": rows[-1]["total"]}}, "protocol": {"weights": model.weight.tolist(), "rows": rows}}
result |= {"versions": {}, "seed": seed, "list_hash": "", "duration_s": 0, "parameters": {"seed": seed}}
write_result(out, result)
"""


class Forked:
    """Stands for `subprocess.Popen` of execute_notebook: a fork instead of a new process with its imports."""

    def __init__(self, command, cwd, **_):
        reader, writer = os.pipe()
        self.child, self.status = os.fork(), None
        if not self.child:
            try:
                os.close(writer)
                os.chdir(cwd)
                sys.stdin = os.fdopen(reader)
                os._exit(execute_notebook.main())
            finally:  # an error, as of an order that a killed parent did not write to its end, belongs to this fork
                os._exit(1)
        os.close(reader)
        self.stdin = os.fdopen(writer, "w")

    def wait(self):
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        return self.status


def notebooks(tmp_path, monkeypatch, server, jobs):
    """A run or a sweep of several jobs, of a notebook that trains; without the seconds of new processes and kernels."""
    import lightning_fabric  # noqa: F401 (once, not in every fork)
    from papermill import engines

    def execute(manager, *_, **__):
        names = {}
        for cell in manager.nb.cells:
            manager.cell_start(cell)
            exec(cell.source, names)
            manager.cell_complete(cell)

    book, moment = tmp_path / "trial.py", datetime(2020, 1, 1, tzinfo=UTC)
    book.write_text(BOOK.lstrip())
    monkeypatch.setattr(runs, "subprocess", SimpleNamespace(Popen=Forked, PIPE=None, DEVNULL=None))
    monkeypatch.setattr(engines.NBClientEngine, "execute_managed_notebook", execute)
    monkeypatch.setattr(engines.NotebookExecutionManager, "now", lambda _: moment)

    def do(folder):
        if jobs == 1:
            return run({}, progress=False, runs=folder, notebook=book)
        table = sweep({"seed": [1, 2]}, jobs=jobs, report=lambda _: None, runs=folder, notebook=book)
        assert set(table.state) <= {"done", "skipped"}, table.problem.tolist()

    def kept(folder):
        steps = 0
        for place in filter(Path.is_dir, folder.iterdir()):
            done, state = not place.name.endswith(".part"), place / "line.ckpt"
            steps += 6 if done else torch.load(state, weights_only=True)["step"] if state.exists() else 0
        return steps

    def read(file):
        return re.sub(rb'"id": ".*"', b"", file.read_bytes())  # names of cells, which are drawn anew for every run

    return Work(do, kept, read, growing=(".ckpt",))


def indexed(folder):
    return max((len(load_checked(file)) for file in folder.glob("index/*.json")), default=0)


def index(tmp_path, monkeypatch, server):
    """Written after every label."""
    monkeypatch.setattr(label_index, "SAVE_SECONDS", -1)
    pairs = [(tmp_path / f"{number:02}.jpg", tmp_path / f"{number:02}.png") for number in range(12)]
    for number, (image, mask) in enumerate(pairs):
        image.write_text("picture"), mask.write_text(f"{number + 1}")

    def do(folder):
        monkeypatch.setenv("FSSLIB_CACHE", str(folder))
        label_index._KNOWN.clear()
        table = LabelIndex("test", tmp_path, lambda _, mask: {7: int(mask.read_text())}).counts(pairs, 9)
        assert table[:, 7].tolist() == list(range(1, 13)) and not table[:, :7].any()

    return Work(do, indexed, growing=(".json",))


def label_maps(tmp_path, monkeypatch, server):
    """COCO's label maps with their index, which holds the times of files that are made anew."""
    root = coco_tree.make_coco(tmp_path / "coco")
    monkeypatch.setenv("FSSLIB_CACHE", str(tmp_path / "expected"))
    expected = coco_tree.quiet(root, split="test").hash()

    def do(folder):
        monkeypatch.setenv("FSSLIB_CACHE", str(folder))
        label_index._KNOWN.clear(), coco_label_maps._OPEN.clear()
        assert coco_tree.quiet(root, split="test").hash() == expected

    def read(file):
        if file.parent.name != "index":
            return file.read_bytes()
        return {name: entry[1:] for name, entry in load_checked(file).items()}

    return Work(do, lambda folder: len(list(folder.rglob("*.png"))) + indexed(folder), read, growing=(".json",))


def features(tmp_path, monkeypatch, server):
    torch.manual_seed(0)
    plain, images = build_backbone("tiny").freeze(), torch.randn(6, 1, 3, SIZE, SIZE)
    expected = [plain(image, ["layer3", "layer4"]) for image in images]

    def do(folder):
        cached = CachedBackbone(plain, dtype=torch.float32, store=DiskStore(folder))
        for image, right in zip(images, expected):
            found = cached(image, ["layer3", "layer4"])
            assert all(torch.equal(found[stage], right[stage]) for stage in right)

    return Work(do, lambda folder: len(list(folder.glob("*.npy"))))


def fetched(tmp_path, monkeypatch, server):
    """In pieces that are larger than Python's buffer, so that each is safe once it is written."""
    monkeypatch.setattr(download, "CHUNK", 2**14)
    data = random.Random(1).randbytes(2**17 - 9)
    server.add("x.bin", data)
    md5 = hashlib.md5(data).hexdigest()

    def kept(folder):
        files = [file for file in (folder / "x.bin", folder / ".x.bin.part") if file.exists()]
        assert all(data.startswith(file.read_bytes()) for file in files)
        return max((file.stat().st_size for file in files), default=0)

    return Work(lambda folder: fetch(server.url("x.bin"), folder / "x.bin", md5=md5, progress=False), kept)


def unpacked(tmp_path, monkeypatch, server):
    """A new folder appears at once."""
    files, archive = made(20), tmp_path / "x.zip"
    archive.write_bytes(packed("zip", files))

    def kept(folder):
        assert not (folder / "things").exists() or holds(folder, files)
        return len(visible(folder))

    return Work(lambda folder: unpack(archive, folder, holding="things", progress=False), kept)


def whole_set(tmp_path, monkeypatch, server):
    """Fetched, unpacked into a folder that is there already, and tidied up."""
    files, mine = made(8), {"things/a/mine.txt": b"mine"}
    server.add("x.tar.gz", packed("tar.gz", files))
    source = Source((server.url("x.tar.gz"),), "x.tar.gz", "things", {"a/*.bin": 4, "b/*.bin": 4}, ("things",))

    def begin(folder):
        (folder / "things/a").mkdir(parents=True)
        (folder / "things/a/mine.txt").write_bytes(b"mine")

    def do(folder):
        data_set("made up", folder, sources={"all": source}, progress=False)
        assert holds(folder, {**files, **mine})

    return Work(do, lambda folder: len(list(folder.glob("things/*/*"))), begin=begin, growing=(".gz",))


WORKS = {
    "training": partial(training, workers=0), "training with workers": partial(training, workers=2),
    "papermill run": partial(notebooks, jobs=1), "sweep": partial(notebooks, jobs=2), "label index": index,
    "label maps": label_maps, "feature store": features, "download": fetched, "unpacking": unpacked,
    "data set": whole_set,
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_killed(tmp_path, monkeypatch, name):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        work = WORKS[name](tmp_path, monkeypatch, server)
        print(f"{name}: {dict(survives(work, tmp_path / 'work', name))}")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    """A limit for the size of files ends a writing like a full disk: in the middle."""

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        with pytest.raises(OutputError):
            save_model(panet(), tmp_path / "m.safetensors")
        with pytest.raises(OutputError):
            fit(Line(), at, Schedule(1), name="line", folder=tmp_path, progress=False)

    assert forked(write) == [0] and not list(tmp_path.iterdir())
