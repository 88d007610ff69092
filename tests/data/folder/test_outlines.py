"""YOLO's texts and labelme's JSON: the masks that COCO's polygons give, where files may lie, every fault by name."""

import base64
import io
import json
import re
from functools import partial

import folder_tree as tree
import numpy as np
import pytest
from folder_tree import H, W, box, clicked, labelme, labelme_file, yolo, yolo_line
from PIL import Image
from voc_tree import quietly

from fsslib.data.__main__ import main
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.labelme import label_map as labelme_map
from fsslib.data.folder.yolo import label_map as yolo_map
from fsslib.errors import DatasetError

SIZE = (101, 67)  # the sides divide no decimal
FORMS = ("%g", "%.6f", "%.17g")


def drawing(seed):
    """Objects (class, parts) with corners on whole, half, fifth or hundredth pixels, on top of one another; the last
    two are equally large, and the first has two parts."""
    chance = np.random.default_rng(seed)
    grid = (1, 2, 5, 100)[seed % 4]
    objects = [(0, [[1, 1, 9.5, 1, 9.5, 20, 1, 20], [20.5, 3, 30, 3, 26, 50.5]])]
    for _ in range(6):
        corners = chance.integers(0, np.array(SIZE) * grid, (chance.integers(3, 8), 2), endpoint=True) / grid
        objects.append((int(chance.integers(3)), [corners.ravel().tolist()]))
    return objects + [(number, [[60.5, 40, 72.5, 40, 72.5, 50.5, 60.5, 50.5]]) for number in (seed % 3, (seed + 1) % 3)]


def joined(parts):
    """The outlines of one object in one, by a bridge there and back, as Ultralytics' converter joins them."""
    first, *others = parts
    return first + [value for part in others for value in [*first[:2], *part, *part[:2]]] + first[:2] * bool(others)


def test_the_same_polygons_give_the_same_masks(tmp_path):
    names, drawings = ["cat", "dog", "owl"], [drawing(seed) for seed in range(8)]
    roots = [tmp_path / name for name in ("coco", "labelme", *FORMS)]
    document = {"images": [], "annotations": [], "categories": [{"id": k, "name": n} for k, n in enumerate(names)]}
    for root in roots:
        root.mkdir()
        (root / "classes.txt").write_text("\n".join(names))
    for n, objects in enumerate(drawings):
        for root in roots:
            tree.photograph(n, SIZE).save(root / f"{n}.png")
        document["images"].append({"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]})
        document["annotations"] += [{"image_id": n, "category_id": k, "segmentation": s} for k, s in objects]
        shapes = [clicked(names[k], part, group_id=at) for at, (k, parts) in enumerate(objects) for part in parts]
        tree.write(roots[1] / f"{n}.json", labelme_file(f"{n}.png", shapes, SIZE))
        for root in roots[2:]:
            lines = [yolo_line(k, joined(parts), SIZE, root.name) for k, parts in objects]
            (root / f"{n}.txt").write_text("".join(lines))
    tree.write(roots[0] / "instances.json", document)
    wanted, *others = [Folder(root) for root in roots]
    assert [data.report.layout for data in others] == ["labelme", "yolo", "yolo", "yolo"]
    assert all(data.names == wanted.names == {1: "cat", 2: "dog", 3: "owl"} and len(data) == 8 for data in others)
    for n in range(8):
        mask = wanted[n][1].numpy()
        assert len(np.unique(mask)) > 2 and mask[45, 65] == (n + 1) % 3 + 1, "of equally large ones the later is seen"
        for data in others:
            assert np.array_equal(data[n][1].numpy(), mask), (n, data.report.root)
            assert np.array_equal(data[n][0], wanted[n][0])


quiet = partial(quietly, Folder)
IMAGES = "images/train images/test", "train/images test/images", "train testing"


@pytest.mark.parametrize("places", IMAGES, ids=("inside", "outside", "beside"))
@pytest.mark.parametrize("wrapped", [False, True], ids=("root", "deeper"))
def test_where_yolo_files_lie(tmp_path, places, wrapped):
    root = tmp_path / "download" / "mine" if wrapped else tmp_path
    for at, place in enumerate(places.split()):
        for folder in {place, place.replace("images", "labels")}:
            (root / folder).mkdir(parents=True)
        for n in range(4):
            tree.photograph(10 * at + n).save(root / place / f"{at}{n}.JPG")
            (root / place.replace("images", "labels") / f"{at}{n}.txt").write_text(yolo_line(n % 2, box(n)))
    (root / "classes.txt").write_text("cat\ndog\n")
    report, data, other = check_folder(tmp_path), quiet(tmp_path), quiet(tmp_path, split="test")
    assert report.layout == "yolo" and not report.problems and report.classes == {"cat": 4, "dog": 4}
    assert [name.split("/")[-1] for name in data.ids] == ["00", "01", "02", "03"], "the folders are the splits"
    assert [name.split("/")[-1] for name in other.ids] == ["10", "11", "12", "13"]
    assert any("folders part the images into splits: train 4, test 4" in note for note in report.notes)


@pytest.mark.parametrize(("said", "train"), [
    ("train: ../a\nval: ../b\nnames: {0: cat, 1: dog}", "a"),  # as Roboflow writes it
    ("path: .\ntrain: [b]\nval: a\nnc: 2", "b"), ("train: some.txt\nval: b\nnames: [cat, dog]", "a"),
    ("train: a\nval: a\nnames:\n  0: cat\n  1: dog", "ab"), ("train: gone\nnames: ['yes', 2]", "ab"),
])  # fmt: skip
def test_what_data_yaml_says(tmp_path, said, train):
    for at, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        for n in range(4):
            tree.photograph(10 * at + n).save(tmp_path / folder / f"{folder}{n}.jpg")
            (tmp_path / folder / f"{folder}{n}.txt").write_text(yolo_line(n % 2, box(n)))
    (tmp_path / "some.txt").write_text("\n".join(f"./a/a{n}.jpg" for n in range(4)))
    file = tmp_path / "data.yaml"
    file.write_text(said, encoding="utf-8-sig")
    for root in (tmp_path, file):
        data = quiet(root)
        assert {name[0] for name in data.ids} == {*train} and data.classes == (1, 2), data.report
    assert data.names[1] == ("class 0" if "nc" in said else "yes" if "yes" in said else "cat")


@pytest.mark.parametrize(("said", "words"), [
    ("names: [cat, cat]", "two classes have the same name"), ("names: {-1: cat}", "no number from 0 to 253"),
    ("names: {0: cat, 0: dog}", "0 is given twice"), ("names: [no, yes]", "the name False; expected a text"),
    ("names: 3", "found 3 for the names.*Expected YAML"), ("names: [", "(?s)read the description.*Expected YAML"),
    ("- names: cat", "holds a list.*Expected YAML"),
])  # fmt: skip
def test_descriptions_that_contradict_themselves(tmp_path, said, words):
    yolo(tmp_path, 2)
    (tmp_path / "data.yaml").write_text(said)
    with pytest.raises(DatasetError, match=words):
        check_folder(tmp_path / "data.yaml")


GOOD = "1 .1 .1 .5 .1 .5 .5"
LINES = {
    "0 0.5 0.5 0.2 0.2": ("no polygon", "line 2 is a box .*Export outlines"),
    "0 .1 .1 .5 .1 .5": ("broken label", "line 2 has 5 numbers behind the class, and x and y make pairs"),
    "0 .1 .1": ("broken label", "line 2 has 1 points"),
    "0": ("broken label", "line 2 has 0 points"),
    "0 0,1 0,1 0,5 0,1 0,5 0,5": ("broken label", "line 2 holds '0,1', which is no number. Write numbers with a point"),
    "0 1 1 20 1 20 20": ("broken label", "line 2 goes up to 20, as pixels do. .*divide x by the picture's width"),
    "0 .1 .1 1.2 .1 .5 .5": ("broken label", "line 2 holds 1.2, which lies outside"),
    "0 -.2 .1 .2 .1 .5 .5": ("broken label", "line 2 holds -0.2, which lies outside"),
    "0 nan .1 .5 .1 .5 .5": ("broken label", "line 2 holds 'nan'"),
    "0.5 .1 .1 .5 .1 .5 .5": ("broken label", "line 2 begins with 0.5, and classes are whole numbers"),
    "-1 .1 .1 .5 .1 .5 .5": ("broken label", "line 2 begins with -1"),
    "cat .1 .1 .5 .1 .5 .5": ("broken label", "line 2 holds 'cat'"),
    "2 .1 .1 .5 .1 .5 .5": ("unknown class id", "line 2 is of class 2, which has no name. Give `names:`"),
    f"0 0 0\n{GOOD}\n0 0": ("broken label", "line 2 has 1 points.*; wrong too: line 4"),
    "caf\xe9".encode("latin-1"): ("broken label", "cannot be read: line 2 is not UTF-8"),
}


@pytest.mark.parametrize(("line", "wanted"), LINES.items(), ids=map(str, range(len(LINES))))
def test_faults_of_a_line(tmp_path, line, wanted):
    yolo(tmp_path)
    raw = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "labels" / "c3.txt").write_bytes(GOOD.encode() + b"\n" + raw)
    (problem,) = check_folder(tmp_path).problems
    assert (problem.file.name, problem.kind) == ("c3.txt", wanted[0])
    assert re.search(wanted[1], f"{problem.message}. {problem.cure}")
    assert "c3" not in quiet(tmp_path).ids, "what is not drawn would count as background"


def test_texts_as_systems_and_converters_write_them(tmp_path):
    yolo(tmp_path)
    forms = [
        GOOD.encode("utf-8-sig"),
        GOOD.encode("utf-16"),
        f"\r\n{GOOD}\r\n\r\n".encode(),
        b"1.0" + GOOD[1:].encode(),
    ]
    forms += [GOOD.replace(" ", "\t").encode() + b"  ", f"{GOOD}\n{GOOD}".encode(), GOOD.replace(".5", "5e-1").encode()]
    for n, raw in enumerate(forms):
        (tmp_path / "labels" / f"c{n}.txt").write_bytes(raw)
    data = quiet(tmp_path)
    assert not [p for p in data.report.problems if p.kind != "class with too few images"] and len(data) == 8
    assert all(np.array_equal(data[n][1], data[0][1]) for n in range(len(forms))) and (data[0][1] == 2).sum() > 90
    (tmp_path / "labels" / "c0.txt").write_text("1 -0.005 0 1.008 0 1.008 1 -0.005 1")  # cut off where the picture ends
    assert (quiet(tmp_path)[0][1] == 2).all()


def test_yolo_pictures_without_partners(tmp_path):
    root = yolo(tmp_path, 10, c0="", c1="\ufeff\r\n")
    (root / "labels" / "c2.txt").unlink()
    (root / "images" / "c3.jpg").unlink()
    tree.photograph(77).save(root / "images" / "c4.png")
    (root / "images" / "c6.jpg").write_bytes((root / "images" / "c5.jpg").read_bytes())
    (root / "labels" / "classes.txt").write_text("0 1 2\n")
    (root / "notes.txt").write_text("1 2 3")
    report = check_folder(root)
    assert {(p.file.name, p.kind) for p in report.problems} == {
        ("c3.txt", "mask without image"), ("c4.png", "duplicate name"), ("c6.jpg", "same picture twice"),
    }  # fmt: skip
    assert (report.sound, report.pairs) == (5, 7)
    assert "without an outline, thus background" in str(report) and "c0.jpg, c1.jpg, c2.jpg" in str(report)
    assert "not read: notes.txt, labels/classes.txt." in str(report)


def test_yolo_follows_the_note_that_turns_a_picture(tmp_path):
    yolo(tmp_path)
    tree.turned_photograph(3, tmp_path / "images" / "c3.jpg")
    data = quiet(tmp_path)
    image, mask = data[3]
    assert image.shape == (3, W, H) and mask.shape == (W, H)
    rows, columns = np.nonzero(mask.numpy())
    assert (rows.min(), columns.min()) == (round(box(3)[1] * W / H), round(box(3)[0] * H / W))


def encoded(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def drawn(tmp_path, shapes, size=(W, H), known=None, **more):
    file = tree.write(tmp_path / "x.json", labelme_file("x.jpg", shapes, size) | more)
    return labelme_map(file, (W, H), (H, W), known or {"cat": 1, "dog": 2, "__ignore__": 255, "_background_": 0})


def test_shapes_that_labelme_knows(tmp_path):
    def area(*shapes):
        return int((drawn(tmp_path, shapes) == 1).sum())

    assert area(clicked("cat", [2, 3, 12, 8], "rectangle")) == area(clicked("cat", [12, 8, 2, 3], "rectangle")) == 50
    assert abs(area(clicked("cat", [24, 16, 34, 16], "circle")) - 314) < 4
    assert area(clicked("cat", [-40, -40, 10, -40, 10, 10, -40, 10], None)) == 100, "what lies outside is cut off"
    assert area(clicked("cat", [2, 2, 6, 2, 6, 6, 2, 6], "oriented_rectangle")) == 16
    bits = np.tril(np.ones((4, 5), bool))
    mask = drawn(tmp_path, [clicked("cat", [3, 30, 7, 33], "mask", mask=encoded(bits))])
    assert np.array_equal(mask[30:, 3:8], bits[:2]) and mask.sum() == bits[:2].sum(), "its first corner is its place"
    large, small = clicked("cat", [0, 0, 20, 20], "rectangle"), clicked("dog", [5, 5, 9, 9], "rectangle")
    for shapes in ([large, small], [small, large]):
        assert (drawn(tmp_path, shapes)[5:9, 5:9] == 2).all()
    # As part of an object that is larger than the other, it lies below it.
    parts = [small | {"group_id": 1}, clicked("dog", [0, 20, 48, 32], "rectangle", group_id=1)]
    assert (drawn(tmp_path, [*parts, large])[5:9, 5:9] == 1).all()
    hole = drawn(tmp_path, [large, small | {"label": "_background_"}])
    assert not hole[5:9, 5:9].any() and (hole == 1).sum() == 400 - 16
    void = drawn(tmp_path, [clicked("__ignore__", [0, 0, 48, 32], "rectangle"), large])
    assert (void == 1).sum() == 400 and (void == 255).sum() == W * H - 400
    assert (drawn(tmp_path, [large, small | {"label": "__ignore__"}]) == 255).sum() == 16
    assert drawn(tmp_path, [large], size=(H, W)).shape == (W, H), "drawn on the picture as it is stored"
    assert drawn(tmp_path, [large], imageWidth=None).shape == (H, W)


SHAPES = {
    "point": (clicked("cat", [1, 1], "point"), "no polygon", "shape 1 .cat. is of the type 'point' and has no area"),
    "line": (clicked("cat", [1, 1, 5, 5, 9, 1], "linestrip"), "no polygon", "'linestrip' and has no area"),
    "two points": (clicked("cat", [1, 1, 5, 5]), "no polygon", "has 2 points"),
    "circle": (clicked("cat", [1, 1, 5, 5, 9, 1], "circle"), "no polygon", "a circle of two points"),
    "nan": (clicked("cat", [1, 1, 5, float("nan"), 9, 1]), "broken label", "no pairs of numbers in the picture"),
    "far": (clicked("cat", [1, 1, 5, 1e9, 9, 1]), "broken label", "no pairs of numbers in the picture"),
    "text": (clicked("cat", []) | {"points": "abc"}, "broken label", "no pairs of numbers"),
    "label": (clicked(None, box(1)), "broken label", "shape 1 has the label None"),
    "bits": (clicked("cat", [1, 1, 5, 5], "mask", mask="iVBOR"), "broken label", "a mask that cannot be decoded"),
    "wide": (clicked("cat", [1, 1, 5, 5], "mask", mask=encoded(np.ones((99, 9), bool))), "broken label", "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_faults_of_a_shape(tmp_path, name):
    shape, kind, words = SHAPES[name]
    labelme(tmp_path, c3={"shapes": [shape, clicked("dog", box(3))]})
    (problem,) = check_folder(tmp_path).problems
    assert (problem.file.name, problem.kind) == ("c3.json", kind)
    assert re.search(words, f"{problem.message} {problem.cure}") and "c3" not in quiet(tmp_path).ids


def test_faults_of_labelme_files(tmp_path, capsys):
    photo = base64.b64encode((labelme(tmp_path, 18) / "c5.jpg").read_bytes()).decode()
    labelme(
        tmp_path, 18, c1={"imagePath": "..\\photos\\c1.jpg"}, c2={"imagePath": None}, c3={"imageWidth": 99},
        c4={"imagePath": "gone.jpg"}, c5={"imagePath": "D:\\far\\c5.jpg", "imageData": photo}, c6={"shapes": []},
        c7={"shapes": {}}, c10={"imagePath": "c11.jpg"}, c12={"imagePath": "\0"},
    )  # fmt: skip
    (tmp_path / "c5.jpg").unlink()
    (tmp_path / "c8.json").write_text((tmp_path / "c8.json").read_text()[:-40])
    (tmp_path / "c9.json").write_bytes(b"")
    (tmp_path / "c13.json").unlink()
    (tmp_path / "notes.json").write_text('{"a": 1}')
    report = check_folder(tmp_path)
    assert {(p.file.name, p.kind) for p in report.problems} == {
        ("c3.json", "size mismatch"), ("c4.json", "image file missing"), ("c5.json", "image file missing"),
        ("c7.json", "broken label"), ("c8.json", "broken JSON"), ("c9.json", "empty file"),
        ("c11.json", "duplicate name"), ("c12.json", "image file missing"),
    }  # fmt: skip
    assert (report.sound, report.pairs) == (7, 15)
    text = report.table(None)
    assert "c4.jpg lies beside it" in text and "drawn on 99x32 pixels, and the picture has 48x32" in text
    assert "without an outline" in text and "c10.jpg, c13.jpg, c6.jpg" in text and "not read: notes.json" in text
    (code,) = re.findall("`(.*?)`", text)
    exec(code, {})
    assert len(check_folder(tmp_path).problems) == 7 and "c5" in quiet(tmp_path).ids
    assert main(["check", str(tmp_path), "--layout", "labelme"]) == 1 and "c3.json: is drawn" in capsys.readouterr().out


def test_labels_and_their_numbers(tmp_path):
    root = labelme(tmp_path, c1={"shapes": [clicked("__ignore__", box(1)), clicked("dog", box(5))]})
    assert quiet(root).names == {1: "cat", 2: "dog"} and 255 in quiet(root)[1][1]
    (root / "labels.txt").write_text("__ignore__\n_background_\ndog\nowl\ncats\n")
    report = check_folder(root)
    assert report.kinds == {"unknown class id": 4, "class with too few images": 2} and report.classes["dog"] == 4
    assert "the label 'cat', which is no class, did you mean cats" in report.problems[0].message
    assert quiet(root, names=["cat", "dog"])[1][1].unique().tolist() == [0, 2, 255]
    (root / "c2.json").write_text(
        json.dumps(labelme_file("c2.jpg", [clicked(f"thing {n}", box(n)) for n in range(255)]))
    )
    (root / "labels.txt").unlink()
    with pytest.raises(DatasetError, match=r"257 labels.*each class, not for each object; datumaro"):
        check_folder(root)


def test_data_sets_that_are_something_else(tmp_path):
    tree.photograph(1).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("a cat on a mat, 2024")
    with pytest.raises(DatasetError, match=r"yolo \(images/NAME.jpg with labels/NAME.txt.*labelme.*datumaro"):
        check_folder(tmp_path)
    labelme(tmp_path / "one", 2)
    with pytest.raises(DatasetError, match=r"c0.json is labelme's file of one picture: pass the folder"):
        check_folder(tmp_path / "one" / "c0.json")
    for name in ("a", "b"):
        yolo(tmp_path / "two" / name, 2)
    with pytest.raises(DatasetError, match=r"several data sets \(a, b\)"):
        check_folder(tmp_path / "two")
    (tmp_path / "two" / "a" / "other.yml").write_text("names: [a]")
    (tmp_path / "two" / "a" / "data.yaml").rename(tmp_path / "two" / "a" / "mine.yaml")
    with pytest.raises(DatasetError, match=r"several descriptions \(mine.yaml, other.yml\): pass the one you mean"):
        check_folder(tmp_path / "two" / "a")
    document = tree.coco(tmp_path / "pair", 8)[1]
    assert document and check_folder(yolo(tmp_path / "pair")).layout == "coco_json"
    # Masks that somebody has drawn from the outlines are masks all the same.
    both = tree.images_masks(tmp_path / "both", 4)
    for n in range(4):
        (both / "images" / f"n{n:02}.txt").write_text(GOOD)
    assert check_folder(both).layout == "images_masks" and check_folder(both, layout="yolo").sound == 4


def test_maps_follow_files_and_classes(tmp_path):
    """What is kept of a file does not outlive it, nor the list of classes."""
    root = yolo(tmp_path)
    before = quiet(root)[0][1]
    (root / "labels" / "c0.txt").write_text(yolo_line(0, [v + 1 for v in box(0)]))
    assert not np.array_equal(quiet(root)[0][1], before)
    (root / "data.yaml").write_text("names: [cat]")
    assert check_folder(root).kinds == {"unknown class id": 4}
    assert yolo_map(root / "labels" / "c0.txt", (W, H), (W, H), {0: 9}).max() == 9
