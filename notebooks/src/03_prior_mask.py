# ---
# jupyter:
#   title: Prior mask
#   minutes: 0.5
# ---

# %% [markdown]
# # 03 · The prior mask: a map that nobody trains
#
# *Must a network be trained to find an object of which it has one picture? Or do frozen features find it already?*
#
# PFENet answers with [the **prior mask**](GLOSSARY.md#prior-mask), a map of the query: every position gets the cosine
# of its best match on the support's object. Nothing is learned. SD-AANet and HDMNet give this map to their decoders.
#
# **What you will learn**
#
# * the prior mask step by step;
# * how to score a map [without choosing a threshold (AUC)](GLOSSARY.md#auc);
# * five ways in which the prior fails, and how to make it more robust;
# * what more support pictures change.
#
# **What it needs**: notebook 01, and nothing but this repository. No download, no GPU, about half a minute on two
# cores. The data is Shapes-5i, drawn from a seed. The weights are *loaded, not trained here*.

# %% tags=["parameters"]
fold = 0
seed = 0
episodes = 60

# %%
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

import fsslib
from fsslib import EpisodeSampler, Protocol, load_dataset, load_model, plots
from fsslib.analysis.guides import auc as library_auc
from fsslib.analysis.guides import aucs
from fsslib.analysis.intervals import mean_interval, percent
from fsslib.checkpoints import read_note, shipped
from fsslib.data.shapes.plan import shape_texture
from fsslib.data.transforms import normalise
from fsslib.metrics import FewShotIoU
from fsslib.ops import prior_mask, resize
from fsslib.plots import attention as pictures
from fsslib.plots.common import score_curves
from fsslib.plots.display import show

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
# Of the first 24 episodes we take the one that the model solves best. Failures follow.

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
# ## The prior, step by step
#
# **Step 1: deep features.** The prior compares [features of the deepest stage](GLOSSARY.md#layer3-and-layer4),
# `layer4`. It was pre-trained on base classes and is [frozen](GLOSSARY.md#frozen-backbone). The support is masked
# twice: before `layer4`, so that background does not enter the features, and again after `layer4`, so that background
# cells are not compared.

# %%
images = torch.cat([one.query_images, one.support_images[:, 0, 0]])
middle = net.backbone(images, ["layer3"])["layer3"]
mask = one.support_masks[0, 0, 0]
cells = resize((mask == 1).float()[None, None], (25, 25))  # at the cells' centres
query = net.backbone.layer4(middle[:1])
support = net.backbone.layer4(middle[1:] * cells) * cells
in_library = [side["deep"] for side in net.features(one)]
torch.testing.assert_close((query, support), (in_library[0], in_library[1][0, 0] * cells), atol=1e-4, rtol=0)
print("query and support", tuple(query.shape), "= episodes, channels, rows, columns")

# %% [markdown]
# **Step 2: compare everything with everything.** Let $x_i$ be the feature of query position $i$ and $y_j$ that of support
# position $j$, which is zero off the object:
#
# $$c_{ij} = \frac{x_i^{\top} y_j}{\lVert x_i \rVert \, \lVert y_j \rVert}$$


# %%
def cosines_of(query, support):
    """Cosine of every support position (rows) with every query position (columns): (B, h*w, h*w)."""
    unit = [F.normalize(x.flatten(2), dim=1) for x in (support, query)]
    return unit[0].mT @ unit[1]


cosines = cosines_of(query, support)[0]
print(f"{len(cosines)} x {cosines.shape[1]} cosines; {int((cosines.amax(1) > 0).sum())} rows belong to the object")

# %%
peak = cosines.amax(0).view(25, 25)
truth = resize((one.query_masks == 1).float()[None], (25, 25))[0, 0]
away = F.max_pool2d(truth[None, None], 5, 1, 2)[0, 0] == 0
chosen = {"A": peak * (truth == 1), "B": peak * away, "C": -peak}
positions = {name: divmod(int(m.argmax()), 25) for name, m in chosen.items()}
show(*pictures.matches(one.query_images[0], one.support_images[0, 0, 0], mask, cosines, positions), photo=True)

# %% [markdown]
# A is the position on the object with the best match, B the best one off the object, C the worst of all. *Each* of them
# has a best match (the star). Only the cosine of that match tells them apart.
#
# **Step 3: keep the best match** of every query position. **Step 4: stretch** each map to 0..1:
#
# $$c_i = \max_j c_{ij} \qquad R_i = \frac{c_i - \min c}{\max c - \min c + 10^{-7}}$$

# %%
raw = cosines.amax(0)
prior = (raw - raw.min()) / (raw.max() - raw.min() + 1e-7)
in_library = prior_mask(query, support[:, None], cells)[0, 0]
torch.testing.assert_close((prior.view(25, 25), net(one).maps["prior"][0, 0]), (in_library,) * 2, atol=1e-4, rtol=0)
print(f"best cosines {raw.min():.2f} to {raw.max():.2f}, stretched to {prior.min():.2f} to {prior.max():.2f}")

# %%
row = [cells[0, 0], peak, in_library, plots.overlay(one.query_images[0], one.query_masks[0])]
titles = ("support mask", "best cosine", "prior", "true mask")
inside = in_library[truth == 1].mean()
alt = (
    "The support mask on the grid, best cosine of every query position, the prior, and the query's true "
    f"mask. On the object the prior is on average {inside:.1f}, over the whole picture {in_library.mean():.1f}."
)
show(*pictures.gallery({"": row}, titles, alt), photo=True)

# %% [markdown]
# ### The same for less work
#
# Rows off the object are zero, and after a ReLU no cosine is negative. So these rows never hold the maximum, and the
# library compares the object's positions only.

# %%
kept = cells.flatten() > 0
assert torch.equal(cosines[kept].amax(0), raw), "the object's rows alone give the same maximum"
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
# The **AUC** scores a map without a threshold. Draw one pixel of the object and one other pixel: how often does the
# object's pixel have the higher value, $s_+ > s_-$?
#
# $$\mathrm{AUC} = P(s_+ > s_-) + \tfrac{1}{2} P(s_+ = s_-)$$
#
# 1 is a perfect ranking, 0.5 is chance, and below 0.5 the map is upside down. Chance is 0.5 for small and large objects
# alike. The AUC follows from the sum of the ranks of the object's pixels:


# %%
def auc(score, mask):
    """Area under the ROC curve of one map: (H, W) numbers, (H, W) bool."""
    ranks, mask = rankdata(score.flatten()), mask.flatten().numpy()
    n = mask.sum()
    return (ranks[mask].sum() - n * (n + 1) / 2) / (n * (mask.size - n))


score, object_ = torch.tensor([[0.9, 0.6, 0.4, 0.1]]), torch.tensor([[True, True, False, False]])
toys = {"object first": score, "upside down": -score, "all equal": 0 * score}
assert all(auc(s, object_) == library_auc(s, object_.long()) for s in toys.values())
print("; ".join(f"{name} {auc(s, object_):.1f}" for name, s in toys.items()))


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
    truth = {"truth": episode.query_masks == 1, "classes": episode.classes}
    return {"prior": out.maps["prior"][:, 0], "predicted": out.masks()} | truth


# %%
novel = batches(test_set, episodes)
seen = gather(look, novel)
quality = aucs(seen["prior"], seen["truth"].long())
assert quality.mean() > 0.85
print(f"prior, {episodes} episodes of novel classes: mean AUC {quality.mean():.2f}, chance 0.50")

# %% [markdown]
# A mask needs a threshold. We take one for all pictures and choose it on *base* classes; choosing it on the novel classes
# would be cheating.

# %%
base_set = load_dataset("shapes", fold=fold, split="train", val_classes=0)
base = gather(look, batches(base_set, max(20, episodes // 2)))
steps, large = torch.arange(0.5, 1, 0.02), resize(base["prior"][:, None], (97, 97))[:, 0]
ious = [((large > t) & base["truth"]).sum() / ((large > t) | base["truth"]).sum() for t in steps]
threshold = float(steps[int(torch.stack(ious).argmax())])

# %%
enlarged = resize(seen["prior"][:, None], (97, 97))[:, 0]
rows = {"all foreground": torch.ones_like(seen["predicted"])}
rows |= {"prior above a threshold": enlarged > threshold, "whole model": seen["predicted"]}
for name, predicted in rows.items():
    meter = FewShotIoU()
    meter.update(predicted.long(), seen["truth"].long(), seen["classes"])
    print(f"{name:24s} mIoU {100 * meter.compute().miou:3.0f} %")

# %% [markdown]
# Frozen features, a maximum and a threshold reach 46 % mIoU; the whole trained model reaches 62 %.
#
# ## Where the prior fails
#
# ### 1. There is nothing to find
#
# Stretching lifts the highest value of *every* map to 1. [The knob `absent`](GLOSSARY.md#absent-target) puts another class in the
# object's place and leaves everything else as it was.

# %%
empty_set = load_dataset("shapes", fold=fold, split="test", val_classes=0, knobs={"absent": 1.0})


def without_object(episode, specs):
    images = normalise(torch.stack([empty_set[s.query][0] for s, _ in zip(specs, episode.classes)]))
    return replace(episode, query_images=images, query_masks=torch.zeros_like(episode.query_masks))


lost = without_object(one, [specs[best]])
image, out = lost.query_images[0], net(lost)
row = [plots.overlay(image), out.maps["prior"][0, 0], plots.overlay(image, out.masks()[0])]
alt = (
    f"The query with another class in the object's place; its prior, which reaches {row[1].max():.0f} again; and the "
    f"prediction, {100 * out.masks().float().mean():.0f} % of the picture."
)
show(*pictures.gallery({"": row}, ("without object", "prior", "prediction"), alt), photo=True)


# %% tags=["nbval-ignore-output"]
def peaks(episode):
    """The highest best cosine and the highest prior of each query, and the predicted share of the picture."""
    query, support = (side["deep"] for side in net.features(episode))
    weights = resize((episode.support_masks[:, 0] == 1).float(), (25, 25))
    raw = prior_mask(query, support[:, 0], weights, stretch=False)
    out = net(episode)
    top = {"highest cosine": raw, "highest prior": out.maps["prior"]}
    return {k: m.amax((1, 2, 3)) for k, m in top.items()} | {"marked, %": 100 * out.masks().float().mean((1, 2))}


empty = [without_object(e, specs[20 * i :]) for i, e in enumerate(novel)]
table = {name: gather(peaks, e) for name, e in (("with the object", novel), ("without", empty))}
assert all((rows["highest prior"] > 0.999).all() for rows in table.values())
pd.DataFrame({name: {k: float(v.mean()) for k, v in rows.items()} for name, rows in table.items()}).round(1)

# %% [markdown]
# The highest prior is 1 with and without the object. The highest cosine is a little lower without it (0.8, not 0.9),
# but stretching throws that away. The model still marks 5.5 % of such a picture. The usual protocol never notices,
# because every query that it draws shows the object.
#
# ### 2. Things that look alike
#
# A best match asks whether a *piece* of the query looks like some piece of the object. Shapes-5i knows the class of
# every object, so we can compare kinds of neighbours:


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
for spec, m in zip(specs[:episodes], enlarged):
    for kind, where in kinds(spec):
        values.setdefault(kind, []).append(float(m[where].mean()))

# %% tags=["nbval-ignore-output"]
mean = {kind: mean_interval(values[kind]) for kind in sorted(values, key=lambda kind: -np.mean(values[kind]))}
assert next(iter(mean)) == "the wanted object" and mean["same texture"][0] > mean["same shape"][0]
show(*pictures.dots({"": mean}, "mean prior"))

# %% [markdown]
# A neighbour of the same texture gets a high prior (0.64). One of the same shape gets 0.42, no more than the
# background: a single cell sees texture, not shape.
#
# ### 3. One wrong match is enough
#
# A maximum depends on a single support position. As if an annotator had slipped, we mark ten patches of background (3x3
# pixels) as object and compare the maximum with the mean of the ten best matches. We also compare masking twice with
# masking only after `layer4` (option `prior_masking="after"`).


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
    return {n: m.view(-1, 25, 25) for n, m in (("maximum", top[:, 0]), ("mean of ten", top.sum(1) / held))}


# %% tags=["nbval-ignore-output"]
some = novel[: max(1, 2 * len(novel) // 3)]
truth, noisy = torch.cat([e.query_masks for e in some]), {}
for masking in ("twice", "after"):
    for count in (0, 10):
        found = gather(lambda e, m=masking, c=count: two_priors(e, m, c), some)
        for name, maps in found.items():
            noisy.setdefault(f"{name}, masked {masking}", {})[f"{count} patches"] = aucs(maps, truth).mean()
net.prior_masking = "twice"
noisy = pd.DataFrame(noisy).T
noisy["lost"] = noisy["0 patches"] - noisy["10 patches"]
assert noisy.lost["maximum, masked twice"] < noisy.lost["maximum, masked after"]
assert all(noisy.lost[f"mean of ten, masked {m}"] < noisy.lost[f"maximum, masked {m}"] for m in ("twice", "after"))
noisy.round(2)

# %% [markdown]
# With masking only after `layer4`, the maximum loses most (0.05) and the mean of ten little (0.01). Masking *before*
# `layer4` protects, too (0.02): a stray patch among zeros matches badly. This protection has a price, as you see next.
#
# ### 4. Small objects
#
# We draw the same pictures with the objects' radius times 0.5, 1 and 1.5 and group the episodes by the share of the
# support that the object covers.

# %%
names, rows, share = {"twice": "masked twice", "after": "masked after"}, {}, []
for area in (0.5, 1.0, 1.5):
    data = load_dataset("shapes", fold=fold, split="test", val_classes=0, knobs={"area": area})
    drawn = batches(data, max(20, episodes // 2))
    share += [100 * float(m.float().mean()) for e in drawn for m in e.support_masks[:, 0, 0] == 1]
    for masking, name in names.items():
        net.prior_masking = masking
        found = gather(look, drawn)
        rows.setdefault(name, []).extend(aucs(found["prior"], found["truth"].long()))
net.prior_masking = "twice"

# %% tags=["nbval-ignore-output"]
group = np.digitize(share, (2, 4, 8, 14))
rows = {name: np.array(row) for name, row in rows.items()}
middle = {g: round(float(np.median(np.array(share)[group == g])), 1) for g in np.unique(group)}
curves = {n: {x: percent(mean_interval(row[group == g])) for g, x in middle.items()} for n, row in rows.items()}
show(*score_curves(curves, "object's share of the support, %", "AUC, %", integer=False))
tiny = group == group.min()
assert mean_interval(rows["masked after"][tiny] - rows["masked twice"][tiny])[1] > 0, "the paired interval is above 0"

# %% [markdown]
# With masking before `layer4`, zeros surround a tiny object, and its features resemble none of the query's: below 2 %
# of the picture the AUC is 59 %, against 78 % with masking only after. How far it falls depends on the backbone; we
# tried one.
#
# ### 5. Pictures that disagree
#
# With $K$ supports the prior is the mean of $K$ stretched maps. A bad map counts as much as a good one.

# %% tags=["nbval-ignore-output"]
five = batches(test_set, min(episodes, max(40, episodes // 2)), shot=5)
shots = gather(lambda e: {"all": (m := net(e).maps)["prior"][:, 0], "each": m["prior_shots"], "t": e.query_masks}, five)
each = np.stack([aucs(shots["each"][:, k], shots["t"]) for k in range(5)], 1)
together = aucs(shots["all"], shots["t"])
summary = {"one support": each.mean(), "worst of five": each.min(1).mean(), "best of five": each.max(1).mean()}
assert mean_interval(together - each[:, 0])[1] > 0, "five are better than one, beyond the paired interval"
pd.Series(summary | {"mean of the five maps": together.mean()}, name="AUC").round(2).to_frame()

# %% [markdown]
# The mean of the five maps (0.95) beats a single map (0.93). The best one does as well (0.96), but only the query's
# mask tells which it is.
#
# ## Try it
#
# Point at the query. The numbers in the supports show which cells matched best. Find a cell off the object with a prior
# above 0.9: what did it match? Do all five supports mislead it? Set *Supports masked* to *only after* and look again.

# %%
from fsslib.widgets import explore_attention

explore_attention(test_set, net)

# %% [markdown]
# ## Summary
#
# | The paper claims | We measured | Why they differ |
# |---|---|---|
# | The prior needs no training and carries over to novel classes (PFENet, arXiv 2008.01449, abstract and section 3.2) | A mean AUC of 0.9 on novel classes, where chance is 0.5 (60 episodes, above) | They agree |
# | A high value says that a position probably belongs to the object (section 3.2) | The highest value is 1.0 in every query, also in those without the object | The published protocol draws no query without the object, so nobody sees what stretching does there |
# | The prior improves the segmentation (abstract) | Without the right prior a trained SD-AANet loses more than 40 points (notebook 03b) | They agree; but we exchanged maps in a trained network; without the prior there were only short trials (02, 03b) |
#
# The prior follows texture, trusts single matches and weakens on small objects. Notebook 03b asks whether a learned map
# can do better.
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
# standard deviations of the map (H, W), with a mask (H, W). Pixels marked 255 do not count at all. Predict first: what
# do stretching and negation do to the contrast?
#
# <details><summary>Hint</summary>Inside, outside, spread: which pixels belong to each?</details>


# %% tags=["solution"]
def contrast(score, mask):
    """(H, W) float and (H, W) integers 0, 1, 255 -> a float; 0 for a map of zeros."""
    inside, outside = score[mask == 1], score[mask == 0]
    return float((inside.mean() - outside.mean()) / (score[mask != 255].std() + 1e-7))


# %%
check(contrast)

# %% [markdown] tags=["exercise"]
# ### 3 · `robust_prior`
#
# *Difficulty ●●● · importance ●●○ · 25 minutes.* Write a prior that does not depend on one match. For each query
# position average its `count` best cosines with cells that hold some of the object; where the object has fewer cells,
# average those it has. Do not stretch: then a query without the object may stay low. Features (B, C, h, w), masks (B,
# H, W) of 0, 1 and 255.
#
# <details><summary>Hint</summary>`topk` pads with the zeros of masked cells: divide by the number of cells that were there,
# one number for each picture.</details>


# %% tags=["solution"]
def robust_prior(query, support, masks, count):
    """(B, C, h, w) float twice, (B, H, W) integers 0, 1, 255, an int -> (B, h, w) cosines; 0 for an empty mask."""
    inside = resize((masks == 1).float(), query.shape[-2:]).flatten(1)
    units = [F.normalize(x.flatten(2), dim=1) for x in (support, query)]
    ### BEGIN SOLUTION
    cosines = (units[0].mT @ units[1]).masked_fill(inside[:, :, None] == 0, 0)
    best = cosines.topk(min(count, inside.shape[1]), 1).values
    held = (inside > 0).sum(1, keepdim=True).clamp(1, count)
    ### END SOLUTION
    return (best.sum(1) / held).view(-1, *query.shape[-2:])


# %%
check(robust_prior)

# %% [markdown] tags=["exercise"]
# ### 4 · `prior_in_practice`
#
# *Difficulty ●●○ · importance ●●● · 15 minutes.* In your data many queries show no object at all, and the annotators'
# masks are rough. Which two steps of the prior would you change, and what would each change cost? Return a text of 25
# words or more, with a number measured above.
#
# <details><summary>Hint</summary>What does stretching do to an empty query? What does a maximum do with one wrong
# pixel?</details>


# %% tags=["solution"]
def prior_in_practice():
    """-> your answer, a text."""
    return """I would not stretch: today the highest prior is 1.0 in every query, so nothing can say that the object is
    absent; without stretching the scale of the cosines differs from backbone to backbone. And I would average the ten
    best matches instead of the maximum: rough masks cost less then, but thin parts of the object get a lower value."""


# %%
check(prior_in_practice)

# %% [markdown] tags=["marking"]
# **Marking.** `my_prior`, `contrast`, `robust_prior`: the check decides. *Known wrong paths*: the maximum or the softmax
# runs over the query; 255 counts as background; the mean of ten divides by ten where the object has four cells.
#
# `prior_in_practice`, four points: stretching hides that nothing is there; a maximum trusts one match; a price for each
# change; a fitting number. *Known wrong paths*: "a higher threshold" (every map reaches 1, whatever it shows).

# %% [markdown]
# **Read next**: notebook 03b, the attention map that learns on the support, and when it pays.
#
# **References**: Z. Tian, H. Zhao, M. Shu, Z. Yang, R. Li, J. Jia, *Prior Guided Feature Enrichment Network for Few-Shot
# Segmentation* (PFENet), TPAMI 2020, arXiv 2008.01449 (original code: github.com/dvlab-research/PFENet). Q. Zhao, B. Liu,
# S. Lyu, H. Chen, *A Self-Distillation Embedded Supervised Affinity Attention Model for Few-Shot Segmentation*, IEEE TCDS
# 2024, arXiv 2108.06600 (original code: github.com/cv516Buaa/SD-AANet).
