# ---
# jupyter:
#   title: "Explorer: draw a support, watch the model think"
#   minutes: 0.5
# ---

# %% [markdown]
# # 08 · Explorer: draw a support, watch the model think
#
# *If I mark the object myself, with two quick scribbles instead of a careful outline, does it still work?* The earlier
# notebooks showed what we had chosen. Here you choose: the object, its pixels, the method, the temperature. Every
# picture below follows the controls above it. Without a running kernel you see still pictures; start the kernel (*Run >
# Run All Cells*) and they come to life.
#
# **What you will learn**
#
# * how to mark a [support](GLOSSARY.md#support) yourself, and what exactly a stroke, a box and a scribble say;
# * how much a few scribbles are worth compared with a whole outline, for four methods;
# * how to ask every model what it saw: [prototypes](GLOSSARY.md#prototype), [priors](GLOSSARY.md#prior-mask),
#   attention, [superpixels](GLOSSARY.md#superpixel), [correlation](GLOSSARY.md#correlation-map);
# * how to turn an explorer into an experiment: set its controls from Python and collect what it shows.
#
# **What it needs**: this repository, about half a minute on two cores; no download, no GPU. The data are Shapes-5i, fold 0:
# classes that no model below was trained on. The weights are *loaded here, not trained here*. Your own pictures stay on
# your machine: nothing is sent anywhere.

# %% tags=["parameters"]
seed = 0
queries = 12

# %%
import torch

import fsslib
from fsslib import files, widgets
from fsslib.data import load_dataset
from fsslib.plots.display import claims
from fsslib.widgets import SupportPainter, strokes

# %% tags=["nbval-ignore-output"]
as_written = queries == 12  # what the text says was measured with these
print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")

# %% [markdown]
# ## Draw
#
# There are five tools. **Brush**, **box** and **polygon** say what the object is, so all the rest is background. A
# **scribble** is only a hint. Once a scribble marks background, pixels that nobody touched are
# [neither](GLOSSARY.md#ignore-label-255), and a model leaves them out of every average. The **eraser** makes pixels
# untouched again. Everything works with a mouse, a finger, a pen, and with the keyboard alone (open *How to draw* below
# the picture).
#
# The drawing below was recorded: two scribbles on the disc, two beside it. Go on with it, or clear it and start afresh.

# %%
data = load_dataset("shapes", fold=0, split="test")
cls = data.classes[0]
image, truth = data[data.images_of(cls)[0]]
painter = SupportPainter(image, strokes.load(files.data_folder() / "strokes" / "disc-stripes.json"))
painter

# %% [markdown]
# A drawing is data. `document` holds the strokes in pixels of the image, and `mask` is computed from them by an exact
# rule, so the same strokes give the same mask on every machine: 1 object, 0 background, 255 neither.

# %%
mask = torch.from_numpy(painter.mask)
print("strokes:", [stroke["tool"] for stroke in painter.document["history"]])
print("pixels of object, background, neither:", [int((mask == value).sum()) for value in (1, 0, 255)])
print(f"share of the true object that is marked: {((mask == 1) & (truth == cls)).sum() / (truth == cls).sum():.0%}")
painter.undo()
print("background pixels with the last stroke taken back:", int((painter.mask == 0).sum()))
painter.redo()
assert (torch.from_numpy(painter.mask) == mask).all(), "brought back, it is the same mask"

# %% [markdown]
# ## Four methods, one support
#
# Below, the support is the *true mask*, and all four methods find the object. Now choose *your drawing* under *Support
# mask*: two of them still find it, and HDMNet finds nothing at all. Then *clear* the picture, mark only a small piece
# of the disc, and add one background scribble: which method gains most? With *Own support* and *Own query* you can
# bring your own photographs, but read *Your own pictures* below first.

# %% tags=["nbval-ignore-output"]
comparison = widgets.compare_methods()
comparison.set(marked="true mask", query=5)

# %% [markdown]
# Is a scribble enough? One query proves nothing. But an explorer can be driven from Python: `set` changes its controls
# and draws at once, and `scene.facts` holds the numbers on display. So we ask it for twelve queries, each with the
# drawing and with the true mask. The queries are the first images of the class after the support; none was picked by
# hand.

# %%
found = {"your drawing": [], "true mask": []}
for query in range(1, queries + 1):
    for marked, rows in found.items():
        comparison.set(query=query, marked=marked)
        rows.append(comparison.scene.facts["iou"])
comparison.set(query=5, marked="true mask")
means = {
    name: {kind: sum(r[name] for r in rows) / queries for kind, rows in found.items()} for name in found["true mask"][0]
}

# %% tags=["nbval-ignore-output"]
for name, row in means.items():
    print(f"{name:9s} scribbles {row['your drawing']:.0%}, true mask {row['true mask']:.0%}")
lost = {name: row["true mask"] - row["your drawing"] for name, row in means.items()}
assert not as_written or max(lost["PANet"], lost["ASGNet"]) < 0.1 < 0.3 < min(lost["SD-AANet"], lost["HDMNet"])

# %% [markdown]
# Methods differ in what they ask of a mask. PANet and ASGNet average features under it, and an average of fewer pixels
# is the same average with more noise. HDMNet multiplies the *image* with the mask, and SD-AANet the features that enter
# the backbone's last stage. Where you scribbled, both see shreds of an object, and nothing in their training looked like
# that. Twelve queries and one drawing are only an observation; notebook 01 measures scribbles over a whole episode list.
#
# ## Any episode
#
# Pick a fold, a class, supports and a query. Look for an episode in which five supports are *worse* than one, then
# switch the method. With all methods but PANet such episodes are easy to find; notebook 07 says why.

# %% tags=["nbval-ignore-output"]
widgets.explore_episode(shots=1)

# %% [markdown]
# ## Inside PANet: where does the prototype come from?
#
# The prototype is an average. Choose *what* is averaged: the mask, a scribble, a box, one [cell](GLOSSARY.md#cell) that
# you point at, or your own strokes. Watch the object's cosine map: which choice makes the background light up, too?

# %% tags=["nbval-ignore-output"]
widgets.explore_prototypes()

# %% [markdown]
# ## Inside SD-AANet: teacher, prior, attention
#
# First the distillation. Raise the [temperature](GLOSSARY.md#temperature) until teacher and student look alike. From
# τ = 1 on the loss hardly moves, because its factor τ² makes up for the smaller difference (notebook 02). The
# prediction does not move at all: at inference there is no teacher.

# %% tags=["nbval-ignore-output"]
distillation = widgets.explore_distillation()
for temperature in (1.0, 5.0, 20.0):
    facts = distillation.set(temperature=temperature).scene.facts
    print(f"τ = {temperature:2g}: distillation loss {facts['kd']:.1e}, IoU of the prediction {facts['iou']:.0%}")
losses = [distillation.set(temperature=t).scene.facts["kd"] for t in (1.0, 20.0)]
assert max(losses) < 2 * min(losses), "τ² should make up for the temperature"
distillation.set(temperature=1.0)

# %% [markdown]
# Now look at the two maps that guide the decoder, prior and attention. Point at a query pixel: the numbered marks on
# the support show the object cells that it resembles most. Then point where the prior is bright on the *wrong* object:
# which support cells did it match?

# %% tags=["nbval-ignore-output"]
widgets.explore_attention()

# %% [markdown]
# ## Inside ASGNet: how many prototypes?
#
# Move the number of superpixels from 1 to 5 and beyond. The [guide map](GLOSSARY.md#guided-prototype-allocation) shows
# which of them each query position chose. From which number on does the prediction stay the same?

# %% tags=["nbval-ignore-output"]
widgets.explore_superpixels()

# %% [markdown]
# ## Inside HDMNet: what is compared with what?
#
# There are three stages, from fine to coarse. Lower the temperature: the correlation map keeps its pattern, and only
# its scale changes. Then let the softmax run over the support instead of the query: now the prediction breaks down,
# because the message no longer says *how much* of the object each query cell received (notebook 06).

# %% tags=["nbval-ignore-output"]
correlation, found = widgets.explore_correlation(), {}
cold, hot = (correlation.set(temperature=t).scene.facts["correlation"].flatten() for t in (0.02, 0.1))
alike = float(torch.corrcoef(torch.stack([cold, hot]))[0, 1])
for axis in ("support", "query"):
    each = [correlation.set(softmax=axis, query=q).scene.facts["iou"] for q in range(1, queries + 1)]
    found[axis] = sum(each) / queries
print(
    f"correlation map at τ = 0.02: {float(cold.max() / hot.max()):.0f} times as large as at 0.1; "
    f"coefficient of correlation between the two {alike:.3f}"
)
print(
    f"mean IoU of {queries} queries, softmax over the query {found['query']:.0%}, over the support {found['support']:.0%}"
)
assert alike > 0.999 and (not as_written or found["support"] < found["query"] / 2)
correlation.set(query=5)

# %% [markdown]
# ## An explorer as an experiment
#
# You can drive every explorer like this: twelve queries, with one support and with five, in one loop.

# %%
explorer = widgets.explore_episode()
curves = {}
for method in means:
    for shots in (1, 5):
        rows = [explorer.set(method=method, shots=shots, query=10 + q).scene.facts["iou"] for q in range(queries)]
        curves[f"{method}, K={shots}"] = sum(rows) / queries
print("five supports beat one with", *(name for name in means if curves[f"{name}, K=5"] > curves[f"{name}, K=1"]))

# %% tags=["nbval-ignore-output"]
for label, value in curves.items():
    print(f"{label:13s} {value:.0%}")

# %% [markdown]
# ## Your own pictures
#
# The models above know drawn shapes. On a photograph they find texture at best, and the comparison says so below its
# pictures. For photographs take a model that has seen some (notebook 10 has one without any download):
#
# ```python
# nets = {
#     "PANet": fsslib.build_model("panet", backbone="resnet50", weights="imagenet"),  # downloads 98 MB, once
#     "mine": fsslib.load_model("runs/my-training/model.safetensors"),
# }
# widgets.compare_methods(nets, support="cat.jpg", query="another-cat.jpg")
# widgets.explore_episode(load_dataset("folder", root="my-pictures", split="test"), nets)
# ```
#
# ## Why it stays quick
#
# A backbone's features depend on the image alone, so each explorer remembers them: moving a temperature runs no
# backbone. While a slow model computes, your further moves wait, and the explorer answers only the last one. It answers
# every value that is set from Python, as in the loops above.

# %%
runs = explorer.runs
explorer.controls["query"].value = 3
explorer.controls["query"].value = 4
print("two values set from Python, drawings made:", explorer.runs - runs)

# %% [markdown]
# ## What the papers claim, and what you saw

# %% tags=["nbval-ignore-output"]
drawn, whole = ({name: row[kind] for name, row in means.items()} for kind in ("your drawing", "true mask"))
claims(
    (
        "PANet (PASCAL-5i): scribbles cost 3.3 points of mIoU with one shot, 1.1 with five.",
        f"One drawing, {queries} queries: PANet {whole['PANet']:.0%} with the true mask, {drawn['PANet']:.0%} with scribbles.",
        "An average of fewer pixels is the same average with more noise.",
    ),
    (
        "The papers of SD-AANet and HDMNet report scores with whole masks only.",
        f"SD-AANet falls from {whole['SD-AANet']:.0%} to {drawn['SD-AANet']:.0%}, HDMNet from {whole['HDMNet']:.0%} to {drawn['HDMNet']:.0%}.",
        "They mask what enters a network, and no training picture showed shreds of an object.",
    ),
    (
        "HDMNet (inverse softmax): attention has to be normalised over the query.",
        f"Mean IoU {found['query']:.0%}; over the support, with the same weights, {found['support']:.0%}.",
        "They agree. But these weights learned with the softmax over the query, so any change would cost something; see notebook 06.",
    ),
)

# %% [markdown]
# ## Summary
#
# * A drawing is a list of strokes, and the mask is a function of it. Record it, replay it, put it in a report.
# * A few scribbles were enough for PANet and ASGNet, which average features. They ruined SD-AANet and HDMNet, which
#   mask what enters a network.
# * Explorers show what a method saw, under the names of its paper; in Python these maps are `Prediction.maps`.
# * What an explorer shows for one query is an example. `set` and `facts` make it a measurement.
#
# ## Exercises
#
# **1. Draw with code.** *Difficulty ●○○ · 5 minutes.* Write `boxed(mask)`: it returns a drawing (its `document`) of one
# box around the object of a mask. Hint: `strokes.empty` and `strokes.add`.
#
# **2. The smallest support.** *Difficulty ●●○ · 15 minutes.* Shrink a round brush stroke at the object's centre. How
# few pixels does PANet need for this query? Then move the spot: is the centre special, or will any place on the object
# do?
#
# **3. An open question.** *Difficulty ●●● · 30 minutes.* Find an episode in which the *drawing* beats the *true mask*
# for some method. Is it luck, or is there something in the true mask that hurts?
#
# ```python
# def boxed(mask):
#     raise NotImplementedError("exercise 1: your turn")
#
#
# def smallest(sizes):
#     raise NotImplementedError("exercise 2: your turn")
# ```


# %% tags=["solution"]
def boxed(mask):
    """The document of one box from the first to behind the last object pixel."""
    rows, columns = (mask == 1).nonzero().T.float()
    corners = [[columns.min().item(), rows.min().item()], [columns.max().item() + 1, rows.max().item() + 1]]
    return strokes.add(strokes.empty(*mask.shape), {"tool": "box", "label": 1, "points": corners})


own = (truth == cls).long()
inside = torch.from_numpy(strokes.rasterise(boxed(own), *own.shape))
assert bool((inside[own == 1] == 1).all()) and inside[0, 0] == 0, "the box must hold the object and no more"
print("exercise 1: pixels in the box and in the object:", int(inside.sum()), int(own.sum()))


# %% tags=["solution"]
def smallest(sizes):
    """IoU of PANet for brush strokes of these widths, at the object's centre."""
    comparison.set(marked="your drawing")
    y, x = (own == 1).nonzero().float().mean(0).tolist()
    found = {}
    for size in sizes:
        dot = {"tool": "brush", "label": 1, "width": size, "points": [[x + 0.5, y + 0.5]]}
        comparison.painter.document = strokes.add(strokes.empty(*own.shape), dot)
        found[size] = comparison.scene.facts["iou"]["PANet"]
    return found


sizes = smallest((30, 20, 12, 6, 2))
print(
    "exercise 2: IoU by width of the stroke in pixels:",
    ", ".join(f"{size}: {value:.0%}" for size, value in sizes.items()),
)

# %% [markdown]
# **Read next**: notebook 09, on all that a score depends on besides the model. **References**: K. Wang et al., *PANet*,
# ICCV 2019; Q. Zhao et al., *SD-AANet*, arXiv 2108.06600; G. Li et al., *ASGNet*, CVPR 2021; B. Peng et al., *HDMNet*,
# CVPR 2023.
