"""Made-up folders of somebody's own pictures, clean and with planted faults, in the three layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

W, H = 48, 32
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
NAMES = {1: "cat", 2: "dog", 3: "owl"}
# Files that say so, by their names.
LABEL_MAPS = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:9,9,9::\ndog:20,9,9::\nowl:9,99,9::\n",
    "class_dict.csv": "name,r,g,b\ncat,9,9,9\ndog,20,9,9\nowl,9,99,9\nbackground,0,0,0\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, cat\n2, dog\n3, owl\n",
    "label_colors.txt": "0 0 0\tVoid\n9 9 9\tcat\n20 9 9\tdog\n9 99 9\towl\n",
    "class_names.txt": "cat\ndog\nowl\n", "classes.txt": "background\ncat\ndog\nowl\n",
    "classes.json": '{"1": "cat", "2": "dog", "3": "owl"}',
}  # fmt: skip


def photograph(seed: int, size: tuple[int, int] = (W, H)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8))


def disc(seed: int, value: int = 1, width: int = W, height: int = H) -> np.ndarray:
    """(height, width) uint8: a round object of `value` on 0; its place and size are the seed's."""
    generator = np.random.default_rng(1000 + seed)
    x, y, radius = generator.integers(14, width - 14), generator.integers(12, height - 12), generator.integers(7, 12)
    rows, columns = np.mgrid[:height, :width]
    return (value * ((columns - x) ** 2 + (rows - y) ** 2 < radius**2)).astype(np.uint8)


def label_map(seed: int) -> np.ndarray:
    """Class 1, 2 or 3 with a border of 255, as VOC draws it, and in every third image a corner of the next class."""
    mask = disc(seed, 1 + seed % 3)
    object_, border = mask > 0, np.zeros_like(mask, bool)
    border[1:] |= object_[1:] != object_[:-1]
    mask[border] = 255
    if seed % 3 == 0:
        mask[-5:, :6] = 1 + (seed + 1) % 3
    return mask


def images_masks(root: Path, count: int = 12, images: str = "images", masks: str = "masks") -> Path:
    """`count` pairs n00, n01, … with class names in a file; every second mask is a palette PNG."""
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(["background", *NAMES.values()]))
    for seed in range(count):
        photograph(seed).save(root / images / f"n{seed:02}.jpg")
        mask = Image.fromarray(label_map(seed))
        if seed % 2:
            mask.putpalette([channel for index in range(256) for channel in (index, 255 - index, 40)])
        mask.save(root / masks / f"n{seed:02}.png")
    return root


def class_folders(root: Path, style: str = "beside", count: int = 4) -> Path:
    """Three classes; masks 0/255, 0/1 or one bit, beside the images, named `_mask`, or in a folder of their own."""
    for cls, name in NAMES.items():
        places = {"folders": (root / name / "images", root / name / "masks")}.get(style, (root / name, root / name))
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        for at in range(count):
            seed = 10 * cls + at
            photograph(seed).save(places[0] / (f"p{at}.png" if style == "suffix" else f"p{at}.JPG"))
            mask = disc(seed, (255, 1, 255)[at % 3])
            mask = Image.fromarray(mask > 0) if at % 3 == 2 else Image.fromarray(mask)
            mask.save(places[1] / (f"p{at}_mask.png" if style == "suffix" else f"p{at}.png"))
    return root


def coco(root: Path, count: int = 8, place: str = "annotations") -> tuple[Path, dict]:
    """A COCO file over `count` images with a rectangle each; category ids 7 and 11, and a heading 0 without objects."""
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    document = {
        "images": [{"id": 100 + n, "file_name": f"c{n}.jpg", "width": W, "height": H} for n in range(count)],
        "categories": [
            {"id": 0, "name": "animals", "supercategory": "none"},
            {"id": 11, "name": "dog", "supercategory": "animals"},
            {"id": 7, "name": "cat", "supercategory": "animals"},
        ],
        "annotations": [
            {"id": n, "image_id": 100 + n, "category_id": (7, 11)[n % 2], "iscrowd": 0, "segmentation": [box(n)]}
            for n in range(count)
        ],
    }
    for n in range(count):
        photograph(n).save(root / "images" / f"c{n}.jpg")
    return write(root / place / "instances.json", document), document


def yolo(root: Path, count: int = 8, **texts: str) -> Path:
    """`coco` in YOLO's format, classes 0 and 1; `texts`: what a label (by its stem) holds instead."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        photograph(n).save(root / "images" / f"c{n}.jpg")
        (root / "labels" / f"c{n}.txt").write_text(texts.get(f"c{n}", yolo_line(n % 2, box(n))))
    (root / "data.yaml").write_text("path: ../elsewhere\nnames: [cat, dog]\n")
    return root


def yolo_line(number: int, corners: list[float], size: tuple[int, int] = (W, H), form: str = "%g") -> str:
    """An outline (in pixels) as YOLO's converters write it."""
    parts = (form % (value / size[at % 2]) for at, value in enumerate(corners))
    return f"{number} {' '.join(parts)}\n"


def labelme(root: Path, count: int = 8, **others: dict) -> Path:
    """`coco` in labelme's format; `others`: what a label file (by its stem) says besides."""
    root.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        photograph(n).save(root / f"c{n}.jpg")
        said = labelme_file(f"c{n}.jpg", [clicked(("cat", "dog")[n % 2], box(n))])
        write(root / f"c{n}.json", said | others.get(f"c{n}", {}))
    return root


def labelme_file(name: str, shapes: list[dict], size: tuple[int, int] = (W, H)) -> dict:
    return {
        "version": "5.4.1", "flags": {"night": True}, "shapes": shapes, "imagePath": name, "imageData": None,
        "imageHeight": size[1], "imageWidth": size[0],
    }  # fmt: skip


def clicked(label: object, corners: list[float], kind: str | None = "polygon", **more: object) -> dict:
    """A shape of labelme's."""
    points = [list(pair) for pair in zip(corners[::2], corners[1::2])]
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def box(n: int) -> list[int]:
    """A rectangle of 12 x 10 pixels, as a polygon."""
    x, y = 2 + n, 3 + n
    return [x, y, x + 12, y, x + 12, y + 10, x, y + 10]


def write(file: Path, document: dict) -> Path:
    file.write_text(json.dumps(document))
    return file


def blurred(mask: np.ndarray) -> Image.Image:
    """The mask shrunk with smooth edges, in 0..255."""
    return Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).resize((W, H), Image.Resampling.BILINEAR)


def turned_photograph(seed: int, file: Path) -> None:
    """Stored W x H, with the note that it is to be turned."""
    note = Image.Exif()
    note[0x0112] = 6
    photograph(seed).save(file, exif=note)


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(data)


def _saved(array: np.ndarray, mode: str | None = None) -> Callable[[Path], object]:
    return lambda file: Image.fromarray(array).convert(mode or Image.fromarray(array).mode).save(file)


def _instead(array: np.ndarray, **options) -> Callable[[Path], object]:
    """The mask under its name with another ending."""
    return lambda file: (file.with_suffix(".png").unlink(), Image.fromarray(array).save(file, **options))


def _spoil(root: Path, faults: dict[str, dict[str, Callable[[Path], object]]]) -> list[tuple[str, str]]:
    """Plant the faults, kind -> file -> what is done to it; returns (file, kind) of each."""
    for files in faults.values():
        for name, spoil in files.items():
            spoil(root / name)
    return [(name, kind) for kind, files in faults.items() for name in files]


def spoil_images_masks(root: Path) -> list[tuple[str, str]]:
    """Plant three faults of ten kinds among 40 pairs; returns (file, kind) of each."""
    images_masks(root, 40)
    image, mask = root / "images", root / "masks"
    photo, png = (image / "n00.jpg").read_bytes(), (mask / "n03.png").read_bytes()
    (mask / "n08.png").rename(mask / "N08.png")  # left over as well as its image
    small = np.array(Image.fromarray(label_map(11)).resize((W // 2, H // 2), 0))
    smooth = np.array(blurred(disc(25, 1, 2 * W, 2 * H)).point(lambda v: round(v / 255 * 9)))
    return _spoil(root, {
        "unreadable image": {
            "images/n00.jpg": _bytes(photo[: len(photo) // 2]), "images/n01.jpg": _bytes(b"GIF8 this is none"),
            "images/n02.jpg": _bytes(photo[:100]),
        },
        "unreadable mask": {
            "masks/n03.png": _bytes(png[:60]), "masks/n04.png": _bytes(b"<html>404</html>"),
            "masks/n05.png": _bytes(png[:30] + b"\0" * 40),
        },
        "image without mask": {
            "images/n06.jpg": lambda file: (mask / "n06.png").unlink(),
            "images/n07.jpg": lambda file: (mask / "n07.png").unlink(), "images/n08.jpg": lambda file: None,
        },
        "mask without image": {
            "masks/N08.png": lambda file: None, "masks/n09.png": lambda file: (image / "n09.jpg").unlink(),
            "masks/n10.png": lambda file: (image / "n10.jpg").unlink(),
        },
        "size mismatch": {
            "masks/n11.png": _saved(small), "masks/n12.png": _saved(label_map(12).T.copy()),
            "masks/n13.png": lambda file: turned_photograph(13, image / "n13.jpg"),
        },
        "colour mask": {
            f"masks/n{seed}.png": _saved(COLOURS[disc(seed, 1 + seed % 3)], mode)
            for seed, mode in ((14, "RGB"), (15, "RGBA"), (16, "RGB"))
        },
        "empty mask": {
            "masks/n17.png": _saved(np.zeros((H, W), np.uint8)), "masks/n18.png": _saved(disc(18, 255)),
            "masks/n19.png": _saved(np.zeros((H, W), bool)),
        },
        "unknown class id": {
            "masks/n20.png": _saved(disc(20, 37)), "masks/n21.png": _saved(disc(21, 4)),
            "masks/n22.png": _saved(np.maximum(label_map(22) % 255, disc(22, 200)[::-1])),
        },
        "soft mask": {
            "masks/n23.png": _saved(np.array(blurred(disc(23, 1, 3 * W, 3 * H)))),
            "masks/n24.jpg": _instead(disc(24, 255), quality=60), "masks/n25.png": _saved(smooth),
        },
        "16-bit or floating-point mask": {
            "masks/n26.png": _saved(disc(26).astype(np.uint16) * 65535),
            "masks/n27.png": _saved(disc(27, 2).astype(np.uint16)),
            "masks/n28.tif": _instead(disc(28).astype(np.float32)),
        },
    })  # fmt: skip


def spoil_class_folders(root: Path) -> list[tuple[str, str]]:
    """Plant a fault of nearly every kind; returns (file, kind) of each, sorted."""
    class_folders(root, count=8)
    for name in ("one", "none"):  # the latter is no class
        (root / name).mkdir()
    _saved(disc(8, 255))(root / "one" / "a.png")
    deep = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 40
    return sorted(_spoil(root, {
        "empty file": {"cat/p0.JPG": _bytes(b""), "cat/p1.png": _bytes(b"")},
        "unreadable image": {"cat/p1.JPG": _bytes(b"no")},
        "soft mask": {"cat/p2.png": _saved(np.array(blurred(disc(3, 1, 3 * W, 3 * H))))},
        "colour mask": {"cat/p3.png": _saved(np.stack([disc(4, 200), disc(4, 9), disc(4, 0)], -1))},
        "duplicate name": {"cat/p4.jpeg": lambda file: photograph(5).save(file)},
        "16-bit or floating-point mask": {"cat/p5.png": _saved(disc(6).astype(np.uint16) * 1000)},
        "empty mask": {"dog/p0.png": _saved(np.zeros((H, W), np.uint8))},
        "image without mask": {"dog/p1.JPG": lambda file: file.with_suffix(".png").unlink()},
        "mask without image": {"dog/p2.png": lambda file: file.with_suffix(".JPG").unlink()},
        "size mismatch": {
            "dog/p3.png": _saved(np.array(Image.fromarray(disc(7, 255)).resize((30, 40), 0))),
            "dog/p4.png": lambda file: turned_photograph(24, file.with_suffix(".JPG")),
        },
        "class with too few images": {"one": lambda file: photograph(8).save(file / "a.jpg")},
        "16-bit image": {"owl/p0.tif": lambda f: (Image.fromarray(deep).save(f), f.with_suffix(".JPG").unlink())},
    }))  # fmt: skip
