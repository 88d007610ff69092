# ---
# jupyter:
#   title: Affinity attention
#   minutes: 0.5
# ---

# %% [markdown]
# # 03 · Affinity attention: a prior map and a learned map
#
# Besides a prototype, SD-AANet gives its decoder two *maps* of the query. [The **prior map**](GLOSSARY.md#prior-mask) (from PFENet) is computed,
# never learned. [The **attention map**](GLOSSARY.md#affinity-attention) comes from SAAM, a small head that learns on the support, where the answer is
# known.
#
# **What you will learn**
#
# * the prior map step by step, and four ways in which it fails;
# * how to score a map [without choosing a threshold (AUC)](GLOSSARY.md#auc);
# * what SAAM looks at, which of its layers the support supervises, and which it does not;
# * why a learned map is no heat map until it has been measured;
# * how to find out which map a decoder listens to.
#
# **What it needs**: nothing but this repository. No download, no GPU, about half a minute on two cores. The data is
# Shapes-5i, drawn from a seed. The weights are *loaded, not trained here*; one short training runs live.

# %% tags=["parameters"]
fold = 0
seed = 0
episodes = 60
train_steps = 60

# %%
import copy
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

import fsslib
from fsslib import EpisodeSampler, Protocol, load_dataset, load_model, plots
from fsslib.analysis.intervals import mean_interval, percent, verdict
from fsslib.checkpoints import read_note, shipped
from fsslib.data.shapes.plan import shape_texture
from fsslib.data.transforms import normalise
from fsslib.losses import segmentation
from fsslib.metrics import FewShotIoU
from fsslib.ops import masked_pool, prior_mask, resize
from fsslib.plots import attention as pictures
from fsslib.plots.common import differences, score_curves
from fsslib.plots.display import show
from fsslib.training import Schedule, fit

# %% tags=["nbval-ignore-output"]
print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")

# %%
path = shipped("sdaanet", "shapes", fold)
net = load_model(path)
net.explain = True  # predictions carry their maps
torch.set_grad_enabled(False)
print(f"{path.name}: loaded, not trained here")
print("made with:", read_note(path).get("command", "not recorded"))

# %% [markdown]
# ## One episode to look at
#
# Of the first 24 episodes, the one that the model solves best. Failures follow.

# %%
test_set = load_dataset("shapes", fold=fold, split="test", val_classes=0)
protocol = Protocol.shapes5i(episodes=episodes, seeds=(seed,))
sampler = EpisodeSampler(test_set, protocol, shot=1)
specs = sampler.fixed(max(episodes, 24), seed).specs
few = sampler.build(specs[:24])
meter = FewShotIoU()
meter.update(net(few).masks(), few.query_masks, few.classes)
best = int(meter.compute().episode_iou().argmax())
one = few.select([best])

# %% [markdown]
# ## The prior map, step by step
#
# **Step 1: deep features.** The prior compares [features of the deepest stage](GLOSSARY.md#layer3-and-layer4), `layer4`, which was pre-trained on base
# classes and is frozen. The support is masked twice, before `layer4` and after it: the background shall neither enter the
# features nor be compared.

# %%
images = torch.cat([one.query_images, one.support_images[:, 0, 0]])
middle = net.backbone(images, ["layer3"])["layer3"]
mask = one.support_masks[0, 0, 0]
cells = resize((mask == 1).float()[None, None], (25, 25))  # at the cells' centres
query = net.backbone.layer4(middle[:1])
support = net.backbone.layer4(middle[1:] * cells) * cells

# %%
in_library = [side["deep"] for side in net.features(one)]
print("query and support", tuple(query.shape), "= episodes, channels, rows, columns")
same = torch.allclose(support, in_library[1][0, 0] * cells, atol=1e-4)
print("as in the library:", torch.allclose(query, in_library[0], atol=1e-4) and same)

# %% [markdown]
# **Step 2: compare everything with everything.** With $x_i$ the feature of query position $i$ and $y_j$ that of support
# position $j$, zero off the object:
#
# $$c_{ij} = \frac{x_i^{\top} y_j}{\lVert x_i \rVert \, \lVert y_j \rVert}$$


# %%
def cosines_of(query, support):
    """Cosine of every support position (rows) with every query position (columns): (B, h*w, h*w)."""
    unit = [F.normalize(x.flatten(2), dim=1) for x in (support, query)]
    return unit[0].mT @ unit[1]


cosines = cosines_of(query, support)[0]
print("a matrix of", tuple(cosines.shape), "cosines")
print(f"{int((cosines.amax(1) > 0).sum())} rows belong to the object, all others are 0")

# %%
peak = cosines.amax(0).view(25, 25)
truth = resize((one.query_masks == 1).float()[None], (25, 25))[0, 0]
away = F.max_pool2d(truth[None, None], 5, 1, 2)[0, 0] == 0
chosen = {"A": peak * (truth == 1), "B": peak * away, "C": -peak}
positions = {name: divmod(int(m.argmax()), 25) for name, m in chosen.items()}
show(*pictures.matches(one.query_images[0], one.support_images[0, 0, 0], mask, cosines, positions), photo=True)

# %% [markdown]
# A is the position on the object with the best match, B the best one elsewhere, C the worst of all. *Each* has a best
# match (its star); only *how* similar it is can tell them apart.
#
# **Step 3: keep the best match** of every query position. **Step 4: stretch** each map to 0..1:
#
# $$c_i = \max_j c_{ij} \qquad R_i = \frac{c_i - \min c}{\max c - \min c + 10^{-7}}$$

# %%
raw = cosines.amax(0)
prior = (raw - raw.min()) / (raw.max() - raw.min() + 1e-7)
in_library = prior_mask(query, support[:, None], cells)[0, 0]
print("the same as ops.prior_mask:", torch.allclose(prior.view(25, 25), in_library, atol=1e-4))
print("the same as the model's:", torch.allclose(in_library, net(one).maps["prior"][0, 0], atol=1e-4))

# %%
row = [cells[0, 0], peak, in_library, plots.overlay(one.query_images[0], one.query_masks[0])]
titles = ("support mask", "best cosine", "prior", "true mask")
inside = in_library[truth == 1].mean()
alt = (
    "The support mask on the grid, best cosine of every query position, the prior, and the query's true "
    f"mask. On the object the prior is on average {inside:.1f}, over the whole picture {in_library.mean():.1f}."
)
show(*pictures.gallery({"": row}, titles, alt, side=0.68), photo=True)

# %% [markdown]
# ### The same for less work
#
# Rows off the object are zero, and after a ReLU no cosine is negative: such rows never win. The library compares only the
# object's positions.

# %%
kept = cells.flatten() > 0
print("the object's rows alone give the same maximum:", torch.equal(cosines[kept].amax(0), raw))
print(f"{int(kept.sum())} of {len(kept)} rows: {len(kept) / int(kept.sum()):.0f} times fewer products")


# %% tags=["nbval-ignore-output"]
def seconds(function):
    times = [time.perf_counter()]
    for _ in range(6):
        function()
        times.append(time.perf_counter())
    return min(np.diff(times))


deep = [side["deep"] for side in net.features(few)]
weights = resize((few.support_masks[:, 0] == 1).float(), (25, 25))
dense = seconds(lambda: cosines_of(deep[0], deep[1][:, 0, 0] * weights).amax(1))
sparse = seconds(lambda: prior_mask(deep[0], deep[1][:, 0], weights))
print(f"24 priors: {1000 * dense:.0f} ms with all rows, {1000 * sparse:.0f} ms with the object's")

# %% [markdown]
# ## How good is the prior alone?
#
# The **AUC** scores a map without a threshold. Draw one object pixel and one other pixel: how often is the object's
# value higher?
#
# $$\mathrm{AUC} = P(s_+ > s_-) + \tfrac{1}{2} P(s_+ = s_-)$$
#
# 1 is a perfect ranking, 0.5 says nothing, and below 0.5 the map is upside down. Unlike average precision, chance is the
# same for objects of every size. The AUC follows from the sum of the ranks of the object's pixels:


# %%
def auc(score, mask):
    """Area under the ROC curve of one map: (H, W) numbers, (H, W) bool."""
    ranks, mask = rankdata(score.flatten()), mask.flatten().numpy()
    n = mask.sum()
    return (ranks[mask].sum() - n * (n + 1) / 2) / (n * (mask.size - n))


def at_pixels(maps):
    return resize(maps[:, None].float(), (97, 97))[:, 0]


def aucs(maps, masks):
    """(B,) AUC of every map (B, h, w), enlarged, with its mask (B, H, W)."""
    return np.array([auc(m, t) for m, t in zip(at_pixels(maps), masks)])


# %%
score, object_ = torch.tensor([0.9, 0.6, 0.4, 0.1]), torch.tensor([True, True, False, False])
print("toy scores:", *(float(auc(s, object_)) for s in (score, -score, 0 * score)))


# %%
def batches(data, count, shot=1, size=20):
    sampler = EpisodeSampler(data, protocol, shot=shot)
    specs = sampler.fixed(count, seed).specs
    return [sampler.build(specs[i : i + size]) for i in range(0, count, size)]


def gather(function, episodes):
    """`function` on one batch after the other; its dictionaries of tensors joined."""
    found = [function(episode) for episode in episodes]
    return {name: torch.cat([f[name] for f in found]) for name in found[0]}


def look(episode):
    out = net(episode)
    maps = {name: out.maps[name][:, 0] for name in ("prior", "attention")}
    return maps | {"truth": episode.query_masks == 1, "predicted": out.masks(), "classes": episode.classes}


# %%
novel = batches(test_set, episodes)
seen = gather(look, novel)
quality = {"prior": aucs(seen["prior"], seen["truth"])}
print(f"prior, {episodes} episodes of novel classes: mean AUC {quality['prior'].mean():.2f}")

# %% [markdown]
# A mask needs a threshold: one for all pictures, chosen on *base* classes; on the novel ones that would be cheating.

# %%
base_set = load_dataset("shapes", fold=fold, split="train", val_classes=0)
base = gather(look, batches(base_set, max(20, episodes // 2)))
steps, large = torch.arange(0.5, 1, 0.02), at_pixels(base["prior"])
ious = [((large > t) & base["truth"]).sum() / ((large > t) | base["truth"]).sum() for t in steps]
threshold = float(steps[int(torch.stack(ious).argmax())])


# %%
def scores(predicted):
    meter = FewShotIoU()
    n = len(predicted)  # the first n episodes
    meter.update(predicted.long(), seen["truth"][:n].long(), seen["classes"][:n])
    return meter.compute()


rows = {"all foreground": torch.ones_like(seen["predicted"])}
rows |= {"prior above a threshold": at_pixels(seen["prior"]) > threshold, "whole model": seen["predicted"]}
for name, predicted in rows.items():
    print(f"{name:24s} mIoU {100 * scores(predicted).miou:3.0f} %")

# %% [markdown]
# Frozen features, a maximum and a threshold go a long way.
#
# ## Where the prior fails
#
# ### Nothing to find
#
# Stretching lifts the highest value of *every* map to 1. [The knob `absent`](GLOSSARY.md#absent-target) puts another class in the object's place and
# leaves all else as it was.

# %%
empty_set = load_dataset("shapes", fold=fold, split="test", val_classes=0, knobs={"absent": 1.0})


def without_object(episode, specs):
    images = normalise(torch.stack([empty_set[s.query][0] for s, _ in zip(specs, episode.classes)]))
    return replace(episode, query_images=images, query_masks=torch.zeros_like(episode.query_masks))


lost = without_object(one, [specs[best]])
image, out = lost.query_images[0], net(lost)
row = [plots.overlay(image), out.maps["prior"][0, 0], plots.overlay(image, out.masks()[0])]

# %%
alt = (
    f"The query with another class in the object's place; its prior, which reaches {row[1].max():.0f} again; and the "
    f"prediction, {100 * out.masks().float().mean():.0f} % of the picture."
)
titles = ("without object", "prior", "prediction")
show(*pictures.gallery({"": row}, titles, alt, side=0.68), photo=True)


# %%
def peaks(episode):
    """The highest best cosine and the highest prior of each query, and the predicted share of the picture."""
    query, support = (side["deep"] for side in net.features(episode))
    weights = resize((episode.support_masks[:, 0] == 1).float(), (25, 25))
    raw = prior_mask(query, support[:, 0], weights, stretch=False)
    out = net(episode)
    top = {"cosine": raw, "prior": out.maps["prior"]}
    return {k: m.amax((1, 2, 3)) for k, m in top.items()} | {"share": out.masks().float().mean((1, 2))}


present = gather(peaks, novel)
absent = gather(peaks, [without_object(e, specs[20 * i :]) for i, e in enumerate(novel)])

# %%
ones = [bool((found["prior"] > 0.999).all()) for found in (present, absent)]
print("the highest prior is 1 in every query, with and without the object:", ones)
both, there = torch.cat([present["cosine"], absent["cosine"]]), torch.arange(2 * episodes) < episodes
print("the highest cosine would tell them apart (AUC above 0.7), before stretching:", bool(auc(both, there) > 0.7))
marked = (absent["share"] > 0.01).float().mean()
print("the model marks over 1 % of most pictures without the object:", bool(marked > 0.5))

# %% [markdown]
# The usual protocol never notices: every query that it draws shows the object.
#
# ### Things that look alike
#
# A best match asks whether a *piece* of the query looks like some piece of the object. Shapes-5i knows what stands where:


# %%
def kinds(spec):
    """What each object of a query (and its background) shares with the wanted class, and where it is."""
    truth, wanted = test_set.truth(spec.query), shape_texture(spec.classes[0])
    names = {(1, 1): "the wanted object", (0, 1): "same texture", (1, 0): "same shape", (0, 0): "another object"}
    for instance, cls in enumerate((0, *truth.classes)):
        where = truth.instances == instance
        same = tuple(int(a == b) for a, b in zip(shape_texture(cls), wanted))
        if where.sum() >= 12:
            yield (names[same] if instance else "background"), where


values = {}
for spec, m in zip(specs[:episodes], at_pixels(seen["prior"])):
    for kind, where in kinds(spec):
        values.setdefault(kind, []).append(float(m[where].mean()))

ordered = sorted(values, key=lambda kind: -np.mean(values[kind]))

# %% tags=["nbval-ignore-output"]
for kind in ordered:
    value, low, high = mean_interval(values[kind])
    print(f"{kind:17s} mean prior {value:.2f} ({low:.2f} to {high:.2f}), {len(values[kind])} regions")

# %%
mean = {k: np.mean(v) for k, v in values.items()}
print("the wanted object is highest:", ordered[0] == "the wanted object")
print("texture misleads more than shape:", bool(mean["same texture"] > mean["same shape"]))

# %% [markdown]
# ### One wrong match is enough
#
# A maximum listens to a single support position. Mark patches of background (3x3 pixels) as object by mistake, and
# compare the maximum with the mean of the ten best matches; also masking twice with masking only after `layer4` (option
# `prior_masking="after"`).


# %%
def with_patches(masks, count):
    """Support masks (B, 1, 1, H, W) with `count` patches of background marked as object."""
    masks, draw = masks.clone(), torch.Generator().manual_seed(seed)
    for own in masks[:, 0, 0]:
        ground = (own[1:-1, 1:-1] == 0).nonzero() + 1
        for y, x in ground[torch.randperm(len(ground), generator=draw)[:count]].tolist():
            own[y - 1 : y + 2, x - 1 : x + 2] = 1
    return masks


def two_priors(episode, masking, count):
    net.prior_masking = masking
    episode = replace(episode, support_masks=with_patches(episode.support_masks, count))
    query, support = (side["deep"] for side in net.features(episode))
    weights = resize((episode.support_masks[:, 0] == 1).float(), (25, 25))
    top = cosines_of(query, support[:, 0, 0] * weights).topk(10, 1).values
    held = (weights > 0).sum((2, 3)).clamp(1, 10)  # a tiny object has fewer than ten positions
    return {n: m.view(-1, 25, 25) for n, m in (("maximum", top[:, 0]), ("mean of 10", top.sum(1) / held))}


# %%
some = novel[: max(1, 2 * len(novel) // 3)]
truth, noisy = torch.cat([e.query_masks == 1 for e in some]), {}
for masking in ("twice", "after"):
    for count in (0, 10):
        found = gather(lambda e, m=masking, c=count: two_priors(e, m, c), some)
        noisy |= {(f"{name}, masked {masking}", count): aucs(maps, truth) for name, maps in found.items()}
net.prior_masking = "twice"

# %% tags=["nbval-ignore-output"]
for name in dict.fromkeys(name for name, _ in noisy):
    print(verdict(f"AUC, {name}, 10 patches - none", mean_interval(noisy[name, 10] - noisy[name, 0]), 3))
clean = noisy["maximum, masked after", 0] - noisy["maximum, masked twice", 0]
print(verdict("AUC, no patches, maximum, masked after - twice", mean_interval(clean), 3))

# %%
drop = {name: (noisy[name, 0] - noisy[name, 10]).mean() for name, count in noisy if count}
for masking in ("twice", "after"):
    steady = drop[f"mean of 10, masked {masking}"] < drop[f"maximum, masked {masking}"]
    print(f"masked {masking}: the maximum loses more than the mean of ten:", bool(steady))
print("the maximum loses less when masked twice:", bool(drop["maximum, masked twice"] < drop["maximum, masked after"]))
print("without patches masked after ranks better than masked twice, on average:", bool(clean.mean() > 0))

# %% [markdown]
# Masking *before* `layer4` protects: a stray patch among zeros matches badly. Its price, the last line, small objects will
# explain.
#
# ## SAAM: a head that learns on the support
#
# SAAM reads the reduced features $F$ (`layer3` and `layer2` through a trained 1x1 convolution and a ReLU) with the support's
# prototype $p$ behind every position:
#
# $$H(F, p) = \mathrm{fuse}\big(\mathrm{PSP}(\mathrm{conv}_{3 \times 3}([F, p]))\big)$$


# %%
def head(features, prototype, context=True):
    """H(F, p); without `context` the pyramid's branches are set to zero."""
    spread = prototype[:, :, None, None].expand_as(features)
    own = net.saam.reduce(torch.cat([features, spread], 1))
    wide = net.saam.pyramid(own)
    if not context:
        wide[:, own.shape[1] :] = 0
    return net.saam.bottleneck(wide)


# %%
maps = net(one).maps
F_s, F_q, p = maps["support_features"][:, 0], maps["query_features"], maps["pooled"].mean(1)
print("features", tuple(F_s.shape), "prototype", tuple(p.shape), "affinity", tuple(head(F_s, p).shape))
print("as in the library:", torch.allclose(head(F_s, p), net.saam(F_s, p), atol=1e-4))

# %% [markdown]
# **What the pyramid adds.** Two 3x3 convolutions see five cells across. PSP averages over grids of 1, 2, 3 and 6 bins and
# lays the averages beside every cell. Change one corner cell and count the outputs that notice:

# %%
touched = F_s.clone()
touched[:, :, 0, 0] += 3
for context in (False, True):
    moved = (head(touched, p, context) != head(F_s, p, context)).any(1).sum()
    print(f"{'with' if context else 'without':7} the pyramid: {int(moved)} of 625 cells")

# %% [markdown]
# ### Supervised where the answer is known
#
# A 1x1 convolution makes two logits of $H(F_s, p)$ for the *support*, whose mask $m$ is known. Their cross entropy enters
# the total loss with weight 0.5:
#
# $$L_{saam} = \mathrm{CE}\big(\mathrm{conv}_{1 \times 1}(H(F_s, p)), \, m\big)$$

# %%
logits = net.saam.support_logits(net.saam(F_s, p))
loss = F.cross_entropy(resize(logits, (97, 97)), mask[None], ignore_index=255)
print("the same loss as the library's:", torch.allclose(loss, net.losses(one)["saam"], atol=1e-4))

# %%
margin = logits.diff(dim=1)[0, 0]
row = [plots.overlay(one.support_images[0, 0, 0], mask), margin]
found = auc(at_pixels(margin[None])[0], mask == 1)
alt = f"The support with its true mask, and object minus background logit of the head: AUC {found:.2f}."
show(*pictures.gallery({"": row}, ("support, mask", "logit margin"), alt, side=0.7), photo=True)

# %% [markdown]
# The answer is inside $p$, but $p$ is one vector: the head has to find out *where* it applies.
#
# ### The attention map
#
# For the query the same head runs on $F_q$ and $p$, and *another* 1x1 convolution gives the map
# $A = \mathrm{conv}'_{1 \times 1}(H(F_q, p))$, without a sigmoid.

# %%
attention = net.saam.query_map(net.saam(F_q, p))
print("by hand as in the library:", torch.allclose(attention, maps["attention"], atol=1e-4))
print("the prior stays within 0..1:", bool(((seen["prior"] >= 0) & (seen["prior"] <= 1)).all()))
print("the attention has both signs:", bool((seen["attention"] < 0).any() and (seen["attention"] > 0).any()))

# %% tags=["nbval-ignore-output"]
small = seen["truth"][:, ::4, ::4]  # every fourth pixel is the centre of a cell
show(*pictures.values({name: (seen[name][small], seen[name][~small]) for name in ("prior", "attention")}))

# %% [markdown]
# The sign of $A$ means nothing. Turn the map around, and the decoder's weights for it as well:

# %%
turned = copy.deepcopy(net)
for weight in turned.saam.query_map.parameters():
    weight.neg_()
for conv, _ in turned.enrichment.merge:
    conv.weight[:, -1].neg_()  # the attention is the last channel that the decoder merges
print("the map is turned around:", torch.allclose(turned(one).maps["attention"], -attention, atol=1e-4))
print("the prediction stays:", torch.equal(turned(one).masks(), net(one).masks()))

# %% [markdown]
# So the segmentation loss cannot prefer "high on the object" to "low on the object". An AUC far *below* 0.5 still is a
# useful map; one *near* 0.5 does not rank pixels by the object. A *mean* near 0.5 may also hide maps of both signs.
#
# ## Prior, attention, truth
#
# Best, median and worst episode, by the prediction's IoU:

# %%
whole = scores(seen["predicted"])
iou = whole.episode_iou()
ranked, rows = iou.argsort(kind="stable")[::-1], {}
for label, i in {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}.items():
    e = sampler.build([specs[i]])
    image, wanted = e.query_images[0], plots.overlay(e.support_images[0, 0, 0], e.support_masks[0, 0, 0])
    shown = [wanted, plots.overlay(image, e.query_masks[0])]
    shown += [seen["prior"][i], seen["attention"][i], plots.overlay(image, seen["predicted"][i])]
    rows[f"{label}\n{100 * iou[i]:.0f} %"] = shown
titles = ("support", "true mask", "prior", "attention", "prediction")
alt = f"Episodes as rows (IoU {', '.join(rows)}): {', '.join(titles)}."
show(*pictures.gallery(rows, titles, alt, side=0.6), photo=True)

# %%
quality["attention"] = aucs(seen["attention"], seen["truth"])
gap = mean_interval(quality["prior"] - quality["attention"])
print("the prior ranks pixels better than the attention, beyond the paired interval:", gap[1] > 0)

# %% [markdown]
# ### Where does the supervision end?
#
# Why does the map on the query not show the objects? Ask the loss which weights it reaches:

# %%
with torch.enable_grad():
    net.losses(one)["saam"].backward()
parts = {"support: reduction": net.down_supp, "shared: head": net.saam.bottleneck}
parts |= {"support: last layer": net.saam.support_logits}
parts |= {"query: reduction": net.down_query, "query: last layer": net.saam.query_map}
for name, part in parts.items():
    print(f"{name:19s} learns from the support's mask:", any(w.grad is not None for w in part.parameters()))
net.zero_grad()

# %% [markdown]
# The query's two parts learn from the segmentation loss alone, which does not care what the map looks like. Replace them by
# their supervised twins: first the last layer, then the reduction too. As a control, give the head the prototype of
# *another class*: a mere finder of objects would not mind.


# %%
def parts_of(episode):
    found = net.backbone(episode.query_images, ["layer2", "layer3"])
    joined, maps = torch.cat([found["layer3"], found["layer2"]], 1), net(episode).maps
    own = {"own": net.down_query(joined), "supports": net.down_supp(joined), "p": maps["pooled"][:, 0]}
    return own | {"F_s": maps["support_features"][:, 0], "mask": episode.support_masks[:, 0, 0] == 1}


def margins(features, prototypes):
    """Object minus background logit of the supervised head, (B, h, w)."""
    pairs = zip(features.split(20), prototypes.split(20))
    return torch.cat([net.saam.support_logits(net.saam(*pair)).diff(dim=1)[:, 0] for pair in pairs])


def foreign(classes):
    """For every episode the number of the next one of another class."""
    n = len(classes)
    return [next(j % n for j in range(i + 1, i + n) if classes[j % n] != classes[i]) for i in range(n)]


# %%
taken = gather(parts_of, novel)
others = foreign(seen["classes"][:, 0].tolist())
quality["head, on the support"] = aucs(margins(taken["F_s"], taken["p"]), taken["mask"])
affinity = margins(taken["supports"], taken["p"])
quality["head, support's reduction"] = aucs(affinity, seen["truth"])
quality["head, query's reduction"] = aucs(margins(taken["own"], taken["p"]), seen["truth"])
quality["head, foreign prototype"] = aucs(margins(taken["supports"], taken["p"][others]), seen["truth"])

# %% tags=["nbval-ignore-output"]
names = ["prior", "head, on the support", "head, support's reduction", "head, query's reduction", "attention"]
rows = {name: mean_interval(quality[name]) for name in [*names, "head, foreign prototype"]}
show(*pictures.dots({"": rows}, "AUC (0.5: no ranking)", line=0.5))

# %%
swapped = quality["head, support's reduction"]
for name in ("attention", "head, foreign prototype"):
    better = mean_interval(swapped - quality[name])[1] > 0
    print(f"head with the support's reduction above {name}, beyond the paired interval:", better)

# %% [markdown]
# The supervised head carries over to classes it never saw and listens to the prototype. Only, that is not the map that
# the decoder receives.
#
# Mind the scope: one seed, a small network, a strong prior. The paper credits SAAM with a gain on PASCAL-5i; notebook 04
# compares trainings with and without it.
#
# ## Watch it emerge
#
# A new head and a new reduction on the frozen backbone learn from $L_{saam}$ **alone**: no query, no query mask.


# %%
class HeadOnly(torch.nn.Module):
    """SAAM and the support's reduction, from scratch."""

    def __init__(self):
        super().__init__()
        self.net = load_model(path)
        torch.manual_seed(seed)
        for name, module in self.net.named_modules():
            if not name.startswith("backbone") and hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def reduce(self, images):
        found = self.net.backbone(images, ["layer2", "layer3"])
        return self.net.down_supp(torch.cat([found["layer3"], found["layer2"]], 1))

    def logits(self, features, prototypes):
        return self.net.saam.support_logits(self.net.saam(features, prototypes))

    def losses(self, episode):
        features, masks = self.reduce(episode.support_images[:, 0, 0]), episode.support_masks[:, 0, 0]
        return {"total": segmentation(resize(self.logits(features, pool(features, masks)), (97, 97)), masks)}


def pool(features, masks):
    return masked_pool(features, resize((masks == 1).float(), (25, 25)))


# %%
watched = few.select([best, *(i for i in range(24) if i != best)])
strangers = foreign(watched.classes[:, 0].tolist())
checks = {0, 10, 25, train_steps}
emerging, snapshots = {"support": {}, "query": {}, "query, foreign prototype": {}}, {}


def follow(step, model):
    """The three AUCs on novel classes, and the map of one query, at the steps of `checks`."""
    if step + 1 not in checks:
        return
    model.eval()
    with torch.no_grad():
        support, query = (model.reduce(x) for x in (watched.support_images[:, 0, 0], watched.query_images))
        p = pool(support, watched.support_masks[:, 0, 0])
        pairs = ((support, p), (query, p), (query, p[strangers]))
        found = [model.logits(*pair).diff(dim=1)[:, 0] for pair in pairs]
    masks = [m == 1 for m in (watched.support_masks[:, 0, 0], watched.query_masks, watched.query_masks)]
    for curve, maps, truth in zip(emerging.values(), found, masks):
        curve[step + 1] = aucs(maps, truth).mean()
    snapshots[step + 1] = found[1][0]
    model.train()


# %%
fresh = HeadOnly()
follow(-1, fresh)
supports = EpisodeSampler(base_set, Protocol.shapes5i(), shot=1, seed=seed, augment=True)
schedule = Schedule(train_steps, batch=8, lr=4e-3, seed=seed)
with torch.enable_grad():
    history = fit(fresh, lambda step: supports.batch(step, 8), schedule, name="head", callback=follow)

# %% tags=["nbval-ignore-output"]
show(*pictures.emergence(history.smooth("total", 10), emerging, "AUC, novel classes"))

# %% tags=["nbval-ignore-output"]
shown = {f"step {s}": m for s, m in snapshots.items() if s in (10, train_steps)}
row = [*shown.values(), plots.overlay(watched.query_images[0], watched.query_masks[0])]
found = {s: aucs(m[None], watched.query_masks[:1] == 1)[0] for s, m in snapshots.items() if f"step {s}" in shown}
alt = "The head's map of one query during training, each on its own scale, and its true mask; "
alt += ", ".join(f"AUC {value:.2f} at step {s}" for s, value in found.items()) + "."
show(*pictures.gallery({"": row}, [*shown, "true mask"], alt, side=0.62), photo=True)

# %%
gain = {name: curve[train_steps] - curve[0] for name, curve in emerging.items()}
print("the query's AUC rose by more than 0.2, without supervision:", bool(gain["query"] > 0.2))
print("a foreign prototype gains less:", bool(gain["query, foreign prototype"] < gain["query"]))
print("the query's parts had no gradient:", all(m.grad is None for m in fresh.net.down_query.parameters()))

# %% [markdown]
# At first the three curves rise alike: the head learns what an *object* is. Then the foreign prototype falls behind: it
# learns *which* object. Support and query drift apart: on the support, both come from one picture.
#
# ## Small objects
#
# The same pictures with the objects' radius times 0.5, 1 and 1.5, grouped by the share of the *support* that the object
# covers. One more line: the prior masked only after `layer4`.


# %%
def all_maps(episode):
    parts, maps = parts_of(episode), net(episode).maps
    found = {"prior": maps["prior"][:, 0], "attention": maps["attention"][:, 0]}
    net.prior_masking = "after"
    found["prior, masked after"] = net(episode).maps["prior"][:, 0]
    net.prior_masking = "twice"
    return (
        found
        | {"head": margins(parts["supports"], parts["p"]), "truth": episode.query_masks == 1}
        | {"mask": parts["mask"]}
    )


names = ("prior", "prior, masked after", "head", "attention")
rows, share = {name: [] for name in names}, []
for area in (0.5, 1.0, 1.5):
    data = load_dataset("shapes", fold=fold, split="test", val_classes=0, knobs={"area": area})
    found = gather(all_maps, batches(data, max(20, episodes // 2)))
    share += (100 * found["mask"].float().mean((1, 2))).tolist()
    for name in names:
        rows[name] += aucs(found[name], found["truth"]).tolist()

# %% tags=["nbval-ignore-output"]
group = np.digitize(share, (2, 4, 8, 14))
rows = {name: np.array(row) for name, row in rows.items()}
middle = {g: round(float(np.median(np.array(share)[group == g])), 1) for g in np.unique(group)}
curves = {n: {x: percent(mean_interval(row[group == g])) for g, x in middle.items()} for n, row in rows.items()}
show(*score_curves(curves, "object's share of the support, %", "AUC, %", integer=False))

# %%
tiny = group == group.min()
for name in ("prior, masked after", "head"):
    gap = mean_interval(rows[name][tiny] - rows["prior"][tiny])
    print(f"smallest supports: {name} above the prior, beyond the paired interval:", gap[1] > 0)

# %% [markdown]
# Masked before `layer4`, a tiny object stands in a sea of zeros, and its features resemble no query's. The head's
# prototype comes from unmasked features. How deep the prior falls depends on the backbone; this is one.
#
# ## Which map does the decoder listen to?
#
# Whether a map *could* help is one question, whether it is *used* another. In the trained network, exchange one map for
# zeros, for its mean (the level stays), for that of an episode of another class.


# %%
def decode(kept, prior, attention):
    """The model's decoder on given maps (B, 1, 25, 25)."""
    inputs = (kept["prototypes"], kept["query_reweighted"], torch.cat([prior, attention], 1))
    logits = [net.enrichment(*part)[0] for part in zip(*(x.split(20) for x in inputs))]
    return resize(torch.cat(logits), (97, 97)).argmax(1)


wanted = ("prototypes", "query_reweighted", "prior", "attention")
kept = gather(lambda e: {k: v for k, v in net(e).maps.items() if k in wanted}, novel)
same = decode(kept, kept["prior"], kept["attention"]) == seen["predicted"]
print("decoding by hand gives the model's predictions:", bool(same.float().mean() > 0.9999))

# %%
swaps = {"zeros": torch.zeros_like, "its mean": lambda m: m.mean((2, 3), keepdim=True).expand_as(m)}
swaps["another episode's"] = lambda m: m[others]
rows = {}
for name, swap in swaps.items():
    rows[f"attention: {name}"] = scores(decode(kept, kept["prior"], swap(kept["attention"])))
    rows[f"prior: {name}"] = scores(decode(kept, swap(kept["prior"]), kept["attention"]))
changed = {name: percent(rows[name].difference(whole)) for name in sorted(rows)}

# %% tags=["nbval-ignore-output"]
show(*differences(changed, "change of mIoU, points"))

# %%
lost = {name: -value for name, (value, _, _) in changed.items()}
print("every exchange of the prior costs 40 points or more:", all(v > 40 for k, v in lost.items() if k[0] == "p"))
print("every exchange of the attention costs less than 15:", all(v < 15 for k, v in lost.items() if k[0] == "a"))

# %% [markdown]
# This decoder hangs on the prior. But it hardly ever saw zeros, so part of the loss is surprise. And this is an
# [*intervention*](GLOSSARY.md#ablation-and-intervention), no ablation: trained without the prior, it would have learned other ways.
#
# ## More shots
#
# With $K$ supports, the prior is the mean of $K$ stretched maps. The attention comes from the mean prototype; the paper's
# text has every support give its own map (option `attention="each_support"`).

# %%
five = batches(test_set, min(episodes, max(40, episodes // 2)), shot=5)
names = (*wanted, "query_features", "pooled")
kept = gather(lambda e: {k: v for k, v in net(e).maps.items() if k in names}, five)
each = [net.saam.query(kept["query_features"], kept["pooled"][:, k]) for k in range(5)]
each = torch.stack(each).mean(0)
net.attention = "each_support"
print("as the option has it:", torch.allclose(net(five[0]).maps["attention"], each[: len(five[0].classes)], atol=1e-4))
net.attention = "mean_prototype"

# %%
averaged = aucs(kept["prior"][:, 0], seen["truth"])
single = quality["prior"][: len(averaged)]  # the same queries with the first support
print("five shots improve the prior, beyond the paired interval:", mean_interval(averaged - single)[1] > 0)
pair = [scores(decode(kept, kept["prior"], attention)) for attention in (each, kept["attention"])]
gap = percent(pair[0].difference(pair[1]))
print("each support or mean prototype: within 2 points of mIoU:", abs(gap[0]) < 2)

# %% tags=["nbval-ignore-output"]
print(verdict("AUC of the prior, K=5 - K=1", mean_interval(averaged - single), 3))
print(verdict("mIoU at K=5, each support - mean prototype", gap))

# %% [markdown]
# (Five shots lower the mIoU of these weights: the product of the gates, see notebooks 02 and 04.)
#
# ## Try it
#
# Point at the query; the numbers show its cell's best matches in the support. Find a cell off the object with a prior
# above 0.9: what did it match, and do five supports all mislead it? Give the decoder the *prior only* for query 13: what
# had the attention done there? Which queries survive *attention only*?

# %%
from fsslib.widgets import explore_attention

explore_attention(test_set, net)

# %% [markdown]
# ## Summary
#
# * Prior: deep features, cosine with the object's positions, maximum, stretch. No learning, and a strong start.
# * It peaks at 1 with and without the object, follows texture, trusts single matches, and weakens on small objects.
# * SAAM's head is supervised on the support and carries over to novel queries. Its map for the query passes through two
#   parts that this supervision never reaches; its sign is arbitrary.
# * Measure a map (AUC), its use (intervention), its worth (retrained ablation). A picture shows none of them.
#
# ## Exercises
#
# Write each function in the cell below its question. `check` needs less than a second, names the idea that is
# missing, and may be asked as often as you like.

# %%
from fsslib.labs import check

# %% [markdown] tags=["exercise"]
# ### 1 · `my_prior`
#
# *Difficulty ●●○ · importance ●●● · 15 minutes.* Features of query and support (B, C, h, w) and support masks (B, H, W)
# of 0, 1 and 255 give priors (B, h, w). Predict first: what do an empty and a full mask give?
#
# <details><summary>Hint</summary>Bring the mask to the grid (`resize`), mask the support, compare, take the best match,
# stretch.</details>


# %% tags=["solution"]
def my_prior(query, support, masks):
    """(B, C, h, w) float twice, (B, H, W) integers 0, 1, 255 -> (B, h, w) in 0..1; 0 for an empty mask."""
    grid = resize((masks == 1).float(), query.shape[-2:])
    units = [F.normalize(x.flatten(2), dim=1) for x in (support * grid[:, None], query)]
    best = (units[0].mT @ units[1]).amax(1)
    best = best - best.amin(1, keepdim=True)
    return (best / (best.amax(1, keepdim=True) + 1e-7)).view(-1, *query.shape[-2:])


# %%
check(my_prior)

# %% [markdown] tags=["exercise"]
# ### 2 · `contrast`
#
# *Difficulty ●○○ · importance ●●○ · 10 minutes.* A simpler score than the AUC: mean inside minus mean outside, in
# standard deviations of the map (H, W). 255 does not count at all. Predict first: what do stretching and negation do
# to it?
#
# <details><summary>Hint</summary>Inside, outside, spread: which pixels belong to each?</details>


# %% tags=["solution"]
def contrast(score, mask):
    """(H, W) float and (H, W) integers 0, 1, 255 -> a float; 0 for a map of zeros."""
    inside, outside = score[mask == 1], score[mask == 0]
    return float((inside.mean() - outside.mean()) / (score[mask != 255].std() + 1e-7))


# %%
check(contrast)

# %%
maps, truths = at_pixels(seen["prior"]), seen["truth"].long()
found = np.array([[contrast(x, t) for x in (m, 2 * m + 1, -m)] for m, t in zip(maps, truths)])
print("stretching changes nothing, negation the sign:", np.allclose(found * (1, 1, -1), found[:, :1], atol=1e-3))

# %% [markdown] tags=["exercise"]
# ### 3 · `attention_loss`
#
# *Difficulty ●○○ · importance ●●● · 10 minutes.* SAAM's supervision: logits of the support (B, 2, h, w), background
# first, and its masks (B, H, W) give the mean cross entropy of the pixels that are not 255. Complete it.
#
# <details><summary>Hint</summary>Which pixels enter the sum, and which the number it is divided by?</details>


# %% tags=["solution"]
def attention_loss(logits, masks):
    """(B, 2, h, w) float and (B, H, W) integers 0, 1, 255 -> a scalar; 0 where all pixels are 255."""
    large = resize(logits, masks.shape[-2:])
    ### BEGIN SOLUTION
    total = F.cross_entropy(large, masks, ignore_index=255, reduction="sum")
    return total / (masks != 255).sum().clamp_min(1)
    ### END SOLUTION


# %%
check(attention_loss)

# %%
heads = [net.saam.support_logits(net.saam(taken["F_s"][:20], taken["p"][i])) for i in (slice(20), others[:20])]
own, strange = (attention_loss(x, novel[0].support_masks[:, 0, 0]) for x in heads)
print("a foreign prototype raises the loss more than five times:", bool(strange > 5 * own))

# %% [markdown] tags=["exercise"]
# ### 4 · `prior_or_attention`
#
# *Difficulty ●●○ · importance ●●● · 15 minutes.* New data: most objects are tiny, and many queries show none. Prior,
# attention map, or supervised head with the support's reduction: which do you trust, and where do the others fail?
# 25 words or more, with a number measured above, as the returned text.
#
# <details><summary>Hint</summary>Which map is stretched? Which was ever told where an object is?</details>


# %% tags=["solution"]
def prior_or_attention():
    """-> your answer, a text."""
    return """The supervised head: its prototype comes from unmasked features, so tiny supports hurt it less than the
    prior. The prior is stretched to 1 in every query, with or without the object. No mask ever supervises the
    attention map on the query, and its sign is arbitrary. Without the object, none of the three is a detector."""


# %%
check(prior_or_attention)

# %% [markdown] tags=["marking"]
# **Marking.** `my_prior`, `contrast`, `attention_loss`: the check decides. *Known wrong paths*: the maximum or the
# softmax runs over the query; 255 counts as background; the sum of the loss is divided by all pixels.
#
# `prior_or_attention`, four points: stretching hides that nothing is there; small objects weaken the prior; the attention
# has no supervision on the query (its sign is free); a fitting number. Any choice with these reasons is fine.
# *Known wrong paths*: "attention, because it is learned" (on the query it is not supervised); "the prior, its AUC is
# highest" (every query of the protocol shows the object).

# %% [markdown]
# **Read next**: notebook 04 puts SD-AANet together and shows it retrained part by part.
#
# **References**: Q. Zhao, B. Liu, S. Lyu, H. Chen, *A Self-Distillation Embedded Supervised Affinity Attention Model for
# Few-Shot Segmentation*, IEEE TCDS 2024, arXiv 2108.06600 (original code: github.com/cv516Buaa/SD-AANet). Z. Tian, H. Zhao, M. Shu, Z. Yang, R. Li, J. Jia, *Prior
# Guided Feature Enrichment Network for Few-Shot Segmentation* (PFENet), TPAMI 2020, arXiv 2008.01449 (original code:
# github.com/dvlab-research/PFENet). H. Zhao et al., *Pyramid Scene Parsing Network*, CVPR 2017, arXiv 1612.01105.
