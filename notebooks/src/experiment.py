# ---
# jupyter:
#   title: Experiment report
#   minutes: 1
# ---

# %% [markdown]
# # Experiment report
#
# *What happens if I change this one thing?* One few-shot segmentation experiment from data to score: train on
# [base classes](GLOSSARY.md#base-class), test on classes the model has never seen. Everything below follows from the
# parameters in the next cell. Run it with your own:
#
# ```
# python -m fsslib.experiments run -p fold=1 -p checkpoint=null -p pretrain_steps=2500 -p episodic_steps=1200
# python -m fsslib.experiments help
# ```
#
# The defaults start from the shipped weights and train only a little further, so that the report is done in a minute.
# These weights were trained to the end, so do not expect a gain: its interval will hold 0. To see a model learn, set
# `checkpoint=null`, as above. Unknown names, wrong types and combinations that cannot work are refused before anything
# runs.

# %% tags=["parameters"]
method = "panet"
plugin = None
backbone = "tiny"
weights = None
checkpoint = "shipped"
dataset = "shapes"
root = None
data_options = {}
fold = 0
way = 1
shots = [1, 5]
train_shot = 1
size = 97
train_size = None
knobs = {}
train_knobs = {}
novel_pixels = None
width = None
freeze_backbone = None
pretrain_steps = 0
episodic_steps = 40
batch = 8
lr = 1e-4
pretrain_lr = 3e-3
training = {}
selection = "last"
validate_every = 0
annotation = "mask"
episodes = 200
seeds = [0]
seed = 0
precision = "32"
accelerator = "auto"
devices = 1
nodes = 1
workers = 0
logger = None
protocol = "honest"
options = {}
out = None

# %%
import time

import pandas as pd
import torch

from fsslib import plots, save_model
from fsslib.evaluation import examples
from fsslib.experiments import ExperimentParameters, check_parameters, recipe, write_result
from fsslib.plots.display import show
from fsslib.plots.live import Watch
from fsslib.training import validation_score

began = time.time()
p = check_parameters({name: globals()[name] for name in ExperimentParameters.model_fields})

# %% [markdown]
# ## Data and protocol
#
# The [protocol](GLOSSARY.md#protocol) card lists every choice that moves a score. Two numbers can be compared only if their
# cards agree.

# %%
train_set, test_set = recipe.datasets(p)
novel = [test_set.names[c] for c in test_set.classes]
print(f"{len(train_set)} training images of {len(train_set.classes)} base classes")
print(f"{len(test_set)} test images of {len(novel)} novel classes: {', '.join(novel)}")

# %%
print(recipe.protocol(p).card())

# %% [markdown]
# ## The model before training
#
# The reference is what the features can do before any training in this report: support features are averaged under their
# masks and matched with the query by cosine similarity. No layer of the method takes part.

# %%
net = recipe.model(p)
total = sum(x.numel() for x in net.parameters())
learnable = sum(x.numel() for x in net.parameters() if x.requires_grad)
print(f"{p['method']} on {p['backbone']}: {total:,} parameters, {learnable:,} of them learnable")

# %%
evaluations = {"before training": recipe.score(p, recipe.features_only(net), test_set)}

# %% [markdown]
# ## Training
#
# Budgets are numbers of steps. The batch at step $t$ depends on the seed and $t$ alone, so a run that was stopped goes
# on exactly where it was. Unless `selection` is `last`, the training is validated every `validate_every` steps on a
# fixed list of episodes, and its best state is the one that is scored below. On Shapes-5i a curve grows while the model
# learns from episodes. It shows the score on up to forty episodes of novel classes; it is there to watch, and nothing
# is chosen by it.

# %% tags=["nbval-ignore-output"]
histories = recipe.train(p, net, train_set, folder=out, stage="pretrain")
if histories:
    evaluations["after base pre-training"] = recipe.score(p, recipe.features_only(net), test_set)
watch = None
if p.dataset == "shapes" and p.selection == "last" and p.episodic_steps:
    few, _ = validation_score(
        test_set, recipe.protocol(p).replace(episodes=min(40, p.episodes), seeds=tuple(p.seeds[:1]))
    )
    watch = Watch(few, every=-(-p.episodic_steps // 8), steps=p.episodic_steps, label="mIoU of novel classes, %").start(
        net
    )
histories |= recipe.train(p, net, train_set, folder=out, stage="episodic", watch=watch)
evaluations["trained"] = recipe.score(p, net, test_set)

# %% tags=["nbval-ignore-output"]
for history in histories.values():
    if history.selected:
        print("selected after step {step}: validation mIoU {val_miou:.1f} %".format(**history.selected))
show(*plots.histories(histories))

# %% [markdown]
# ## Scores
#
# mIoU sums intersections and unions of each class over all its episodes and averages the classes. The interval is the
# 95 % bootstrap over episodes. `gain` is the difference to the row *before training* with the same number of shots,
# [paired](GLOSSARY.md#paired-interval) on the same episodes. If its interval leaves out 0, the training did something
# that the choice of episodes does not explain. Another `seed` may still say otherwise (notebook 07).

# %% tags=["nbval-ignore-output"]
table = pd.DataFrame(recipe.table(evaluations, p["shots"]))
table.drop(columns="seconds").round(1)

# %% tags=["nbval-ignore-output"]
rows = {f"{r.model}, K={r.shots}": (r.miou, r.low, r.high) for r in table.itertuples()}
show(*plots.score_bars(rows))

# %% [markdown]
# ## Scores by class

# %% tags=["nbval-ignore-output"]
most = max(p["shots"])
show(*plots.class_bars({f"K={k}": evaluations["trained"].scores[k] for k in p["shots"]}, test_set.names))

# %% [markdown]
# ## Best, median and worst episodes
#
# We choose them by the IoU of the single episode, with the smallest number of shots. The mean hides what the worst ones
# show.

# %%
episode, notes = examples(evaluations["trained"], test_set, shot=min(p["shots"]))
with torch.no_grad():
    predicted = net(episode.to(next(net.parameters()).device)).masks()

# %% tags=["nbval-ignore-output"]
show(*plots.episodes(episode, predicted, notes, test_set.names), photo=True)

# %% [markdown]
# ## Cost, versions and result
#
# Seconds include loading the images. `result.json`, the weights and the counts of every episode are written beside this
# report when it runs through `fsslib.experiments`.

# %% tags=["nbval-ignore-output"]
seconds = {name: f"{history.seconds:.0f} s" for name, history in histories.items()}
seconds |= {f"episode, K={k}": f"{1000 * v:.1f} ms" for k, v in evaluations["trained"].seconds.items()}
pd.Series(seconds | recipe.versions(), name="cost and versions").to_frame()

# %%
if out is not None:
    write_result(out, recipe.result(p, evaluations, test_set.names, began, histories))
    save_model(net, f"{out}/model.safetensors")
    for label, entry in evaluations.items():
        entry.save(f"{out}/{label.replace(' ', '-')}.npz")
print(f"scored on list {evaluations['trained'].protocol.list_hash}")
