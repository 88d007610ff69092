"""The rows about data, sampling and annotation of the table in test_bad_input.py."""

import numpy as np
import torch
from core_tools import SIZE, panet, random_episode, shapes
from PIL import Image
from voc_tree import list_of, make_voc, quiet

from fsslib import EpisodeSampler, Protocol, load_dataset, segment
from fsslib.data import check_folder
from fsslib.data.download.fetch import fetch
from fsslib.data.episodes import EpisodeSpec
from fsslib.data.transforms import Resize, augment, normalise
from fsslib.data.weak_annotations import annotate
from fsslib.errors import DatasetError, DownloadError

RULES = Protocol(input_size=SIZE, episodes=2)
EPISODE = random_episode()


def pascal(tmp, **options):
    voc = tmp / "VOCdevkit" / "VOC2012"
    return quiet(voc if voc.is_dir() else make_voc(tmp), **{"fold": 0, **options})


def spoilt_voc(tmp, name, mask=None, raw=None):
    voc = make_voc(tmp)
    file = voc / "SegmentationClass" / name if name.endswith("png") else voc / "JPEGImages" / name
    if raw is not None:
        file.write_bytes(raw)
    elif mask is None:
        file.unlink()
    else:
        Image.fromarray(mask).save(file)
    return quiet(voc, 0, "test")[0]


def absent_support():
    data = load_dataset("shapes", split="test", size=SIZE, pool=10)
    first, second = data.classes[:2]
    spec = EpisodeSpec((first,), ((data.images_of(second)[0],),), data.images_of(first)[0])
    return EpisodeSampler(data, RULES).build([spec])


def grid(*values):
    return np.resize(np.array(values, np.uint8), (32, 40))


DATA_CASES = {
    # data sets
    "data set name": (lambda t: load_dataset("shape"), DatasetError, ["'shape'", "did you mean 'shapes'"]),
    "no root": (lambda t: load_dataset("pascal"), DatasetError, ["folder", "root="]),
    "root of the embedded set": (lambda t: load_dataset("shapes", root="x"), DatasetError, ["leave root out"]),
    "data set option": (lambda t: load_dataset("shapes", sise=33), DatasetError, ["'sise'", "help"]),
    "split": (lambda t: load_dataset("shapes", split="valid"), DatasetError, ["'valid'", "train, val, test"]),
    "fold": (lambda t: load_dataset("shapes", fold=4), DatasetError, ["fold 4", "0 to 3"]),
    "pool size": (lambda t: load_dataset("shapes", pool=0), DatasetError, ["pool", "0", "whole number from 1"]),
    "knob": (lambda t: load_dataset("shapes", knobs={"gab": 1.0}), DatasetError, ["'gab'", "gap"]),
    "class of another split": (lambda t: shapes("test").images_of(99), DatasetError, ["no class 99", "Its classes"]),
    "image number": (lambda t: shapes("test")[4000], DatasetError, ["4000", "0 to 39"]),
    "missing folder": (lambda t: load_dataset("pascal", root=t / "none"), DatasetError,
        ["no PASCAL VOC folder", "JPEGImages", "Unpack"]),
    "pascal fold": (lambda t: pascal(t, fold=7), DatasetError, ["fold 7", "0 to 3"]),
    "pascal validation": (lambda t: pascal(t, split="val", val_classes=0), DatasetError, ["val_classes"]),
    "pascal novel": (lambda t: pascal(t, novel="hide"), DatasetError, ["'hide'", "background, ignore, drop"]),
    "list file": (lambda t: pascal(t, images=t / "no.txt"), DatasetError, ["no.txt", "Pass the path"]),
    "listed but absent": (lambda t: quiet(make_voc(t), 0, images=list_of(t / "VOCdevkit/VOC2012",
        ["2008_000001", "2008_000099"])), DatasetError, ["2008_000099", "JPEGImages"]),
    "image lost": (lambda t: spoilt_voc(t, "2008_000011.jpg"), DatasetError, ["2008_000011", "complete JPEGImages"]),
    "mask lost": (lambda t: spoilt_voc(t, "2008_000011.png"), DatasetError, ["2008_000011", "SegmentationClass"]),
    "corrupt mask": (lambda t: spoilt_voc(t, "2008_000011.png", raw=b"\x89PNG no"), DatasetError,
        ["2008_000011.png", "Copy the file"]),
    "corrupt photograph": (lambda t: spoilt_voc(t, "2008_000011.jpg", raw=b"no"), DatasetError,
        ["2008_000011.jpg", "Copy the file"]),
    "colour mask": (lambda t: spoilt_voc(t, "2008_000011.png", np.zeros((32, 40, 3), np.uint8)), DatasetError,
        ["mode RGB", "Convert"]),
    "unknown class id": (lambda t: spoilt_voc(t, "2008_000011.png", grid(0, 33)), DatasetError, ["33", "0 to 20"]),
    "mask of another size": (lambda t: spoilt_voc(t, "2008_000011.png", grid(0, 1)[:30]), DatasetError,
        ["40x30", "40x32", "Resize"]),
    "no usable class": (lambda t: pascal(t, min_area=10**6), DatasetError, ["no usable class", "Lower min_area"]),
    "folder of pictures that is not there": (lambda t: check_folder(t / "none"), DatasetError, ["none", "no folder"]),
    "pictures that are none": (lambda t: segment("no.jpg", "no.jpg", "no.png", model=panet()), DatasetError,
        ["no.jpg", "no image file"]),
    "host that is down": (lambda t: fetch("http://127.0.0.1:1/a.tar", t / "a.tar", attempts=1, progress=False),
        DownloadError, ["127.0.0.1:1/a.tar", "by hand"]),
    # transforms, annotation
    "resize": (lambda t: Resize(97, "crop"), DatasetError, ["'crop'", "'squash'", "'pad'"]),
    "mask of another image": (lambda t: Resize(33)(torch.zeros(3, 20, 20, dtype=torch.uint8),
        torch.zeros(20, 21, dtype=torch.uint8)), DatasetError, ["(20, 21)", "(20, 20)"]),
    "normalised twice": (lambda t: normalise(torch.zeros(3, 8, 8)), DatasetError, ["float32", "uint8"]),
    "augmentation": (lambda t: augment(*shapes("test")[0], 1, "foto"), DatasetError, ["'foto'", "photo"]),
    "annotation": (lambda t: annotate(EPISODE.support_masks[0, 0, 0], "boxes"), DatasetError, ["'boxes'", "box"]),
    # sampling
    "fewer images than shots": (lambda t: EpisodeSampler(shapes("test", 5), RULES, shot=5), DatasetError,
        ["5-shot", "at least 6 images", "Use fewer"]),
    "more ways than classes": (lambda t: EpisodeSampler(shapes("test"), RULES.replace(way=6)), DatasetError,
        ["6-way", "5 have them", "Use fewer ways"]),
    "no shot": (lambda t: EpisodeSampler(shapes("test"), RULES, shot=0), DatasetError, ["shot=0", "from 1"]),
    "negative seed": (lambda t: EpisodeSampler(shapes("test"), RULES, seed=-1), DatasetError, ["seed=-1", "from 0"]),
    "support without its class": (lambda t: absent_support(), DatasetError, ["holds no pixel", "images_of"]),
}  # fmt: skip
