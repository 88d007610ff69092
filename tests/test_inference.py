"""segment(): three lines from pictures to a mask, whatever the pictures are."""

import numpy as np
import pytest
import torch
from core_tools import panet
from PIL import Image

import fsslib
from fsslib.checkpoints import shipped
from fsslib.data.pictures import image_tensor, mask_tensor, picture_size, read_image
from fsslib.errors import DatasetError, EpisodeError

DATA = fsslib.load_dataset("shapes", split="test", pool=20)
CLASS = DATA.classes[0]


def pair(number):
    """Picture (H, W, 3) and mask (H, W) of an image of one class."""
    image, mask = DATA[DATA.images_of(CLASS)[number]]
    return image.permute(1, 2, 0).numpy(), (mask == CLASS).numpy()


def test_three_lines(tmp_path):
    image, mask = pair(0)
    Image.fromarray(image).save(tmp_path / "support.png"), Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(pair(1)[0]).save(tmp_path / "query.png")
    model = fsslib.load_model(shipped("panet"))
    found = fsslib.segment(tmp_path / "query.png", tmp_path / "support.png", tmp_path / "mask.png", model=model)
    truth = pair(1)[1]
    assert found.shape == truth.shape and found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    assert (found & truth).sum() / (found | truth).sum() > 0.4, "the shipped weights find most of a shape"


def test_every_kind_of_picture_gives_the_same(tmp_path):
    (image, mask), query, model = pair(0), pair(1)[0], panet()
    (
        Image.fromarray(image).save(tmp_path / "s.png"),
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "m.png"),
    )
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = fsslib.segment(query, image, mask, model=model)
    grey = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, -1)
    for support, label in (
        (str(tmp_path / "s.png"), str(tmp_path / "m.png")),
        (Image.fromarray(image), Image.fromarray(mask)),
        (tensor, torch.from_numpy(mask).long()),
        (tensor.float() / 255, mask.astype(np.int64) * 7),
        (np.dstack([image, np.full(mask.shape, 9, np.uint8)]), grey),
        ([image], [mask]),
        ({"thing": image}, {"thing": [mask]}),
    ):
        assert np.array_equal(fsslib.segment(query, support, label, model=model), expected)
    episode_like = fsslib.segment(torch.from_numpy(query).permute(2, 0, 1), image, mask, model=model, size=97)
    assert np.array_equal(episode_like, expected)


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_the_mask_has_the_querys_size(resize):
    image, mask = pair(0)
    query = np.kron(pair(1)[0], np.ones((2, 3, 1), np.uint8))
    found = fsslib.segment(query, image[:, :60], mask[:, :60] | True, model=panet(), resize=resize, size=65)
    assert found.shape == query.shape[:2]


def test_shots_and_classes():
    model, query = panet(), pair(2)[0]
    supports, masks = zip(*(pair(i) for i in (0, 1)))
    both = fsslib.segment(query, supports, list(masks), model=model)
    assert np.array_equal(both, fsslib.segment(query, supports[::-1], masks[::-1], model=model))
    ways = fsslib.segment(
        query, {"a": supports[0], "b": supports[1]}, {"b": masks[1], "a": masks[0]}, model=model.train()
    )
    assert set(np.unique(ways)) <= {0, 1, 2} and model.training, "the model comes back in the mode it came in"


@pytest.mark.parametrize("query, support, mask, said", [
    (0, [0, 0], [0], "found 2 pictures and 1 masks"), (0, {"a": 0}, 0, "expected two dictionaries"),
    (0, {"a": 0}, {"b": 0}, r"found the classes \['b'\], expected those of support, \['a'\]"),
    (0, {"a": [0, 0], "b": [0]}, {"a": [0, 0], "b": [0]}, "as many for each class"),
    (0, [], [], "found 0 pictures"), (0, 0, "small", "expected .* like its picture"),
    (0, 0, "empty", "no object pixel"),
    (0, [0, 0], [0, "empty"], "mask of support 2 of 'object'"),
])  # fmt: skip
def test_what_does_not_belong_together(query, support, mask, said):
    image, label = pair(0)
    masks = {0: label, "small": label[:50], "empty": label & False}

    def filled(value, table):
        if isinstance(value, dict):
            return {k: filled(v, table) for k, v in value.items()}
        return [table[v] for v in value] if isinstance(value, list) else table[value]

    with pytest.raises(EpisodeError, match=said):
        fsslib.segment(image, filled(support, {0: image}), filled(mask, masks), model=panet())


@pytest.mark.parametrize("picture, said", [
    ("no/such.jpg", "there is no image file"),
    (np.zeros((5, 5, 2), np.uint8), r"found shape \(5, 5, 2\)"),
    (np.zeros((5, 5, 3), np.int64), "found int64, expected uint8"),
    (np.full((5, 5, 3), 2.0), "from 0 to 1"), (np.full((5, 5, 3), np.nan), "from 0 to 1"),
    (3, "found int, expected a path"), (np.zeros((0, 5, 3), np.uint8), "found shape"),
    (Image.fromarray(np.full((5, 5), 60000, np.uint16)), "one I;16 number a pixel.*stretches it to 8 bit"),
    (Image.fromarray(np.full((5, 5), 0.5, np.float32)), "one F number a pixel"),
    (Image.fromarray(np.full((5, 5), 70000, np.int32)), "one I number a pixel"),
])  # fmt: skip
def test_pictures_that_are_none(picture, said):
    with pytest.raises(DatasetError, match=said):
        image_tensor(picture)


def test_masks():
    assert mask_tensor(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]], "255 is the object where nothing else is"
    assert mask_tensor(np.array([[0, 1, 255]], np.uint8)).tolist() == [[0, 1, 255]]
    assert mask_tensor(np.array([[True, False]])).tolist() == [[1, 0]]
    assert mask_tensor(np.array([[0, 300, -1]], np.int64)).tolist() == [[0, 1, 1]]
    palette = Image.fromarray(np.array([[0, 3]], np.uint8))
    palette.putpalette([0, 0, 0] * 256)
    assert mask_tensor(palette).tolist() == [[0, 1]], "indices count, not colours"
    with pytest.raises(DatasetError, match="found float32"):
        mask_tensor(torch.ones(4, 4, dtype=torch.bfloat16))
    soft = np.linspace(0, 255, 40).astype(np.uint8)[None]
    with pytest.raises(DatasetError, match="soft edges"):
        mask_tensor(soft)
    for bad in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8) + np.arange(3, dtype=np.uint8), np.zeros((0, 4), bool)):
        with pytest.raises(DatasetError, match=r"expected \(H, W\) of bool or whole numbers"):
            mask_tensor(bad)


def square(value=255, rim=0, width=1):
    """A square of 20 x 20 with a rim, on 0."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10 - width : 30 + width, 15 - width : 35 + width] = rim
    mask[10:30, 15:35] = value
    return mask


def test_palettes_in_an_order_of_their_own(tmp_path):
    """Programs that save two colours number them as they like; Pillow gives white the 0."""
    expected = (square() > 0).astype(int).tolist()
    picture = Image.fromarray(square()).convert("RGB").quantize(2)
    assert np.array(picture)[0, 0] == 1
    picture.save(tmp_path / "mask.png")
    for mask in (picture, tmp_path / "mask.png", Image.fromarray(square()).convert("P")):
        assert mask_tensor(mask).tolist() == expected
    full = Image.new("RGB", (6, 4), "white").quantize(2)
    assert mask_tensor(full).tolist() == [[1] * 6] * 4, "one colour, index 0"
    red = Image.fromarray(square()[..., None] * np.array([1, 0, 0], np.uint8)).quantize(2)
    with pytest.raises(DatasetError, match=r"index 0 of its palette is coloured.*any\(-1\)"):
        mask_tensor(red)
    voc = Image.fromarray(square(7, 255))
    voc.putpalette([c for i in range(256) for c in {7: (128,) * 3, 255: (224, 224, 192)}.get(i, (0, 0, 0))])
    assert np.array_equal(mask_tensor(voc).numpy(), square(1, 255)), "indices where the palette is VOC's"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_shape_in_the_alpha_channel_is_not_dropped(mode, tmp_path):
    white, shape = Image.new("L", (60, 40), 255), Image.fromarray(square())
    picture = Image.merge("LA", [white, shape]).convert(mode)
    picture.save(tmp_path / "mask.png")
    for mask in (picture, tmp_path / "mask.png"):
        with pytest.raises(DatasetError, match="transparency differs from place to place"):
            mask_tensor(mask)
    opaque = Image.merge("LA", [shape, white]).convert(mode)
    assert np.array_equal(mask_tensor(opaque).numpy(), square(1))
    few = Image.fromarray(square(1))
    few.putpalette([255] * 6)
    few.save(tmp_path / "background.png", transparency=0)
    assert np.array_equal(mask_tensor(tmp_path / "background.png").numpy(), square(1)), "index and alpha agree"
    few.save(tmp_path / "hole.png", transparency=1)
    with pytest.raises(DatasetError, match="transparency differs"):
        mask_tensor(tmp_path / "hole.png")


def test_soft_rims_and_what_255_means(tmp_path):
    shrunk = Image.fromarray(square()).resize((23, 17), Image.Resampling.BOX)
    assert len(set(np.array(shrunk).ravel())) < 9
    for quality in (30, 75, 95):
        Image.fromarray(square(200)).save(tmp_path / f"{quality}.jpg", quality=quality)
    for mask in (square(255, 128), shrunk, *tmp_path.glob("*.jpg")):
        with pytest.raises(DatasetError, match="soft edges"):
            mask_tensor(mask)
    wide = square(255, 120, 2)
    for mask in (wide, torch.from_numpy(wide).long()):
        with pytest.raises(DatasetError, match=r"If 255 is the object.*mask > 127; if 255 means neither"):
            mask_tensor(mask)
    assert np.array_equal(mask_tensor(wide > 127).numpy(), square(1))
    for rim in (1, 2, 4):  # a border that is ignored
        assert np.array_equal(mask_tensor(square(1, 255, rim)).numpy(), square(1, 255, rim))
    outlined = square(2, 1)
    assert np.array_equal(mask_tensor(outlined).numpy(), outlined > 0), "all of it is drawn"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_floating_point_pictures_of_any_width(kind):
    picture = torch.rand(3, 8, 8).to(kind)
    assert torch.equal(image_tensor(picture), (picture.float() * 255).round().to(torch.uint8))


def test_files_of_sixteen_bit_are_refused_and_the_cure_cures(tmp_path):
    file = tmp_path / "deep.png"
    Image.fromarray(np.arange(40_000, dtype=np.uint16).reshape(200, 200)).save(file)
    for read in (image_tensor, read_image):
        with pytest.raises(DatasetError, match=r"deep\.png: holds one I;16 number a pixel") as said:
            read(file)
    exec(str(said.value).split("`")[1], {})
    assert sorted(set(read_image(file).ravel().tolist())) == list(range(256))


def test_rotation_notes_turn_pictures(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == (6, 4, 3) and picture_size(tmp_path / "turned.png") == (4, 6)
    assert image_tensor(Image.open(tmp_path / "turned.png")).shape == (3, 6, 4)
