"""What the published weights exp(−D) of ASGNet's clustering amount to: `data/results/asgnet-sharpness.json`.

python tools/sharpness.py RESNET50 VOC   weights of a ResNet-50 (stride in the 1x1 convolutions), folder of PASCAL VOC

exp(−D) is exp(−sharpness · D / σ) at sharpness = σ, the standard deviation of the object's cells: it depends on nothing
but the length of the features. Measured on photographs, for a pre-trained ResNet-50 (layers 2 and 3 as they are, and
behind an untrained reduction such as ASGNet begins with), and for each on a scale of sharpness that is set by hand.
"""

import json
import sys

import torch

from fsslib import EpisodeSampler, Protocol, build_model, files, load_dataset
from fsslib.analysis.superpixels import NAMES, superpixel_measures
from fsslib.experiments import recipe
from fsslib.models.base import evaluating, joined
from fsslib.ops import resize

PHOTOGRAPHS, SIZE, FOLD = 16, 321, 1
AREA = 100 * ((SIZE + 7) / (473 + 7)) ** 2  # S_sp, which the paper has at 473 pixels
SHARPNESS = (None, 1.0, 2.0, 4.0, 8.0)


def main(weights: str, root: str) -> None:
    torch.manual_seed(0)
    how = {"backbone": "resnet50", "weights": weights, "stem": "classic", "backbone_options": {"stride_on": "1x1"}}
    net = build_model("asgnet", last="layer3", superpixel_area=AREA, **how)
    data = load_dataset("pascal", root=root, fold=FOLD, split="test")
    sampler = EpisodeSampler(data, Protocol.pascal5i(input_size=SIZE), shot=1)
    found = {"ResNet-50, layers 2 and 3": [], "ResNet-50, untrained reduction": []}
    with evaluating(net):
        for spec in sampler.fixed(PHOTOGRAPHS, 0).specs:
            episode = sampler.build([spec])
            support = net.encode(episode, ["layer2", "layer3"])[1]
            raw = joined({stage: maps.flatten(0, 2) for stage, maps in support.items()})
            for own, features in zip(found.values(), (raw, net.down_conv(raw))):
                own.append((features[None], episode.support_masks[:, 0]))
    rows = [row for name, supports in found.items() for row in measured(net, name, supports)]
    content = {
        "command": "python tools/sharpness.py RESNET50 VOC", "photographs": PHOTOGRAPHS, "size": SIZE, "fold": FOLD,
        "superpixel_area": round(AREA, 2), "classes": sorted({data.names[c] for c in sampler.supports}), "rows": rows,
        "versions": recipe.versions(),
    }  # fmt: skip
    target = files.data_folder() / "results" / "asgnet-sharpness.json"
    files.write_text(target, json.dumps(content, indent=1) + "\n")


def measured(net, name: str, supports: list) -> list[dict]:
    """One row a sharpness: means over the objects of more than one superpixel."""
    rows = []
    for net.sharpness in SHARPNESS:
        each = torch.cat([superpixel_measures(net.superpixels(*support)[1]) for support in supports])
        row = {"features": name, "sharpness": net.sharpness or _deviation(supports), "published": not net.sharpness}
        means = zip(NAMES, (round(x, 4) for x in each.mean(0).tolist()))
        rows.append(row | {"objects": len(each)} | dict(means))
        print(rows[-1], flush=True)
    return rows


def _deviation(supports: list) -> float:
    """Mean over the objects of σ, which is the sharpness that exp(−D) has (the position adds next to nothing)."""
    found = []
    for features, masks in supports:
        own = features[0, 0][:, resize((masks == 1).float(), tuple(features.shape[-2:]))[0, 0] == 1]
        if own.shape[1] > 1:
            found.append(own.var(1, correction=0).sum().sqrt())
    return round(float(torch.stack(found).mean()), 3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
