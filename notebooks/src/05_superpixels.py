# ---
# jupyter:
#   title: Superpixels
#   minutes: 0.5
# ---

# %% [markdown]
# # 05 · Superpixels: several prototypes, and who gets which
#
# A masked average turns an object into one vector. ASGNet makes *several*: it [clusters the object into superpixels](GLOSSARY.md#superpixel), as
# many as its area allows, and tells every query position which of them fits best. You will rebuild all of it and measure
# whether it does what it is said to do.
#
# **What you will learn**
#
# * what one average loses on an object of several parts, and what several prototypes lose instead;
# * farthest-point seeds, soft clustering and [guided allocation](GLOSSARY.md#guided-prototype-allocation), each in a few lines;
# * why a weight $\exp(-D)$ hides a temperature, and what that does to the clusters;
# * how a *sum* over prototypes breaks a trained model at five shots, and how to repair it without training;
# * how to read a comparison over several trainings when it contradicts a good story.
#
# **What it needs**: notebooks 01 and 04, about half a minute on two cores; data: Shapes-5i, drawn from a seed. Unless said
# otherwise the weights are *loaded, not trained here*.

# %% tags=["parameters"]
fold = 0
seed = 0
episodes = 60
train_steps = 30  # at least 1
retrain = False  # True: train new heads with the budget of the shipped ones instead (a few minutes)

# %%
import json

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from scipy.stats import mannwhitneyu

import fsslib
from fsslib import EpisodeSampler, Protocol, build_model, evaluate, load_dataset, load_model, plots
from fsslib.analysis import intervals
from fsslib.analysis.intervals import gain_verdict, mean_interval, percent, verdict
from fsslib.checkpoints import read_note, shipped
from fsslib.evaluation import Evaluation
from fsslib.metrics import FewShotIoU, over_trainings
from fsslib.models.asgnet import allocate, clean_seeds, cluster, published_seeds
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.ops import masked_pool, resize
from fsslib.plots import common
from fsslib.plots import superpixels as pictures
from fsslib.plots.attention import dots, gallery
from fsslib.plots.common import score_curves, strip
from fsslib.plots.display import show
from fsslib.training import Schedule, train_episodes

torch.set_grad_enabled(False)

# %% tags=["nbval-ignore-output"]
path = shipped("asgnet", "shapes", fold)
print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")
print(f"{path.name}: loaded, not trained here; made with: {read_note(path).get('command', 'not recorded')}")

# %%
net = load_model(path)
net.explain = True  # keep the intermediate maps
options = {name: getattr(net, name) for name in ("max_superpixels", "superpixel_area", "iterations", "similarity")}
print(options)

# %% [markdown]
# ## One average of several parts
#
# The knob `parts` cuts each object of Shapes-5i into bands with textures and colours of their own; the first one keeps
# the texture of the class. All else stays as it is. The data knows the parts, the model does not.

# %%
sets = {n: load_dataset("shapes", fold=fold, split="test", val_classes=0, knobs={"parts": n}) for n in (1, 2, 3, 4)}
protocol = Protocol.shapes5i(episodes=episodes, seeds=(seed,))


def parts_of(data, index):
    """(H, W) numbers of the target's parts, 0 elsewhere."""
    truth = data.truth(index)
    return torch.where(truth.clean_mask == truth.target, truth.parts, 0)


# %%
specs = EpisodeSampler(sets[1], protocol, shot=1).fixed(120, seed).specs
three = EpisodeSampler(sets[3], protocol, shot=1).build(specs)
meter, answer = FewShotIoU(), net(three)
meter.update(answer.masks(), three.query_masks, three.classes)
few = answer.maps["prototypes_used"].sum(1) < 5
first = int(np.where(few, -1, meter.compute().episode_iou()).argmax())  # the best with all five superpixels
specs, best = [specs[first], *(spec for spec in specs[:60] if spec != specs[first])][:60], 0  # it, and others
built = {n: EpisodeSampler(data, protocol, shot=1).build(specs) for n, data in sets.items()}
three = built[3]

# %% tags=["nbval-ignore-output"]
own, i = specs[best].supports[0][0], best
rows = {"picture": [plots.overlay(e.support_images[i, 0, 0]) for e in built.values()]}
rows["parts"] = [common.tinted(parts_of(d, own), built[n].support_images[i, 0, 0]) for n, d in sets.items()]
alt = f"The same support, an object of class {sets[1].names[int(three.classes[i])]}, with one to four parts."
show(*gallery(rows, [f"parts = {n}" for n in sets], alt, side=0.67), photo=True)

# %% [markdown]
# Compare the query with (a) the masked average of the whole object and (b) one masked average for each true part, of
# which the best counts. No clustering can know that: [it is an *oracle*](GLOSSARY.md#oracle). $c$ is the cosine, $F_q$ the query's features:
#
# $$\text{(a)}\;\; c(x) = \cos\big(F_q(x), \bar s\big) \qquad \text{(b)}\;\; c(x) = \max_k \cos\big(F_q(x), s_k\big)$$


# %%
def reduced(episode):
    """Query features, support features (B, C, h, w), and which cells are object (B, h, w)."""
    query, support = net.features(episode)
    cells = resize((episode.support_masks[:, 0] == 1).float(), (25, 25))[:, 0] == 1
    return query["reduced"], support["reduced"][:, 0, 0], cells


def part_prototypes(features, parts):
    """(B, 4, C) one masked average for each part, and (B, 4) which exist."""
    masks = torch.stack([parts == k for k in range(1, 5)], 1).float()
    return masked_pool(features[:, None], masks), masks.sum((2, 3)) > 0


# %%
def best_match(query, prototypes, used):
    """(B, h, w) cosine of the most similar prototype."""
    similarity = allocate(query, prototypes, used).similarity
    return similarity.masked_fill(~used[:, :, None, None], -1).amax(1)


def on_grid(data, indices):
    return torch.stack([parts_of(data, index)[::4, ::4] for index in indices])  # every 4th pixel is a cell's centre


Q, S, cells = reduced(three)
support_parts = on_grid(sets[3], [s.supports[0][0] for s in specs])
query_parts = on_grid(sets[3], [s.query for s in specs])
average = masked_pool(S, cells.float())[:, None]
matched = {"one average": best_match(Q, average, torch.ones(60, 1, dtype=torch.bool))}
matched["best of the parts"] = best_match(Q, *part_prototypes(S, support_parts))

# %% tags=["nbval-ignore-output"]
image, truth = three.query_images[i], query_parts[i] > 0
row = [("query", plots.overlay(image)), ("its parts", common.tinted(parts_of(sets[3], specs[i].query), image))]
row += [(name, maps[i]) for name, maps in matched.items()]
said = {n: f"{m[i][truth].mean():.2f} on the object, {m[i][~truth].mean():.2f} off it" for n, m in matched.items()}
alt = f"A query of three parts, and its cosines. {'; '.join(f'{n}: {v}' for n, v in said.items())}."
show(*strip(row, alt, side=1.05), photo=True)

# %% [markdown]
# Now over 60 episodes. First the mean cosine on the object and on the background, then the AUC: how often an object
# cell has a higher value than a cell of the background.


# %%
def levels(maps):
    """Per episode: mean cosine on the object and off it, and the AUC."""
    pairs = [(m[p > 0], m[p == 0]) for m, p in zip(maps, query_parts)]
    areas = [mannwhitneyu(on, off).statistic / (len(on) * len(off)) if len(on) else 0.5 for on, off in pairs]
    means = [np.array([float(side.mean()) if len(side) else 0.0 for side in pair]) for pair in pairs]
    return {"object": np.stack(means)[:, 0], "background": np.stack(means)[:, 1], "AUC": np.array(areas)}


found = {name: levels(maps) for name, maps in matched.items()}
change = {k: mean_interval(found["best of the parts"][k] - v) for k, v in found["one average"].items()}
print("best of the parts: more similar on the object, beyond the paired interval:", change["object"][1] > 0)
print("but more similar on the background, too, and by more:", change["background"][1] > change["object"][2])
print("so the object stands out less (AUC), beyond the paired interval:", change["AUC"][2] < 0)

# %% tags=["nbval-ignore-output"]
for name, value in change.items():
    print(verdict(f"{name}, best of the parts - one average", value, 2))

# %% [markdown]
# "An average resembles none of its parts": true, and half of the truth. Every further prototype is one more chance for
# the background to find a match, and stripes or dots occur there as well. **Several prototypes buy similarity and pay
# with specificity.** (In these features, trained on objects of one part.) Whether a decoder can use them, we shall see.
#
# ## Where superpixels start
#
# Seeds come from farthest-point sampling: each new seed lies as far as possible from background and earlier seeds,
#
# $$s_i = \underset{p \in M}{\mathrm{argmax}}\; \min\Big(d(p, \text{background}),\; \min_{j < i} d(p, s_j)\Big)$$
#
# Marking a seed as background turns this into one distance transform per seed:


# %%
def farthest(cells, count, framed):
    """`count` seeds (row, column) in (h, w) cells; unless `framed`, the border of the bounding box is no background."""
    rows, columns = cells.nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    box = np.pad(cells[top : rows.max() + 1, left : columns.max() + 1].numpy(), int(framed))
    points = []
    for _ in range(count):
        row, column = np.unravel_index(distance_transform_edt(box).argmax(), box.shape)
        points.append([int(row) + top - framed, int(column) + left - framed])
        box[row, column] = False
    return points


# %%
objects = three.support_masks[:, 0, 0] == 1
sampled = objects[:, torch.arange(25) * 97 // 25][:, :, torch.arange(25) * 97 // 25]  # the authors' grid
placed = {"published": published_seeds(objects, (25, 25), 5, 15.0), "clean": clean_seeds(objects, (25, 25), 5, 15.0)}
for (name, rule), grid in zip(placed.items(), (sampled, cells)):
    pairs = [(farthest(g, n, name == "clean"), p[:n].tolist()) for g, p, n in zip(grid, rule.points, rule.counts)]
    print(f"{name}: by hand as in the library:", all(a == b for a, b in pairs if len(b) > 1))

# %% [markdown]
# "Clean" is what the paper describes. The authors' data loader ("published", our default) has habits of its own:
#
# * it samples the mask on a grid of its own, so a seed may lie *beside* the cells that are clustered;
# * it looks at the object's bounding box only; the border of the image is no background, so seeds of an
#   object that is cut off may lie on the very edge;
# * it rounds halves to even where the paper rounds down, and seeds on row 0 and column 0 can cost the last one.

# %%
on_cells = [
    cells[b, p[0], p[1]] for b, n in enumerate(placed["published"].counts) for p in placed["published"].points[b, :n]
]
differs = placed["published"].counts != placed["clean"].counts
print("published seeds beside the object's cells exist:", not all(on_cells))
print(f"supports with another number of superpixels: {100 * differs.float().mean():.0f} %")

# %%
first = {name: rule.points[:, 0] for name, rule in placed.items()}
apart = (first["published"] - first["clean"]).abs().sum(1) * (
    torch.stack([r.counts for r in placed.values()]).amin(0) > 1
)
rows = {}
for label, b in {"an easy one": best, "cut off": int(apart.argmax())}.items():
    both = {name: (rule.points[b], int(rule.counts[b])) for name, rule in placed.items()}
    rows[label] = (three.support_images[b, 0, 0], cells[b], both)
show(*pictures.placement(rows), photo=True)

# %% [markdown]
# ## Clustering
#
# Every centre starts as the feature $s_i$ at its seed, with its position $z_i$. Then, $T$ times (10 in training, 5 in
# evaluation):
#
# $$D_{pi} = \sqrt{\lVert F_p - s_i \rVert^2 + \frac{\lVert z_p - z_i \rVert^2}{r^2}} \qquad
# A_{pi} = \frac{e^{-D_{pi}}}{\sum_{p'} e^{-D_{p'i}}} \qquad s_i \leftarrow \sum_p A_{pi} F_p$$
#
# and $z_i$ alike, with $r = 10$ cells. Look at the sum in $A$: it runs over the *pixels* of one superpixel.


# %%
def iterate(features, cells, seeds, steps, reach=10.0, sharp=1.0):
    """Centres (P, C + 2) and weights (P, M) before each of `steps` iterations and after the last."""
    where = cells.nonzero()
    X = torch.cat([features[:, cells].T, where / reach], 1)
    s = torch.cat([features[:, seeds[:, 0], seeds[:, 1]].T, seeds / reach], 1)
    stages = []
    for _ in range(steps + 1):
        D = (s[:, None] - X).norm(dim=-1)
        A = torch.exp(-sharp * D)
        A = A / A.sum(1, keepdim=True)  # over the pixels, not over the superpixels
        stages.append((s, A))
        s = A @ X
    return stages


# %%
start = placed["published"].points[best]
stages = iterate(S[best], cells[best], start, 5)
ours, A = stages[5][0], stages[4][1]
library = cluster(S, cells.float(), placed["published"])
print("the prototypes of the library:", torch.allclose(ours[:, :32], library.prototypes[best], atol=1e-4))
print("and its weights:", torch.allclose(A, library.assignment[best][:, cells[best]], atol=1e-5))
print("over the pixels each superpixel's weights sum to 1:", torch.allclose(A.sum(1), torch.ones(5)))
print("over the superpixels a pixel's weights sum to 1:", torch.allclose(A.sum(0), torch.ones(A.shape[1])))

# %% [markdown]
# So this is no division of the object: a pixel may count in every superpixel or in none. Each centre is a *mean shift* by
# itself and nothing keeps two apart. Watch them (upper row: as published; lower row: $e^{-2D}$ in place of $e^{-D}$). The
# colour is the weight that centre 1 gives next.


# %%
def frames(sharp):
    """{t: (positions of the centres in cells, weights on the grid)}"""
    shown = {}
    for t, (s, A) in enumerate(iterate(S[best], cells[best], start, 10, sharp=sharp)):
        weights = torch.zeros(len(A), 25, 25)
        weights[:, cells[best]] = A
        shown[t] = (10 * s[:, -2:], weights)
    return {t: shown[t] for t in (0, 1, 2, 5, 10)}


# %% tags=["nbval-ignore-output"]
moves = {"exp(-D)": frames(1.0), "exp(-2 D)": frames(2.0)}
show(*pictures.clustering(moves, cells[best]))

# %%
moved = {name: (intervals.spread(f[0][0]), intervals.spread(f[10][0])) for name, f in moves.items()}
print("exp(-D): the centres end at less than half of their distances:", moved["exp(-D)"][1] < moved["exp(-D)"][0] / 2)
print("exp(-2 D): at more than 70 % of them:", moved["exp(-2 D)"][1] > 0.7 * moved["exp(-2 D)"][0])

# %% [markdown]
# With $e^{-D}$ every centre walks to the middle: five superpixels, nearly one prototype. With $e^{-2D}$ most stay near
# their seeds. No number in the formula says which it will be; the *length of the features* does. Multiplying all features by 2
# (and halving $r$) *is* $e^{-2D}$. How far apart are the prototypes, how many cells carry them, and how pure are they: how
# much of the weight lies on a single true part, and how much of the object that part is?


# %%
def quality(features, cells, parts, sharp):
    """Mean cosine between an object's prototypes, share of its cells in use, weight on one part, largest part."""
    found = cluster(features * sharp, cells.float(), published_seeds(cells, (25, 25), 5, 15.0), reach=10 / sharp)
    rows = []
    for p, used, weights, own, part in zip(found.prototypes, found.used, found.assignment, cells, parts):
        n = int(used.sum())
        if n > 1:
            unit, A = F.normalize(p[used], dim=1), weights[used][:, own]
            on_part = F.one_hot(part[own].long(), 5)[:, 1:].float()
            share, largest = (A @ on_part).amax(1).mean(), on_part.mean(0).max()
            effective = 1 / A.square().sum(1) / own.sum()
            rows.append([((unit @ unit.T).sum() - n) / (n * n - n), effective.mean(), share, largest])
    return np.array(rows).mean(0)


# %%
table = {}
for n, data in sets.items():
    _, features, own = reduced(built[n])
    parts = on_grid(data, [s.supports[0][0] for s in specs])
    table |= {(n, sharp): quality(features, own, parts, sharp) for sharp in ((1, 1.5, 3) if n in (1, 3) else (1,))}

# %% tags=["nbval-ignore-output"]
columns = ["cosine between prototypes", "share of cells in use", "weight on one part", "largest part's share"]
pd.DataFrame(table, index=columns).T.rename_axis(["parts", "sharpness"]).round(2)

# %%
print("one part: the prototypes of an object have a mean cosine above 0.97:", bool(table[1, 1][0] > 0.97))
print("three parts: lower, but above 0.8:", bool(0.8 < table[3, 1][0] < table[1, 1][0]))
print("and hardly purer than the whole object (within 0.15):", bool(0 < table[3, 1][2] - table[3, 1][3] < 0.15))
print("sharpness 3: less than 10 % of the cells carry a prototype:", bool(table[3, 3][1] < 0.1))

# %% [markdown]
# In *this* network (32 channels, small pictures) superpixels hardly differ; on objects of several parts a little more.
# Published networks have other features, not measured here. Measure before you believe a picture of superpixels.
#
# ## Guided allocation
#
# For every query position and prototype a cosine $c_i$; the guide map $G$ names the best, the guide features hand it out,
# [the probability map sums](GLOSSARY.md#probability-map) up:
#
# $$c_i(x) = \cos(F_q(x), s_i) \qquad G(x) = \underset{i}{\mathrm{argmax}}\; c_i(x) \qquad F_G(x) = s_{G(x)} \qquad \Pi(x) = \sum_i c_i(x)$$

# %%
one = three.select([best])
out = net(one)
f_q, s = out.maps["query_features"], out.maps["prototypes"]
c = torch.einsum("bpc,bchw->bphw", F.normalize(s, dim=-1), F.normalize(f_q, dim=1))
G = c.argmax(1)
F_G = s[0, G[0]].permute(2, 0, 1)[None]
Pi = c.sum(1, keepdim=True)

# %%
print("F_q", tuple(f_q.shape), " s", tuple(s.shape), " c", tuple(c.shape), " F_G", tuple(F_G.shape))
print("similarity and sum as in the library:", torch.allclose(Pi, out.maps["probability"], atol=1e-4))
print("same guide, but for near ties:", bool((out.maps["guide"][:, 0] == G).float().mean() > 0.99))
small, _ = net.context(None, torch.cat([f_q, F_G], 1), Pi)
close = (resize(small, (97, 97)).argmax(1) == out.masks()).float().mean()
print("PFENet's decoder on [F_q; F_G] and the map gives the mask of net(episode):", bool(close > 0.999))

# %% tags=["nbval-ignore-output"]
image = one.query_images[0]
row = [("query", plots.overlay(image)), ("c₁", c[0, 0]), ("c₅", c[0, 4]), ("sum / 5", Pi[0, 0] / 5)]
row += [("guide G", common.tinted(G[0] + 1, image)), ("prediction", plots.overlay(image, out.masks()[0]))]
uses = ", ".join(f"{k + 1}: {100 * share:.0f} %" for k, share in enumerate(F.one_hot(G, 5).float().mean((0, 1, 2))))
alt = f"Similarity to two prototypes, mean of five, guide map (shares {uses}) and prediction."
show(*strip(row, alt, side=1.05), photo=True)

# %% [markdown]
# $G$ says *which*, never *whether*: background gets a prototype, too. Whether is for $\Pi$ to say, and for the decoder.
#
# ## How many?
#
# $$P = \min\big(\mathrm{round}(M / S_{sp}),\; N_{max}\big) \qquad N_{max} = 5$$
#
# $M$ counts the object's cells, and 0 or 1 means a plain masked average. The authors' $S_{sp} = 100$ is made for grids
# of 60×60. Ours have 25×25, and the shipped weights were trained with 15.

# %% tags=["nbval-ignore-output"]
area = sampled.sum((1, 2))
rules = {f"S = {a}": published_seeds(objects, (25, 25), 5, float(a)).counts.tolist() for a in (15, 100)}
show(*pictures.counts(area.tolist(), rules))

# %%
formula = torch.round(area / 15).clamp_max(5)
agree = placed["published"].counts == formula
print(
    "the library's numbers are those of the formula:",
    bool(agree[placed["published"].points[:, :, :].amin((1, 2)) > 0].all()),
)
print("with S = 100 no object here has two superpixels:", max(rules["S = 100"]) < 2)

# %% [markdown]
# ## A sum that grows
#
# With $K$ shots the prototypes of all supports are pooled: up to $5K$ of them. But $\Pi$ is a *sum*. On
# standard objects (one part):

# %%
sampler = EpisodeSampler(sets[1], protocol, shot=5)
five = sampler.build(sampler.fixed(40, seed).specs)
inside = five.query_masks[:, ::4, ::4] == 1
heights = {"sum, on the object": {}, "sum, background": {}, "mean, on the object": {}}
for k in range(1, 6):
    maps = net(five.shots(k)).maps
    pi, n = maps["probability"][:, 0], maps["prototypes_used"].sum(1)
    on, off = ([float(m[i if side else ~i].mean()) for m, i in zip(pi, inside)] for side in (True, False))
    for name, value in zip(heights, (on, off, np.array(on) / n.numpy())):
        heights[name][k] = mean_interval(np.nan_to_num(value))

# %% tags=["nbval-ignore-output"]
show(*score_curves(heights, "shots K", "mean of the probability map"))

# %%
ratio = {name: values[5][0] / values[1][0] for name, values in heights.items()}
print("on the object, five shots against one: the sum grows by 4 to 6:", 4 < ratio["sum, on the object"] < 6)
print("the mean stays within 10 %:", abs(ratio["mean, on the object"] - 1) < 0.1)

# %% [markdown]
# A decoder trained with one shot has never met such values (notebook 04 had the opposite, a query that shrank). Is that
# harmful? And $F_G$, picked out of five times as many candidates? Change one thing at a time, on the *same weights*:
#
# * `similarity="mean"`: divide $\Pi$ by the number of prototypes;
# * `allocation="expand"`: hand out the mean of all prototypes instead of the best one;
# * `shot_merge="average"`: allocate for each support by itself, then average $F_G$ and $\Pi$ over the supports.

# %%
net.explain, net.backbone = False, CachedBackbone(net.backbone, dtype=torch.float32)  # each picture only once
result = evaluate(net, sets[1], protocol, shots=(1, 5), batch=20)
trained = result.scores
variants = {"mean": {"similarity": "mean"}, "expand": {"allocation": "expand"}}
variants["mean + expand"] = {"similarity": "mean", "allocation": "expand"}
variants |= {"average of shots": {"shot_merge": "average"}, "one prototype each": {"max_superpixels": 1}}


# %%
def rescored(changes):
    """Scores of the same weights with other options."""
    before = {name: getattr(net, name) for name in changes}
    vars(net).update(changes)
    scores = evaluate(net, sets[1], protocol, shots=(1, 5), batch=20).scores
    vars(net).update(before)
    return scores


scored = {"as trained: sum, guided": trained} | {name: rescored(changes) for name, changes in variants.items()}

# %% tags=["nbval-ignore-output"]
series = {f"K={k}": {n: percent((s[k].miou, *s[k].interval())) for n, s in scored.items()} for k in (1, 5)}
show(*dots(series, "mIoU, %"))

# %%
drop = percent(trained[5].difference(trained[1]))
print("five shots cost more than 15 points, beyond the interval:", drop[2] < -15)
gains = {name: percent(scored[name][5].difference(trained[5])) for name in variants}
for name, (_, low, _) in gains.items():
    print(f"K=5, {name}: better than as trained, beyond the interval:", low > 0)

# %%
for name in ("mean", "expand"):
    value, low, high = percent(scored[name][5].difference(scored[name][1]))
    said = "more" if low > 0 else "less" if high < 0 else "no clear difference"
    print(f"{name}: K=5 against K=1:", said)
for name in ("mean + expand", "average of shots"):
    print(f"K=5, {name}: better than mean alone:", scored[name][5].difference(scored["mean"][5])[1] > 0)
same = torch.equal(*(torch.as_tensor(scored[n][1].table) for n in ("as trained: sum, guided", "average of shots")))
print("at K=1 'average of shots' changes nothing:", same)

# %% [markdown]
# Two causes, then. Most of the loss is the height of $\Pi$; with its mean, five shots are about as good as one. For more
# shots to *help* beyond that, the guide features must be tame, too: picked from many supports they vary over the query in a way that
# one-shot training never showed. The supports carried the information all along.
# (One training. How deep the others fall: below.)
#
# ### Or train with five shots
#
# The backbone stays frozen; clustering and allocation have no parameters. What learns is the reduction and the decoder.
# Give the shipped heads a few steps of five-shot episodes. (With `retrain = True`, new heads train from scratch on one
# shot instead, with the budget of the shipped ones.)

# %%
torch.manual_seed(seed)
tuned = build_model(**net.config) if retrain else load_model(path)
tuned.backbone = net.backbone  # shared, with its cache
learnable = sum(x.numel() for x in tuned.parameters() if x.requires_grad)
print(f"learnable {learnable:,} of {sum(x.numel() for x in tuned.parameters()):,} parameters")
shot, steps, batch = (1, 1500, 8) if retrain else (5, train_steps, 4)
train_set = load_dataset("shapes", fold=fold, split="train", val_classes=0)
batches = EpisodeSampler(train_set, Protocol.shapes5i(), shot=shot, seed=seed)
with torch.enable_grad():
    history = train_episodes(tuned, batches, Schedule(steps, batch=batch, lr=1e-3, seed=seed))
after = evaluate(tuned, sets[1], protocol, shots=(1, 5), batch=20).scores

# %%
row = history.rows[0]
print("the loss is main + aux, nothing else:", np.isclose(row["main"] + row["aux"], row["total"]))
change = {k: percent(after[k].difference(trained[k])) for k in (1, 5)}
if not retrain:
    print("K=5 gains more than 10 points, beyond the interval:", change[5][1] > 10)
    print("K=1 loses more than 5, beyond the interval:", change[1][2] < -5)

# %% tags=["nbval-ignore-output"]
for k in (1, 5):
    print(verdict(f"K={k}, after {steps} steps with K={shot} - shipped", change[k]))

# %% [markdown]
# Five shots are largely repaired, and one shot is broken: a decoder works at the height of $\Pi$ that it was trained with.
#
# The authors know. A user of their repository reports 59.2 at one shot and 43.7 at five with the same weights
# (PASCAL-5i, fold 0); the answer: train with five shots, as for the paper's 63.9 (mean of the folds). When you read
# "5-shot", ask what was trained.
#
# ## Live and stored scores
#
# The stored scores: three trainings with 1,000 episodes each. Ours are the first of the same list.

# %%
folder = fsslib.files.data_folder() / "results" / "comparison"
stored = json.loads((folder / "asgnet-0.json").read_text())
full = EpisodeSampler(sets[1], protocol, shot=5).fixed(1000, 0)
first_ones = full.hash == stored["list_hash"] and result.lists[0].specs == full.specs[:episodes]
print("our episodes are the first of the stored list:", first_ones)
for k, scores in trained.items():
    (low, high), expected = percent(scores.interval()), stored["scores"][str(k)]["miou"]
    print(f"K={k}: the stored score of these weights lies in the live interval:", bool(low < expected < high))

# %%
trainings = [Evaluation.load(folder / f"asgnet-{n}.npz").scores for n in range(3)]
for k in (1, 5):
    value, low, high = percent(over_trainings([t[k] for t in trainings]))
    each = ", ".join(f"{100 * t[k].miou:.1f}" for t in trainings)
    print(f"K={k}: {value:.1f} ({low:.1f} to {high:.1f}), trainings {each}")
gap = percent(over_trainings([t[5] for t in trainings], [t[1] for t in trainings]))
falls = [100 * (t[5].miou - t[1].miou) for t in trainings]
print(gain_verdict("K=5 - K=1", gap, falls))
print("the trainings fall differently deep, by more than 10 points:", max(falls) - min(falls) > 10)

# %% [markdown]
# ## Do several prototypes pay?
#
# `tools/parts.py` gave ASGNet a partner that may keep one prototype only (`max_superpixels=1`). All else is equal:
# pre-trained backbone, steps, batches, test episodes. Both learned from objects of one part; they are tested on objects of
# one to four, where a single average has to describe bands of different textures.

# %%
study = json.loads((fsslib.files.data_folder() / "results" / "asgnet-parts.json").read_text())
print(
    f"{len(study['training_seeds'])} trainings, {study['episodes']} episodes; trained on {study['trained_on_parts']} parts"
)
show(*pictures.by_parts(study["rows"]))

# %%
print("\n".join(intervals.part_verdicts(study["rows"])))
print("\nThat is:", intervals.conclusion(study["rows"]))

# %% [markdown]
# How to read this, whichever way the dots fall:
#
# * The interval covers the choice of episodes, the dots that of the training seed. A gain counts if its interval leaves
#   out zero *and* all trainings agree.
# * With one shot both variants are what they were trained as. With five, both meet a $\Pi$ that they never saw, and
#   "several" a far larger one. A difference there says more about the sum than about prototypes.
# * The paper (as summarised elsewhere) has 58.7 to 59.3 mIoU for 1 to 9 prototypes at one shot on PASCAL-5i, one training
#   each. Its larger gains are at five shots, with models trained so.
# * Few seeds, one fold, 32 channels, no training on objects of several parts: this is what happens *here*.
#
# ## Paper and code
#
# | topic | paper | authors' code (our default) | option |
# |---|---|---|---|
# | number of superpixels | $\lfloor M / S_{sp} \rfloor$ | rounded, halves to even; zero coordinates can cost a seed | `seeds="clean"` |
# | seeds | spread evenly inside the mask | inside the bounding box, borders are no background | `seeds="clean"` |
# | weight of position | a symbol $r$ | $r = 10$ | `reach` |
# | fusion | one 1×1 convolution | one per scale of the pyramid | `fusion="once"` |
# | learning rate | as configured | ten times that | |
# | "frozen" backbone | fixed | its batch norms go on counting | `bn="batch"` |
#
# ## Try it
#
# * Move the iterations from 1 to 15 and watch the rings, the mean cosine and the bars. When are five superpixels one
#   prototype?
# * Objects of three parts, one iteration: which superpixel covers which part? Which does a position of the query get?
# * Five supports: what do "mean", "expand" and "average" do to the range of the probability map, and to the mask?

# %% tags=["nbval-ignore-output"]
from fsslib.widgets import explore_superpixels

explore_superpixels({f"parts = {n}": data for n, data in sets.items()}, net)

# %% [markdown]
# ## Summary
#
# * Farthest-point seeds, soft clustering, arg max, sum: four steps without a parameter.
# * $e^{-D}$ has a temperature, the length of the features. Here it makes superpixels that hardly differ.
# * Several prototypes raise similarity everywhere, on the background as well.
# * A sum over prototypes grows with the shots; means and averages repair a collapsed model without training.
# * Whether several prototypes pay, trained and tested alike, stands above behind "That is", with intervals.
#
# ## Exercises
#
# Write each function in the cell below its question. `check` needs less than a second, names the idea that is
# missing, and may be asked as often as you like.

# %%
from fsslib.labs import check

# %% [markdown] tags=["exercise"]
# ### 1 · `soft_assign`
#
# *Difficulty ●○○ · importance ●●○ · 5 minutes.* Centres (P, D) and cells (M, D), features with scaled positions, give the
# weights $A$ (P, M). One line is missing. Below: is it the sum in $A$ that makes the centres meet?
#
# <details><summary>Hint</summary>Far from all cells $e^{-D}$ is 0 in float32. What copes with that?</details>


# %% tags=["solution"]
def soft_assign(centres, cells):
    """(P, D) and (M, D) float -> (P, M): weight of each cell in each centre, finite at any distance."""
    distance = (centres[:, None] - cells).norm(dim=-1)
    ### BEGIN SOLUTION
    return torch.softmax(-distance, dim=1)
    ### END SOLUTION


# %%
check(soft_assign)


# %%
def kept(weigh):
    shares = []  # of the seeds' distances, after five steps
    for f, own, p, n in zip(S, cells, placed["published"].points, placed["published"].counts):
        if n > 1:
            X = torch.cat([f[:, own].T, own.nonzero() / 10], 1)
            s = torch.cat([f[:, p[:n, 0], p[:n, 1]].T, p[:n] / 10], 1)
            for _ in range(5):
                A = weigh(s, X)
                s = A @ X / A.sum(1, keepdim=True)
            shares.append(10 * intervals.spread(s[:, -2:]) / intervals.spread(p[:n]))
    return bool(np.mean(shares) > 0.5)


print("as published, half is left:", kept(soft_assign))
print("cells shared among the centres:", kept(lambda s, X: soft_assign(X, s).T))
print("vectors twice as long:", kept(lambda s, X: soft_assign(2 * s, 2 * X)))

# %% [markdown] tags=["exercise"]
# ### 2 · `my_allocation`
#
# *Difficulty ●●○ · importance ●●● · 15 minutes.* Query (B, C, h, w), prototypes (B, P, C) and used (B, P) give $F_G$ and
# $\Pi$. A prototype that is not used may hold anything.
#
# <details><summary>Hint</summary>Where all cosines are negative, a 0 would win.</details>


# %% tags=["solution"]
def my_allocation(query, prototypes, used):
    """Float, float and bool -> guide features (B, C, h, w), probability map (B, 1, h, w)."""
    c = torch.einsum("bpc,bchw->bphw", F.normalize(prototypes, dim=-1), F.normalize(query, dim=1))
    spare = ~used[..., None, None]
    guide = c.masked_fill(spare, -torch.inf).argmax(1)
    chosen = torch.stack([p[g] for p, g in zip(prototypes, guide)]).permute(0, 3, 1, 2)
    return chosen, c.masked_fill(spare, 0).sum(1, keepdim=True)


# %%
check(my_allocation)

# %% [markdown] tags=["exercise"]
# ### 3 · `normalised_map`
#
# *Difficulty ●○○ · importance ●●○ · 5 minutes.* Make $\Pi$ a mean: five equal supports must give the map of one. One
# line is missing. Does the decoder notice such supports?
#
# <details><summary>Hint</summary>Episodes of a batch differ in their numbers of prototypes.</details>


# %% tags=["solution"]
def normalised_map(query, prototypes, used):
    """(B, C, h, w), (B, P, C) and bool (B, P) -> (B, 1, h, w): mean cosine of the prototypes in use."""
    total = allocate(query, prototypes, used).probability
    ### BEGIN SOLUTION
    return total / used.sum(1)[:, None, None, None]
    ### END SOLUTION


# %%
check(normalised_map)

# %%
net.explain = True
known = net(built[1]).maps
f, s, used = known["query_features"], known["prototypes"], known["prototypes_used"] > 0
equal, n = (f, s.repeat(1, 5, 1), used.repeat(1, 5)), used.sum(1)[:, None, None, None]
F_G, summed = my_allocation(*equal)
once, *others = (
    net.context(None, torch.cat([f, F_G], 1), Pi)[0].argmax(1) > 0
    for Pi in (known["probability"], summed, n * normalised_map(*equal))
)
for name, m in zip(("sum", "mean, times n"), others):
    print(f"five equal supports, {name}: same masks:", bool((m & once).sum() > 0.9 * (m | once).sum()))

# %% [markdown] tags=["exercise"]
# ### 4 · `guide_range`
#
# *Difficulty ●●○ · importance ●●○ · 10 minutes.* The objects of $K$ supports cover `areas` cells. With $S_{sp}$ and
# $N_{max}$: how many prototypes are there together, and between which values can $\Pi$ lie?
#
# <details><summary>Hint</summary>What does an object of two cells get? Do opposite vectors exist?</details>


# %% tags=["solution"]
def guide_range(areas, superpixel_area, most):
    """K integers, a number, an integer -> (number of prototypes, lowest, highest value of Π)."""
    total = sum(min(max(round(area / superpixel_area), 1), most) for area in areas)
    return total, -total, total


# %%
check(guide_range)

# %%
used, index = net(five).maps["prototypes_used"], torch.arange(25) * 97 // 25
areas = (five.support_masks[:, 0][..., index[:, None], index] == 1).sum((2, 3))
told = [guide_range(a, 15, 5)[0] for a in areas.tolist()]
print("your numbers are the network's:", told == used.sum(1).tolist())
net.explain = False

# %% [markdown] tags=["exercise"]
# ### 5 · `several_pay`
#
# *Difficulty ●●● · importance ●●● · 10 minutes.* When would several prototypes help, and why do they hardly help here?
# 25 words or more, with a number measured above.
#
# <details><summary>Hint</summary>Do they differ? What else do they resemble? Which $\Pi$ was trained?</details>


# %% tags=["solution"]
def several_pay():
    """-> your answer, a text."""
    return """They help if parts look different, clusters keep them apart, and training met as many. Here prototypes
    are nearly equal (cosine above 0.97), each one also matches some background, and at K=5 the sum is too high."""


# %%
check(several_pay)

# %% [markdown] tags=["marking"]
# **Marking.** `soft_assign`, `my_allocation`, `normalised_map`, `guide_range`: the check decides. *Known wrong paths*: the
# weights of a *cell* are made to sum to 1 (soft k-means); dot products; a zero prototype wins where all cosines are
# negative; the mean over all rows in place of those in use; a map that cannot exceed 1, or that cannot fall below 0.
#
# `several_pay`, three points: a condition (parts differ, and so do the clusters: length of the features, temperature); the
# price (specificity on the background, or a sum that the decoder never met); a fitting number. *Known wrong paths*: "more
# prototypes hold more information, so they are better" (the AUC fell); "five shots show that they harm" (both variants
# meet a map that training never showed).

# %% [markdown]
# **Read next**: `experiment`, the report with your own parameters; `-p method=asgnet -p train_shot=5` trains with five
# shots.
#
# **References**: G. Li, V. Jampani, L. Sevilla-Lara, D. Sun, J. Kim, J. Kim, *Adaptive Prototype Learning and Allocation
# for Few-Shot Segmentation* (ASGNet), CVPR 2021, arXiv 2104.01893; original code: github.com/Reagan1311/ASGNet. Z. Tian
# et al., *Prior Guided Feature Enrichment Network for Few-Shot Segmentation* (PFENet), arXiv 2008.01449.
