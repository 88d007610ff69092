# ---
# jupyter:
#   title: "Explorer: draw a support, watch the model think"
#   minutes: 0.5
# ---

# %% [markdown]
# # 08 · Explorer: draw a support, watch the model think
#
# The earlier notebooks showed what we had chosen. Here you choose: which object, which pixels of it, which method, which
# temperature. Every picture below answers a control above it. Without a running kernel you see a still of each; start
# one (*Run > Run All Cells*) and they come to life.
#
# **What you will learn**
#
# * how to mark a support yourself, and what exactly a stroke, a box and a scribble say;
# * how much a few scribbles are worth compared with a whole outline, for four methods;
# * how to ask every model what it saw: prototypes, priors, attention, superpixels, correlation;
# * how to turn an explorer into an experiment: set its controls from Python and collect what it shows.
#
# **What it needs**: this repository, about half a minute on two cores; no download, no GPU. Data: Shapes-5i, fold 0, classes
# that no model below was trained on. The weights are *loaded here, not trained here*. Your own pictures stay on your
# machine: nothing is sent anywhere.

# %% tags=["parameters"]
seed = 0
queries = 12

# %%
import torch

import fsslib
from fsslib import files, widgets
from fsslib.data import load_dataset
from fsslib.widgets import SupportPainter, strokes

# %% tags=["nbval-ignore-output"]
print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")

# %% [markdown]
# ## Draw
#
# Five tools. **Brush**, **box** and **polygon** state what the object is, so all the rest is background. A **scribble**
# only hints: as soon as one marks background, whatever nobody touched is neither, and a model leaves it out of every
# average. The **eraser** makes pixels untouched again. Everything works with a mouse, a finger, a pen, and with the
# keyboard alone (open *How to draw* below the picture).
#
# The drawing below was recorded: two scribbles on the disc, two beside it. Go on with it, or clear it and start afresh.

# %%
data = load_dataset("shapes", fold=0, split="test")
cls = data.classes[0]
image, truth = data[data.images_of(cls)[0]]
painter = SupportPainter(image, strokes.load(files.data_folder() / "strokes" / "disc-stripes.json"))
painter

# %% [markdown]
# A drawing is data. `document` holds the strokes in pixels of the image, and `mask` is computed from them by a rule
# without rounding, so the same strokes give the same mask on every machine: 1 object, 0 background, 255 neither.

# %%
mask = torch.from_numpy(painter.mask)
print("strokes:", [stroke["tool"] for stroke in painter.document["history"]])
print("pixels of object, background, neither:", [int((mask == value).sum()) for value in (1, 0, 255)])
print(f"share of the true object that is marked: {((mask == 1) & (truth == cls)).sum() / (truth == cls).sum():.0%}")

# %%
before = painter.mask
painter.undo()
print("one stroke taken back changes the mask:", bool((painter.mask != before).any()))
painter.redo()
print("brought back, it is the same mask:", bool((painter.mask == before).all()))

# %% [markdown]
# ## Four methods, one drawing
#
# Your drawing is the support of all four. Try this: *clear* the picture and mark only a corner of the disc. Then add one
# background scribble. Then choose *true mask* under *Support mask*, and see who gains most. With *Own support* and *Own
# query* you can bring your own photographs, but read the last section first.

# %% tags=["nbval-ignore-output"]
comparison = widgets.compare_methods()
comparison

# %% [markdown]
# Is a scribble enough? One query proves nothing. An explorer can be driven from Python: `set` changes its controls and
# draws at once, `scene.facts` holds the numbers on display. So ask it for several queries, each with the drawing and
# with the true mask. The queries are the first images of the class behind the support; nothing was picked by hand.

# %%
found = {"your drawing": [], "true mask": []}
for query in range(1, queries + 1):
    for marked, rows in found.items():
        comparison.set(query=query, marked=marked)
        rows.append(comparison.scene.facts["iou"])
comparison.set(query=5, marked="your drawing")
means = {
    name: {kind: sum(r[name] for r in rows) / queries for kind, rows in found.items()} for name in found["true mask"][0]
}

# %% tags=["nbval-ignore-output"]
for name, row in means.items():
    print(f"{name:9s} scribbles {row['your drawing']:.0%}, true mask {row['true mask']:.0%}")

# %%
lost = {name: row["true mask"] - row["your drawing"] for name, row in means.items()}
print("scribbles cost less than ten points:", [name for name in lost if lost[name] < 0.1])
print("scribbles cost more than thirty:", [name for name in lost if lost[name] > 0.3])

# %% [markdown]
# Methods differ in what they ask of a mask. PANet and ASGNet average features under it, and an average of fewer pixels
# is the same average with more noise. HDMNet multiplies the *image* with the mask, SD-AANet the features in front of the
# backbone's last stage: where you scribbled, both see shreds of an object, and nothing in their training looked like
# that. Twelve queries and one drawing are an observation; notebook 01 measures scribbles over a whole episode list.
#
# ## Any episode
#
# Pick a fold, a class, supports and a query. Look for an episode in which five supports are *worse* than one, then
# switch the method. ASGNet and SD-AANet make it easy to find one; notebooks 04 and 05 say why.

# %% tags=["nbval-ignore-output"]
widgets.explore_episode(shots=1)

# %% [markdown]
# ## Inside PANet: where does the prototype come from?
#
# The prototype is an average. Choose *what* is averaged: the mask, a scribble, a box, one cell that you point at, or
# your own strokes. Watch the cosine map of the object: which source makes the background light up, too?

# %% tags=["nbval-ignore-output"]
widgets.explore_prototypes()

# %% [markdown]
# ## Inside SD-AANet: teacher, prior, attention
#
# First the distillation: raise the temperature until teacher and student look alike. The loss falls towards zero, and
# the prediction does not move at all: at inference there is no teacher.

# %% tags=["nbval-ignore-output"]
widgets.explore_distillation()

# %% [markdown]
# Then the two maps that guide the decoder. Point at a query pixel: the numbered marks on the support are the object
# cells it resembles most. Point at the *wrong* object where the prior is bright, and see what it was mistaken for.

# %% tags=["nbval-ignore-output"]
widgets.explore_attention()

# %% [markdown]
# ## Inside ASGNet: how many prototypes?
#
# Move the number of superpixels from 1 to 5 and on. The guide map shows which of them every query position chose. When
# does another superpixel stop changing the prediction?

# %% tags=["nbval-ignore-output"]
widgets.explore_superpixels()

# %% [markdown]
# ## Inside HDMNet: what is compared with what?
#
# Three stages from fine to coarse. Let the softmax run over the support instead of the query, and lower the temperature:
# the correlation map changes its character, the prediction less than you might think.

# %% tags=["nbval-ignore-output"]
widgets.explore_correlation()

# %% [markdown]
# ## An explorer as an experiment
#
# The same trick works with every explorer: twelve queries, one and five supports, one loop.

# %%
explorer = widgets.explore_episode()
curves = {}
for method in means:
    for shots in (1, 5):
        rows = [explorer.set(method=method, shots=shots, query=10 + q).scene.facts["iou"] for q in range(queries)]
        curves[f"{method}, K={shots}"] = sum(rows) / queries
print("five supports beat one:", [name for name in means if curves[f"{name}, K=5"] > curves[f"{name}, K=1"]])

# %% tags=["nbval-ignore-output"]
for label, value in curves.items():
    print(f"{label:13s} {value:.0%}")

# %% [markdown]
# ## Your own pictures
#
# The models above know drawn shapes. On a photograph they find texture at best, and the comparison says so below its
# pictures. For photographs bring a model that has seen some; nothing is downloaded until you ask for it:
#
# ```python
# nets = {
#     "PANet": fsslib.build_model("panet", backbone="resnet50", weights="imagenet"),  # 98 MB, once
#     "mine": fsslib.load_model("runs/my-training/model.safetensors"),
# }
# widgets.compare_methods(nets, support="cat.jpg", query="another-cat.jpg")
# widgets.explore_episode(load_dataset("folder", root="my-pictures", split="test"), nets)
# ```
#
# ## Why it stays quick
#
# A backbone's features depend on the image alone, so each explorer remembers them: moving a temperature runs no
# backbone. And a slow model never makes you wait for pictures you have moved past: while it computes, further moves
# collect, and only the last one is answered. Setting a value from Python, as the loops above do, answers every time.

# %%
runs = explorer.runs
explorer.controls["query"].value = 3
explorer.controls["query"].value = 4
print("two values set from Python, drawings made:", explorer.runs - runs)

# %% [markdown]
# ## Summary
#
# * A drawing is a list of strokes, and the mask is a function of it. Record it, replay it, put it in a report.
# * A few scribbles served the two methods that average features, and ruined the two that mask what goes into a network.
# * Each method shows what it saw under the names its paper uses; the same pictures are `Prediction.maps` in Python.
# * What an explorer shows for one query is an example. `set` and `facts` make it a measurement.
#
# ## Exercises
#
# **1. Draw with code.** `Difficulty: easy / 5 minutes`. Write `boxed(mask)`: the document of one box around the object
# of a mask. Hint: `strokes.empty` and `strokes.add`.
#
# **2. The smallest support.** `Difficulty: medium / 15 minutes`. Shrink a round brush stroke at the object's centre. How
# few pixels does PANet need for this query? Then move the spot: is the centre special, or the object?
#
# **3. An open question.** `Difficulty: hard / 30 minutes`. Find an episode in which the *drawing* beats the *true mask*
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
    y, x = (own == 1).nonzero().float().mean(0).tolist()
    found = {}
    for size in sizes:
        dot = {"tool": "brush", "label": 1, "width": size, "points": [[x + 0.5, y + 0.5]]}
        comparison.painter.document = strokes.add(strokes.empty(*own.shape), dot)
        found[size] = comparison.scene.facts["iou"]["PANet"]
    return found


sizes = smallest((30, 20, 12, 6, 2))
print("exercise 2: two pixels wide, it loses less than ten points:", sizes[30] - sizes[2] < 0.1)

# %% [markdown]
# **Read next**: `09_protocol_lab`, on what makes a score a score. **References**: K. Wang et al., *PANet*, ICCV 2019; Q.
# Zhao et al., *SD-AANet*, arXiv 2108.06600; G. Li et al., *ASGNet*, CVPR 2021; B. Peng et al., *HDMNet*, CVPR 2023.
