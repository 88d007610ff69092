"""What decoders drop and what they raise, at every door that takes a picture or a mask."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from core_tools import panet
from folder_tree import class_folders, coco, disc, images_masks, label_map, photograph
from PIL import Image

from fsslib import segment
from fsslib.data.folder.check import check_folder
from fsslib.data.photographs import fss1000, pascal
from fsslib.data.pictures import image_tensor, mask_tensor, picture_size, read_image
from fsslib.errors import DatasetError
from fsslib.widgets import SupportPainter
from fsslib.widgets.explorers.methods import File

PHOTO, MASK = photograph(1), Image.fromarray(disc(1))
MODEL = panet()


def own(root):
    return class_folders(root, "folders")


def in_folder(layout, kind):
    """A door that puts the file in place of an image or a mask of a folder, and raises the report's one problem."""

    def read(file):
        root = file.parent / "set"
        made = layout(root)
        root = made[0] if isinstance(made, tuple) else made
        ending = ".jpg" if kind == "image" else ".png"
        old = min(path for path in (file.parent / "set").rglob("*") if path.suffix.lower() == ending)
        new = old.with_suffix(file.suffix)
        old.unlink()
        new.write_bytes(file.read_bytes())
        if layout is coco:  # which names its files
            root.write_text(root.read_text().replace(old.name, new.name))
        (problem,) = check_folder(root).problems
        assert problem.file == new, "one problem of one file"
        raise DatasetError(f"{problem.file.name} {problem.message}. {problem.cure}")

    return read


OPENED, OPENED_MASK = "image_tensor of an open picture", "mask_tensor of an open picture"
IMAGES = {
    "image_tensor": image_tensor, OPENED: lambda file: image_tensor(Image.open(file)),
    "read_image": read_image, "a painter": SupportPainter,
    "an upload": lambda file: File(file.name, file.read_bytes()).picture(),
    "segment, query": lambda file: segment(file, PHOTO, MASK, model=MODEL),
    "segment, support": lambda file: segment(PHOTO, [PHOTO, file], [MASK, MASK], model=MODEL),
    "class folders": in_folder(own, "image"), "images": in_folder(images_masks, "image"),
    "coco": in_folder(coco, "image"),
}  # fmt: skip
MASKS = {
    "mask_tensor": mask_tensor, OPENED_MASK: lambda file: mask_tensor(Image.open(file)),
    "segment": lambda file: segment(PHOTO, PHOTO, file, model=MODEL),
    "VOC": pascal.read_mask, "FSS-1000": fss1000._object,
    "class folders": in_folder(own, "mask"), "masks": in_folder(images_masks, "mask"),
}  # fmt: skip


def pages(form, ending, **options):
    def write(folder):
        first, *others = [photograph(seed) for seed in range(3)]
        first.save(folder / f"p.{ending}", form, save_all=True, append_images=others, **options)
        return folder / f"p.{ending}"

    return write


def deep_png(channels):
    """A PNG of 16 bit a channel, which Pillow does not write."""

    def write(folder):
        pixels = np.random.default_rng(0).integers(0, 65536, (32, 48, channels)).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
        head = struct.pack(">IIBBBBB", 48, 32, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
        parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
        (folder / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        return folder / "p.png"

    return write


def deep_ppm(folder):
    (folder / "p.ppm").write_bytes(b"P6 48 32 65535\n" + np.arange(48 * 32 * 3, dtype=">u2").tobytes())
    return folder / "p.ppm"


def deep_tiff(folder):
    """48 x 32 RGB of 16 bit, in one strip."""
    data = np.arange(48 * 32 * 3, dtype="<u2").tobytes()
    tags = [(256, 3, 1, 48), (257, 3, 1, 32), (258, 3, 3, 8 + len(data)), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, 32), (279, 4, 1, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data) + 6)
    end = struct.pack("<HHH", 16, 16, 16) + struct.pack("<H", len(tags)) + entries + bytes(4)
    (folder / "p.tif").write_bytes(head + data + end)
    return folder / "p.tif"


PAGED = {
    "TIFF": pages("TIFF", "tif"), "GIF": pages("GIF", "gif"), "PNG": pages("PNG", "png"),
    "WEBP": pages("WEBP", "webp", lossless=True),
}  # fmt: skip
doors = pytest.mark.parametrize(
    "door", [*IMAGES.values(), *MASKS.values()], ids=[*IMAGES, *(f"mask: {n}" for n in MASKS)]
)
DEEP = {"RGB": deep_png(3), "RGBA": deep_png(4), "LA": deep_png(2), "PPM": deep_ppm, "TIFF": deep_tiff}


@doors
def test_nothing_is_dropped_without_a_word(tmp_path, door):
    for words, files in (("holds 3 pages", PAGED), ("16 bit a channel", DEEP)):
        for name, write in files.items():
            folder = tmp_path / words.replace(" ", "") / name
            folder.mkdir(parents=True)
            with pytest.raises(DatasetError, match=words):
                door(write(folder))


def test_what_is_no_second_page_is_no_complaint(tmp_path):
    """Previews, a phone's second picture, a file that could hold more, and a page that somebody turned to."""
    PHOTO.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photograph(2)])
    PHOTO.save(tmp_path / "preview.tif", save_all=True, append_images=[PHOTO.resize((12, 8))])
    PHOTO.convert("P").save(tmp_path / "one.gif")
    PHOTO.save(tmp_path / "one.png")
    assert Image.open(tmp_path / "phone.jpg").n_frames == 2
    for name in ("phone.jpg", "preview.tif", "one.gif", "one.png"):
        assert image_tensor(tmp_path / name).shape == (3, 32, 48)
        assert image_tensor(Image.open(tmp_path / name)).shape == (3, 32, 48)
    turned = Image.open(PAGED["TIFF"](tmp_path))
    turned.seek(1)
    assert np.array_equal(image_tensor(turned).permute(1, 2, 0).numpy(), np.array(photograph(1)))


ERRORS = [
    KeyError("x"), IndexError("list index"), struct.error("unpack"), zlib.error("-3"), RecursionError(), MemoryError(),
    OverflowError("int"), EOFError(), AttributeError("x"), TypeError("x"), AssertionError(), ZeroDivisionError(),
    NotImplementedError(), SyntaxError("not a TIFF"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), OSError(5, "I/O"),
    Image.DecompressionBombError("bomb"), PermissionError(13, "Permission denied"), StopIteration(),
]  # fmt: skip


@doors
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_a_decoder_raises_is_one_typed_error(tmp_path, monkeypatch, door, where):
    """Raised for one file only, the one that the door is given."""
    opened, theirs = Image.open, (IMAGES[OPENED], MASKS[OPENED_MASK])
    if where == "open" and door in theirs:
        return  # the reader's own call

    def raising(error):
        raise error

    for at, error in enumerate(ERRORS if door.__name__ != "read" else ERRORS[::5]):
        file = tmp_path / str(at) / "broken.bmp"
        file.parent.mkdir()
        PHOTO.save(file)

        def failing(source, *args, error=error, **options):
            broken = str(source).endswith(".bmp") or isinstance(source, io.BytesIO)
            if broken and where == "open":
                raise error
            picture = opened(source, *args, **options)
            if broken:
                picture.load = lambda: raising(error)
            return picture

        monkeypatch.setattr(Image, "open", failing)
        with pytest.raises(DatasetError, match=r"cannot|no picture"):
            door(file)
        monkeypatch.undo()


def test_sizes_are_read_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_: 1 / 0)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"cannot decode image .*a\.jpg"):
        picture_size(tmp_path / "a.jpg")


def test_a_label_map_of_any_number_of_bits_is_no_loss(tmp_path):
    Image.fromarray(label_map(1).astype(np.uint16)).save(tmp_path / "deep.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert mask_tensor(tmp_path / "deep.png").max() == 255
