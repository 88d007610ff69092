"""Every cure that a report prints is run on its own example: the folder then passes, with the right classes, no second
file of a name, and photographs as they were."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from folder_tree import COLOURS, H, W, blurred, disc, photograph
from PIL import Image

from fsslib.data.folder import cures
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.photographs.pascal import voc_palette
from fsslib.errors import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Pillow's, of modes
VOC = voc_palette()
COUNT = 4


def truth(seed):
    """(H, W) uint8 with classes 1 and 2, now the one the larger and now the other."""
    out, (large, small) = np.zeros((H, W), np.uint8), ((1, 2), (2, 1))[seed % 2]
    out[3:25, 2:24], out[10:18, 30:40] = large, small
    return out


def maps(save, ending="png"):
    """A folder of label maps; `save(labels, file)` writes each."""

    def make(root):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for seed in range(COUNT):
            photograph(seed).save(root / "images" / f"{seed}.jpg")
            save(truth(seed), root / "masks" / f"{seed}.{ending}")

    return make


def objects(save, ending="png", sign=""):
    """A class folder of masks of one object."""

    def make(root):
        (root / "cat").mkdir(parents=True)
        for seed in range(COUNT):
            photograph(seed).save(root / "cat" / f"{seed}.jpg")
            save(disc(seed), root / "cat" / f"{seed}{sign}.{ending}")

    return make


def saved(change, mode=None, **options):
    return lambda labels, file: Image.fromarray(change(labels), mode).save(file, **options)


def colours(table):
    table = np.array(table, np.uint8)
    return lambda labels, file: Image.fromarray(table[labels]).save(file)


def with_label_map(make, text, name="labelmap.txt"):
    return lambda root: (make(root), (root / name).write_text(text))


def palette(labels, file):
    Image.fromarray(COLOURS[labels]).quantize(3).save(file)


def paged(labels, file):
    first, *others = [Image.fromarray(255 * (labels == k).astype(np.uint8)) for k in (1, 2)]
    first.save(file, save_all=True, append_images=others)


def photographs(change):
    """A sound folder whose photographs are written by `change(seed, file)`; it says the name it used."""

    def make(root):
        maps(lambda labels, file: Image.fromarray(labels).save(file))(root)
        for seed in range(COUNT):
            (root / "images" / f"{seed}.jpg").unlink()
            change(seed, root / "images" / str(seed))

    return make


def deep_photograph(seed, file):
    Image.fromarray(np.array(photograph(seed).convert("L")).astype(np.uint16) * (40 + seed)).save(f"{file}.tif")


def pages_of_photographs(seed, file):
    photograph(seed).save(f"{file}.tif", save_all=True, append_images=[photograph(seed + 9)])


def turned(seed, file):
    note = Image.Exif()
    note[0x0112] = 6
    photograph(seed).save(f"{file}.jpg", exif=note)


CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:52,209,183::\n"
TWO = [(0, 0, 0), (250, 50, 83), (52, 209, 183)]
SWAPPED = "name,r,g,b\nowl,52,209,183\nvoid,9,9,9\nfox,250,50,83\n"
IDS = {  # -> what makes the folder, and how class ids 0, 1 and 2 come out (None: any two)
    "colours": (maps(colours(TWO)), None),
    "colours of a label map": (with_label_map(maps(colours(TWO)), CVAT), (0, 1, 2)),
    "colours of a table": (with_label_map(maps(colours(TWO)), SWAPPED, "class_dict.csv"), (0, 2, 1)),
    "VOC's colours": (maps(colours(VOC[[0, 15, 8]])), (0, 15, 8)),
    "colours on white": (maps(colours([(255, 255, 255), (9, 50, 3), (52, 9, 83)])), None),
    "colours in a TIFF": (maps(colours(TWO), "tif"), None),
    "colours on nothing": (maps(colours([(0, 0, 0, 0), (9, 50, 3, 255), (52, 9, 83, 255)])), None),
    "a palette in any order": (maps(palette), None),
    "32 bit": (maps(saved(lambda ids: ids.astype(np.int32)), "tif"), (0, 1, 2)),
    "16 bit": (maps(saved(lambda ids: ids.astype(np.uint16))), (0, 1, 2)),
    "16 bit, spread": (maps(saved(lambda ids: ids.astype(np.uint16) * 257)), (0, 1, 2)),
    "floating point": (maps(saved(lambda ids: ids.astype(np.float32)), "tif"), (0, 1, 2)),
    "divided by 255": (maps(saved(lambda ids: (ids / 255).astype(np.float32)), "tif"), (0, 1, 2)),
    "large numbers": (maps(saved(lambda ids: ids.astype(np.uint16) * 1001)), None),
    "halves": (maps(saved(lambda ids: (ids / 2).astype(np.float32)), "tiff"), None),
    "pages": (maps(paged, "tif"), (0, 1, 2)),
    "half the size": (maps(lambda ids, file: Image.fromarray(ids[::2, ::2].copy()).save(file), "png"), "resized"),
    "sides swapped": (maps(saved(lambda ids: np.ascontiguousarray(np.rot90(ids, -1)))), (0, 1, 2)),
    "a name is missing": (with_label_map(maps(saved(lambda ids: ids)), "cat\n", "classes.txt"), (0, 1, 2)),
    "photographs of 16 bit": (photographs(deep_photograph), (0, 1, 2)),
    "photographs of two pages": (photographs(pages_of_photographs), (0, 1, 2)),
    "photographs with a note": (photographs(turned), "turned"),
}
ONE = {
    "soft": objects(lambda d, file: blurred(np.kron(d, np.ones((3, 3), np.uint8))).save(file)),
    "JPEG": objects(saved(lambda d: 255 * d, quality=80), "jpg", "_mask"),
    "WEBP": objects(saved(lambda d: 255 * d, quality=60), "webp", "_mask"),
    "16 bit": objects(saved(lambda d: d.astype(np.uint16) * 65535)),
    "32 bit": objects(saved(lambda d: d.astype(np.int32) * 70000), "tif", "_mask"),
    "floating point": objects(saved(lambda d: d.astype(np.float32)), "tif", "_mask"),
    "one colour": objects(saved(lambda d: COLOURS[d])),
    "alpha": objects(lambda d, file: Image.fromarray(np.stack([d * 0 + 255, 255 * d], -1), "LA").save(file)),
    "a palette in any order": objects(lambda d, file: Image.fromarray(COLOURS[d]).quantize(2).save(file)),
    "255 with a dark rim": objects(saved(lambda d: np.where(d, 255, 127 * (np.roll(d, 2, 0) | np.roll(d, -2, 0))))),
    "pages": objects(
        lambda d, file: Image.fromarray(255 * d).save(file, save_all=True, append_images=[Image.fromarray(d)]),
        "tif",
        "_mask",
    ),
    "one colour on white": objects(saved(lambda d: np.array([(255, 255, 255), (200, 9, 9)], np.uint8)[d])),
    "one colour in a BMP": objects(saved(lambda d: COLOURS[d]), "bmp", "_mask"),
}
# What the report says of two of them.
SAID = {
    "a palette in any order": ("renumbered palette", r"\(255, 0, 0\)"),
    "255 with a dark rim": ("unclear 255", "If 255 is the object.*ignored"),
}


def cure(root, rounds=3):
    """Run whatever the report prints; returns how many cures that was."""
    ran = 0
    for _ in range(rounds):
        codes = [re.findall("`(.+)`", problem.cure) for problem in check_folder(root).problems]
        for (code,) in filter(None, codes):
            exec(code, {})
            ran += 1
    return ran


def unique_stems(root):
    files = [file for file in root.rglob("*") if file.suffix in (".png", ".tif", ".tiff", ".bmp", ".webp")]
    return max(Counter(str(file.with_suffix("")) for file in files).values()) == 1


@pytest.mark.parametrize("name", IDS)
def test_cures_of_label_maps(tmp_path, name):
    make, expected = IDS[name]
    make(tmp_path)
    assert len(list(tmp_path.glob("*/*"))) == 2 * COUNT
    ran = cure(tmp_path)
    assert ran >= COUNT
    report = check_folder(tmp_path)
    assert report.sound == COUNT and not report.problems, report
    meant = set()
    for seed, (_, mask) in enumerate(Folder(tmp_path)):
        mask, ids = mask.numpy(), truth(seed)
        if expected == "resized":
            ids = np.kron(ids[::2, ::2], np.ones((2, 2), np.uint8))
        elif expected == "turned":
            ids = np.rot90(ids, -1)
        meant |= {*zip(ids.ravel().tolist(), mask.ravel().tolist())}
    assert len(meant) == 3 and len(dict(meant)) == len({new for _, new in meant}) == 3, "one id a class, in every file"
    if isinstance(expected, tuple):
        assert sorted(meant) == [*enumerate(expected)]
    if name == "divided by 255":
        assert all((tmp_path / "masks" / f"{seed}.tif").exists() for seed in range(COUNT)), (
            "a guess, until it is removed"
        )
        for file in (tmp_path / "masks").glob("*.tif"):
            file.unlink()
        assert check_folder(tmp_path).sound == COUNT
    assert unique_stems(tmp_path)


@pytest.mark.parametrize("name", ONE)
def test_cures_of_masks_of_one_object(tmp_path, name):
    ONE[name](tmp_path)
    problem, (kind, words) = check_folder(tmp_path).problems[0], SAID.get(name, ("", ""))
    assert kind in problem.kind and re.search(words, f"{problem.message} {problem.cure}")
    assert cure(tmp_path) == COUNT
    report = check_folder(tmp_path)
    assert report.sound == COUNT and not report.problems, report
    for seed, (_, mask) in enumerate(Folder(tmp_path, layout="class_folders")):
        wrong = (mask.numpy() != disc(seed)).mean()
        assert wrong < (0.05 if name == "soft" else 0.002 if name in ("JPEG", "WEBP") else 1e-9)
    assert unique_stems(tmp_path)


@pytest.mark.parametrize("names", [None, "cat\ndog\nowl"])
def test_the_same_ids_when_only_some_files_are_cured(tmp_path, names):
    """The first cure writes the table down: what is left to do later gets the same ids."""
    maps(colours(TWO))(tmp_path)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    for _ in range(COUNT):
        problem = check_folder(tmp_path).of("colour mask")[0]
        exec(re.search("`(.+)`", problem.cure)[1], {})
    firsts = {int(np.array(Image.open(tmp_path / "masks" / f"{s}.png"))[truth(s) == 1][0]) for s in range(COUNT)}
    assert len(firsts) == 1


def test_cures_guess_nothing_and_lose_nothing(tmp_path):
    maps(colours(TWO), "tif")(tmp_path)
    file = tmp_path / "masks" / "0.tif"
    before = file.read_bytes()
    with pytest.raises(DatasetError, match=r"0\.tif: the colours .* have no class id"):
        cures.recolour(file, {(0, 0, 0): 0, TWO[1]: 1})
    (tmp_path / "masks" / "0.png").write_bytes(b"mine")
    with pytest.raises(DatasetError, match=r"0\.png is there already"):
        cures.recolour(file, dict(zip(TWO, range(3))))
    assert file.read_bytes() == before and (tmp_path / "masks" / "0.png").read_bytes() == b"mine"
    Image.fromarray(np.array([[0, 0.4]], np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DatasetError, match=r"f\.tif: the numbers .* are no class ids"):
        cures.renumber(tmp_path / "f.tif")
    deep_photograph(1, tmp_path / "deep")
    held = (tmp_path / "deep.tif").read_bytes()
    cures.shrink(tmp_path / "deep.tif")
    assert (tmp_path / "deep.tif.original").read_bytes() == held
    with pytest.raises(DatasetError, match="original is there already"):
        cures.shrink(tmp_path / "deep.tif")
    paged_file = tmp_path / "p.tif"
    Image.new("L", (4, 4), 255).save(paged_file, save_all=True, append_images=[Image.new("L", (4, 4), 255)])
    with pytest.raises(DatasetError, match="pages overlap"):
        cures.merge_pages(paged_file)
    with pytest.raises(DatasetError, match="there is no mask file"):
        cures.drawn(tmp_path / "none.png")


def test_smooth_colours_have_no_table(tmp_path):
    def smooth(ids, file):
        picture = Image.fromarray(np.array(TWO, np.uint8)[ids])
        picture.resize((90, 50), 2).resize((W, H), 2).save(file)

    maps(smooth)(tmp_path)
    report = check_folder(tmp_path)
    assert report.kinds == {"colour mask": COUNT}
    assert all("without smoothing" in problem.cure and "`" not in problem.cure for problem in report.problems)


def test_brightness_is_one_for_the_folder(tmp_path):
    IDS["photographs of 16 bit"][0](tmp_path)
    calls = {re.sub(r"'[^']*'", "", problem.cure) for problem in check_folder(tmp_path).of("16-bit image")}
    assert len(calls) == 1


def test_paths_stand_in_code_as_they_are():
    from fsslib.data.folder.advice import code

    assert code("drawn", Path("it's.png")) == '`from fsslib.data.folder.cures import drawn; drawn("it\'s.png")`'
