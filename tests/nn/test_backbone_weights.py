"""Backbone weights: real files, prefixes, torchvision's names, files that do not fit, downloads only on request."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision import models as tv

from fsslib.errors import CheckpointError
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.weights import apply_state, read_state


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(3)
    save_file(build_backbone("tiny").state_dict(), path)
    return path


def test_real_resnet18_file(shared):
    file = shared / "weights" / "resnet18-imagenet-to-layer3.pth"
    with pytest.warns(UserWarning, match=r"holds no weights for layer4.*prior.*last='layer3'") as caught:
        backbone = build_backbone("resnet18", weights=file)
    assert caught[0].filename == __file__
    expected = torch.load(file, weights_only=True)
    assert torch.equal(backbone.layer0[0].weight, expected["conv1.weight"])
    assert torch.equal(backbone.layer3[1].bn2.bias, expected["layer3.1.bn2.bias"])


@pytest.mark.parametrize("name, file, options", [
    ("resnet18", "resnet18-imagenet-to-layer3.pth", {}),
    ("resnet50", "resnet50-imagenet-to-layer3-stride-in-1x1.pth", {"stride_on": "1x1"}),
])  # fmt: skip
def test_real_weights_recognise_a_photograph(shared, name, file, options):
    """A dark, grey, mirrored copy is found among 12 photographs by layer3 means; random weights only see the colour."""
    colour, grey = [], []
    for photo in sorted((shared / "data" / "coco128" / "train2017").glob("*.jpg"))[:12]:
        image = torch.from_numpy(np.array(Image.open(photo).convert("RGB").resize((97, 97)))).permute(2, 0, 1) / 255
        colour.append(image)
        grey.append(0.7 * image.mean(0, keepdim=True).flip(-1).expand(3, -1, -1))
    both = torch.stack(colour + grey)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]

    def found(backbone):
        with torch.no_grad():
            feature = backbone.eval()((both - mean) / std, ["layer3"])["layer3"].mean((2, 3))
        assert feature.isfinite().all()
        a, b = (F.normalize(half - half.mean(0), dim=1) for half in feature.chunk(2))
        return ((a @ b.T).argmax(1) == torch.arange(12)).sum().item()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        real = found(build_backbone(name, last="layer3", weights=shared / "weights" / file, **options))
    torch.manual_seed(0)
    assert real >= 11 and found(build_backbone(name, last="layer3", **options)) <= 5


def test_round_trip_and_prefixes(tmp_path, tiny_file):
    expected = read_state(tiny_file)
    state = {f"module.backbone.{k}": v.half() if v.is_floating_point() else v for k, v in expected.items()}
    torch.save({"state_dict": state | {"module.head.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "whole.pth")
    for file, tolerance in ((tiny_file, 0), (tmp_path / "whole.pth", 1e-3)):
        loaded = build_backbone("tiny", weights=str(file))
        assert loaded.layer0[0].weight.dtype == torch.float32
        for key, value in loaded.state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_vgg_takes_torchvision_files_in_any_order(name):
    reference = tv.vgg.make_layers(tv.vgg.cfgs["D"], batch_norm=name == "vgg16_bn").state_dict()
    backbone = build_backbone(name)
    apply_state(backbone, {f"features.{k}": reference[k] for k in sorted(reference)}, "reference")
    for (_, ours), (_, theirs) in zip(backbone.state_dict().items(), reference.items(), strict=True):
        assert torch.equal(ours, theirs), "position by position"


def test_deep_stem_file():
    source = build_backbone("resnet18", stem="deep")
    names = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
    state = {}
    for key, value in source.state_dict().items():
        stage, index, rest = key.split(".", 2)
        state[f"{names[index]}.{rest}" if stage == "layer0" else key] = value
    target = build_backbone("resnet18", stem="deep")
    apply_state(target, state | {"fc.weight": torch.zeros(1)}, "semseg file")
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())
    with pytest.raises(CheckpointError, match="deep stem: build the backbone with stem='deep'"):
        apply_state(build_backbone("resnet18"), state, "semseg file")


def _broken(case, state):
    """A state dict with one fault."""
    if case == "half a stage":
        return {k: v for k, v in state.items() if not k.startswith("layer2.0.bn")}
    if case == "hole":
        return {k: v for k, v in state.items() if not k.startswith("layer2")}
    if case == "shape":
        return state | {"layer1.0.conv1.weight": torch.zeros(16, 16, 5, 5)}
    if case == "nan":
        return state | {"layer3.0.bn1.bias": torch.full((64,), torch.nan)}
    if case == "unknown":
        return state | {"decoder.weight": torch.zeros(3)}
    if case == "kind":
        return state | {"layer1.0.bn1.bias": torch.zeros(16, dtype=torch.long)}
    return {"something.else": torch.zeros(3)}


@pytest.mark.parametrize("case, message", [
    ("half a stage", r"8? ?missing \(layer2\.0\.bn1\.weight, .*…\)"),
    ("hole", r"missing \(layer2"),
    ("shape", r"1 of another shape \(layer1\.0\.conv1\.weight \(16, 16, 5, 5\) instead of \(16, 16, 3, 3\)\)"),
    ("nan", r"1 not finite .*layer3\.0\.bn1\.bias"), ("unknown", r"1 unknown \(decoder\.weight\)"),
    ("kind", r"1 of another kind \(layer1\.0\.bn1\.bias torch\.int64\)"),
    ("other network", r"missing \(layer0\.0\.weight.*1 unknown \(something\.else\)"),
])  # fmt: skip
def test_files_that_do_not_fit(case, message, tiny_file, tmp_path):
    path = tmp_path / "broken.pth"
    torch.save(_broken(case, read_state(tiny_file)), path)
    backbone = build_backbone("tiny")
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(CheckpointError, match=message) as error:
        apply_state(backbone, read_state(path), str(path))
    assert str(path) in str(error.value) and "get it again" in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items()), "nothing was overwritten"


def test_absent_counters_and_absent_end_are_legal(tiny_file, recwarn):
    state = {k: v for k, v in read_state(tiny_file).items() if "num_batches" not in k}
    apply_state(build_backbone("tiny"), state, "file")
    assert not recwarn
    short = {k: v for k, v in state.items() if not k.startswith(("layer3", "layer4"))}
    with pytest.warns(UserWarning, match=r"layer3 and layer4.*last='layer2'"):
        apply_state(build_backbone("tiny"), short, "file")


class _Code:
    def __reduce__(self):
        return print, ("this must not run",)


def test_unreadable_files(tmp_path, tiny_file, capsys):
    whole = tiny_file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(read_state(tiny_file), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:20_000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(_Code(), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    expected = {"cut.safetensors": "cannot be read", "cut.pth": "truncated", "empty.pth": "cannot be read"}
    expected |= {"code.pth": "holds code", "list.pth": "no state dict", "none.pth": "does not exist", "": "is a folder"}
    for name, message in expected.items():
        with pytest.raises(CheckpointError, match=message) as error:
            build_backbone("tiny", weights=tmp_path / name)
        assert str(tmp_path) in str(error.value)
    assert "must not run" not in capsys.readouterr().out


# ImageNet weights: only on request


def test_imagenet_weights_are_asked_for_by_torchvisions_own_enum(monkeypatch):
    asked = []

    def fetch(url, *args, **kwargs):
        asked.append((url, kwargs["weights_only"], kwargs["check_hash"]))
        torch.manual_seed(5)
        return tv.resnet18().state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    backbone = build_backbone("resnet18")
    assert not asked, "nothing is downloaded unless asked for"
    backbone = build_backbone("resnet18", weights="imagenet")
    assert asked == [(tv.ResNet18_Weights.IMAGENET1K_V1.url, True, True)]
    torch.manual_seed(5)
    assert torch.equal(backbone.layer4[1].conv2.weight, tv.resnet18().layer4[1].conv2.weight)


def test_failed_download_says_what_to_do(monkeypatch):
    def fetch(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with pytest.raises(CheckpointError, match=r"could not download vgg16 .*no route.*PATH"):
        build_backbone("vgg16", weights="imagenet")
