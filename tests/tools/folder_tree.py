"""Made-up folders of somebody's own pictures, clean and with planted faults, in the three layouts."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

W, H = 48, 32
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
NAMES = {1: "cat", 2: "dog", 3: "owl"}


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


def spoil_images_masks(root: Path) -> list[tuple[str, str]]:
    """Plant three faults of ten kinds among 40 pairs; returns (file, kind) of each."""
    images_masks(root, 40)
    image, mask = root / "images", root / "masks"
    planted = []

    def plant(kind: str, *files: str) -> None:
        planted.extend((file, kind) for file in files)

    whole = (image / "n00.jpg").read_bytes()
    (image / "n00.jpg").write_bytes(whole[: len(whole) // 2])
    (image / "n01.jpg").write_bytes(b"GIF8 this is none")
    (image / "n02.jpg").write_bytes(whole[:100])
    plant("unreadable image", "images/n00.jpg", "images/n01.jpg", "images/n02.jpg")

    whole = (mask / "n03.png").read_bytes()
    (mask / "n03.png").write_bytes(whole[:60])
    (mask / "n04.png").write_bytes(b"<html>404</html>")
    (mask / "n05.png").write_bytes(whole[:30] + b"\0" * 40)
    plant("unreadable mask", "masks/n03.png", "masks/n04.png", "masks/n05.png")

    for name in ("n06", "n07"):
        (mask / f"{name}.png").unlink()
    (mask / "n08.png").rename(mask / "N08.png")
    plant("image without mask", "images/n06.jpg", "images/n07.jpg", "images/n08.jpg")
    # The renamed mask is left over too: the ninth pair of its kind is planted with it.
    for name in ("n09", "n10"):
        (image / f"{name}.jpg").unlink()
    plant("mask without image", "masks/N08.png", "masks/n09.png", "masks/n10.png")

    Image.fromarray(label_map(11)).resize((W // 2, H // 2), 0).save(mask / "n11.png")
    Image.fromarray(label_map(12).T.copy()).save(mask / "n12.png")
    turned_photograph(13, image / "n13.jpg")
    plant("size mismatch", "masks/n11.png", "masks/n12.png", "masks/n13.png")

    for seed, mode in ((14, "RGB"), (15, "RGBA"), (16, "RGB")):
        colours = COLOURS[disc(seed, 1 + seed % 3)]
        Image.fromarray(colours).convert(mode).save(mask / f"n{seed}.png")
    plant("colour mask", "masks/n14.png", "masks/n15.png", "masks/n16.png")

    Image.fromarray(np.zeros((H, W), np.uint8)).save(mask / "n17.png")
    Image.fromarray(disc(18, 255)).save(mask / "n18.png")
    Image.fromarray(np.zeros((H, W), bool)).save(mask / "n19.png")
    plant("empty mask", "masks/n17.png", "masks/n18.png", "masks/n19.png")

    Image.fromarray(disc(20, 37)).save(mask / "n20.png")
    Image.fromarray(disc(21, 4)).save(mask / "n21.png")
    Image.fromarray(np.maximum(label_map(22) % 255, disc(22, 200)[::-1])).save(mask / "n22.png")
    plant("unknown class id", "masks/n20.png", "masks/n21.png", "masks/n22.png")

    blurred(disc(23, 1, 3 * W, 3 * H)).save(mask / "n23.png")
    (mask / "n24.png").unlink()
    Image.fromarray(disc(24, 255)).save(mask / "n24.jpg", quality=60)
    blurred(disc(25, 1, 2 * W, 2 * H)).point(lambda v: round(v / 255 * 9)).save(mask / "n25.png")
    plant("soft mask", "masks/n23.png", "masks/n24.jpg", "masks/n25.png")

    Image.fromarray(disc(26).astype(np.uint16) * 65535).save(mask / "n26.png")
    Image.fromarray(disc(27, 2).astype(np.uint16)).save(mask / "n27.png")
    (mask / "n28.png").unlink()
    Image.fromarray(disc(28).astype(np.float32)).save(mask / "n28.tif")
    plant("16-bit or floating-point mask", "masks/n26.png", "masks/n27.png", "masks/n28.tif")
    return planted


def spoil_class_folders(root: Path) -> list[tuple[str, str]]:
    """Plant a fault of nearly every kind; returns (file, kind) of each, sorted."""
    class_folders(root, count=8)
    cat = root / "cat"
    (cat / "p0.JPG").write_bytes(b"")
    (cat / "p1.png").write_bytes(b"")
    (cat / "p1.JPG").write_bytes(b"no")
    Image.fromarray(disc(3, 255)).save(cat / "p2.png")
    blurred(disc(3, 1, 3 * W, 3 * H)).save(cat / "p2.png")
    Image.fromarray(np.stack([disc(4, 200), disc(4, 9), disc(4, 0)], -1)).save(cat / "p3.png")
    photograph(5).save(cat / "p4.jpeg")
    Image.fromarray(disc(6).astype(np.uint16) * 1000).save(cat / "p5.png")
    Image.fromarray(np.zeros((H, W), np.uint8)).save(root / "dog" / "p0.png")
    (root / "dog" / "p1.png").unlink()
    (root / "dog" / "p2.JPG").unlink()
    Image.fromarray(disc(7, 255)).resize((30, 40), 0).save(root / "dog" / "p3.png")
    turned_photograph(24, root / "dog" / "p4.JPG")
    Image.fromarray(np.arange(H * W, dtype=np.uint16).reshape(H, W) * 40).save(root / "owl" / "p0.tif")
    (root / "owl" / "p0.JPG").unlink()
    (root / "one").mkdir()
    photograph(8).save(root / "one" / "a.jpg")
    Image.fromarray(disc(8, 255)).save(root / "one" / "a.png")
    (root / "none").mkdir()  # no class
    return [
        ("cat/p0.JPG", "empty file"),
        ("cat/p1.JPG", "unreadable image"),
        ("cat/p1.png", "empty file"),
        ("cat/p2.png", "soft mask"),
        ("cat/p3.png", "colour mask"),
        ("cat/p4.jpeg", "duplicate name"),
        ("cat/p5.png", "16-bit or floating-point mask"),
        ("dog/p0.png", "empty mask"),
        ("dog/p1.JPG", "image without mask"),
        ("dog/p2.png", "mask without image"),
        ("dog/p3.png", "size mismatch"),
        ("dog/p4.png", "size mismatch"),
        ("one", "class with too few images"),
        ("owl/p0.tif", "16-bit image"),
    ]
