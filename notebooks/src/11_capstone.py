# ---
# jupyter:
#   title: "Capstone: a module of your own"
#   minutes: 1
# ---

# %% [markdown]
# # 11 · Capstone: a module of your own
#
# *I have an idea that should make a method better. How do I find out whether it does?* You design a small module, write
# down what it should do **before** anything runs, train it and its counterpart without the idea, compare the two on the
# same episodes, and report on one page. An idea that fails is as good a result as one that works, if the page says why.
#
# **What you will learn**
#
# * how to add a method to the library in one file, without touching the library;
# * how to write a hypothesis that can turn out wrong, with a *ground* (pictures on which the idea should help) and an
#   *elsewhere* (pictures on which it should not matter);
# * how to compare [paired](GLOSSARY.md#paired-interval), over several trainings;
# * how to report it in one page.
#
# **What it needs**: notebooks 00, 01 and 07; about an hour for your own project, about one minute on two cores for the
# worked example. The [backbone](GLOSSARY.md#backbone) is that of notebook 00, *loaded and
# [frozen](GLOSSARY.md#frozen-backbone)*; only your module learns.
#
# ## How to work
#
# 1. Copy `data/capstone/starter.py` to a file of your own; change class and name, and write your idea where `answer`
#    asks for it. The option `idea=False` has to leave your idea out and change nothing else.
# 2. Set `plugin` and `method` in the next cell. Write your `hypothesis` in the cell after the imports.
# 3. Run all cells. Do not change the hypothesis afterwards: write a new one.
# 4. Write your page (last section). The rubric says what counts.
#
# Until you do, the notebook shows a worked example: `data/capstone/mixture.py`.

# %% tags=["parameters"]
plugin = None  # the path of your file; None: the worked example
method = "mixture"
ground = {"parts": 3}  # knobs of fsslib.data.ShapesKnobs: where the idea should help
elsewhere = {"parts": 1}  # and where it should not matter
seeds = [0, 1, 2]  # of the trainings
steps = 40
lr = 1e-3
episodes = 100

# %% tags=["nbval-ignore-output"]
import hashlib
from pathlib import Path

import pandas as pd
import torch
from IPython.display import Code, Markdown, display

import fsslib
from fsslib import EpisodeSampler, Protocol, build_model, evaluate, load_dataset, load_model, models
from fsslib.analysis.intervals import gain_verdict, over_seeds, percent
from fsslib.checkpoints import shipped
from fsslib.metrics import over_trainings
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.plots import ablation
from fsslib.plots.display import claims, show, table
from fsslib.training import Schedule, train_episodes

print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")

# %% [markdown]
# ## 1 · The hypothesis, before anything runs
#
# A good hypothesis names what changes, why, where, by how much, and what would prove it wrong. The hash below belongs on your
# page: it shows that nobody changed the words afterwards.

# %%
hypothesis = """
Observation: the mean of an object of several parts resembles none of them (notebook 01), and the most similar cell beats
the mean on a motorcycle (notebook 10).
Idea: answer with a mixture of both cosines, (1 - w) mean + w nearest cell, with w learned.
Prediction: on objects of three parts the mixture scores at least one point of mIoU more than the mean alone.
Control: on objects of one part it changes less than one point, because there the mean is a good summary.
Wrong if: on three parts the interval over episodes holds 0, or one of three trainings has the other sign.
"""
print(hypothesis.strip())
print("hash", hashlib.sha256(hypothesis.encode()).hexdigest()[:12])

# %% [markdown]
# ## 2 · The module
#
# The module is one Python class in one file. `features` prepares what all ways share, `segment` answers for one way,
# and the idea is in `answer`. It takes query cells (B, C, h, w), support cells (B, K, C, h, w) and, for each support
# cell, the share that belongs to the object (or to the background). It returns a map (B, 1, h, w).

# %%
path = Path(plugin) if plugin else fsslib.files.data_folder() / "capstone" / "mixture.py"
models.use(path)
Code(path.read_text(encoding="utf-8"), language="python")

# %% [markdown]
# ## 3 · Train it, with and without the idea
#
# Both sides start from the same seed, see the same batches of base classes, and differ in one switch. Features of the frozen
# backbone are computed once. Training pictures have the difficulty of the ground: a module should meet in training what it is
# meant to be good at.

# %% tags=["nbval-ignore-output"]
backbone = load_model(shipped("panet", "shapes", 0)).backbone
backbone.freeze()
backbone = CachedBackbone(backbone, dtype=torch.float32)
lessons = load_dataset("shapes", fold=0, split="train", val_classes=0, knobs=ground, pool=600)
exams = {
    name: load_dataset("shapes", fold=0, split="test", val_classes=0, knobs=knobs)
    for name, knobs in (("ground", ground), ("elsewhere", elsewhere))
}
protocol = Protocol.shapes5i(episodes=episodes)


def trained(idea, seed):
    """One training, and its scores by exam."""
    torch.manual_seed(seed)
    net = build_model(method, backbone=backbone, idea=idea)
    batches = EpisodeSampler(lessons, Protocol.shapes5i(), shot=1, seed=seed)
    train_episodes(net, batches, Schedule(steps, batch=8, lr=lr, warmup=5, seed=seed), progress=False)
    return net, {name: evaluate(net, data, protocol, progress=False).scores[1] for name, data in exams.items()}


runs = {(idea, seed): trained(idea, seed) for seed in seeds for idea in (True, False)}
mix = [float(net.mix.detach().sigmoid()) for (idea, _), (net, _) in runs.items() if idea and hasattr(net, "mix")]
learned = ", ".join(f"{w:.2f}" for w in mix) or "none in this module"
print("learned weight of the nearest cell:", learned)

# %% [markdown]
# ## 4 · Compare
#
# The left panel shows the ground, the right one elsewhere. The interval says what other episodes would change, the dots
# what other trainings would. The last column of the table is the interval over trainings; it is wide, because there are
# few of them (notebook 07).

# %% tags=["nbval-ignore-output"]
rows, gains, shown = [], {}, {}
for place, exam in enumerate(exams, 1):
    own = {idea: [runs[idea, seed][1][exam] for seed in seeds] for idea in (True, False)}
    for idea, scores in own.items():
        row = {"shots": place, "model": "with the idea" if idea else "without", "miou": percent(over_trainings(scores))}
        rows.append(row | {"per_seed": [100 * score.miou for score in scores]})
    each = [100 * (a.miou - b.miou) for a, b in zip(own[True], own[False])]
    gains[exam] = percent(over_trainings(own[True], own[False])), each
    print(gain_verdict(f"{exam}, with - without", *gains[exam]))
    for idea, scores in own.items():
        tp, fp, fn = sum(score.table[:, 1].sum(0) for score in scores)
        entry = {"mIoU": f"{percent(over_trainings(scores))[0]:.1f}", "precision": f"{tp / (tp + fp):.0%}"}
        entry |= {
            "recall": f"{tp / (tp + fn):.0%}",
            "difference over trainings": "{1:.1f} to {2:.1f}".format(*over_seeds(each)),
        }
        shown[f"{exam}, {'with' if idea else 'without'} the idea"] = entry
figure, alt, data = ablation.ablation(rows)
alt, data.columns = alt.replace("K=1", "ground").replace("K=2", "elsewhere"), list(exams)
for axis, exam in zip(figure.axes, (f"ground: {ground}", f"elsewhere: {elsewhere}")):
    axis.set_title(exam.replace("{", "").replace("}", "").replace("'", ""))
show(figure, alt, data)
table(pd.DataFrame(shown).T)

# %% [markdown]
# ## 5 · The verdict
#
# The hypothesis fixed the rule, so code can apply it:

# %% tags=["nbval-ignore-output"]
(value, low, high), each = gains["ground"]
(aside, *ends), _ = gains["elsewhere"]
elsewhere_range = "{:.1f} to {:.1f}".format(*ends)
if low > 0 and min(each) > 0:
    verdict = "confirmed on its ground" if value >= 1 else "there is a gain, but a smaller one than predicted"
elif high < 0 and max(each) < 0:
    verdict = "refuted: it is worse where it should help"
else:
    verdict = "not confirmed"
print(f"{verdict}: {value:+.1f} ({low:.1f} to {high:.1f}); elsewhere {aside:+.1f} ({elsewhere_range})")
claims(
    (
        "Prediction: at least +1 point on objects of three parts, less than one point on objects of one.",
        f"{value:+.1f} ({low:.1f} to {high:.1f}) on the ground, {aside:+.1f} ({elsewhere_range}) elsewhere; "
        f"{len(seeds)} trainings of {steps} steps, {episodes} episodes.",
        f"{verdict[0].upper()}{verdict[1:]}. Precision and recall in the table say how: the idea finds less of the object "
        "and marks less beside it.",
    )
)

# %% [markdown]
# ## 6 · One page
#
# This is the worked example's page. Replace it with yours: the same five paragraphs, at most 400 words, every
# difference with its interval.

# %% tags=["nbval-ignore-output"]
page = f"""
**Does a mixture of mean and nearest cell help objects of several parts?**

*Why.* The mean of several parts resembles none of them; on a photograph of a motorcycle the nearest cell beat the mean.

*What.* `{path.name}`: one learned weight between the two cosines. Without the idea the same module matches means only.
Hypothesis {hashlib.sha256(hypothesis.encode()).hexdigest()[:12]}, written before the first run.

*How.* Shapes-5i, fold 0, frozen backbone, {len(seeds)} trainings of {steps} steps on both sides, the same batches,
{episodes} episodes of novel classes (list {evaluate(runs[True, seeds[0]][0], exams["ground"], protocol, progress=False).protocol.list_hash}).

*Result.* With the idea {value:+.1f} points of mIoU ({low:.1f} to {high:.1f}; trainings {", ".join(f"{x:+.1f}" for x in each)})
on three parts: **{verdict}**. On one part, where less than one point was predicted, {aside:+.1f} ({elsewhere_range}).

*Why, and what next.* On three parts precision went from {shown["ground, without the idea"]["precision"]} to
{shown["ground, with the idea"]["precision"]} and recall from {shown["ground, without the idea"]["recall"]} to
{shown["ground, with the idea"]["recall"]}: the background wins more cells. A guess at the reason: the background has many more
cells than the object, and a maximum over more cells is larger. The weight w hardly moved in {steps} steps ({learned}), so
the training did not correct it. Next hypothesis: the nearest cell for the object alone, with the background's mean as it is.
"""
display(Markdown(page))

# %% [markdown]
# ## Rubric
#
# | what | points | full marks for |
# |---|---|---|
# | hypothesis | 5 | names mechanism, ground, control, size, and what would prove it wrong; written before the first run |
# | module | 4 | one file; `idea=False` changes nothing but the idea; shapes and sources in the docstring |
# | comparison | 5 | same seeds, batches and episodes on both sides; at least three trainings; interval over episodes *and* trainings |
# | honesty | 3 | a failed or unclear result is called so; nothing was tuned on novel classes |
# | page | 3 | one page, every difference with its interval, one reason with a measurement, one next step |
#
# Nothing depends on whether the score rises.
#
# **Ideas to start from**: several prototypes for the background; a prototype that leaves out the object's edge (notebook 01,
# exercise 4); a prototype of the query's most certain cells, used for a second pass; weights for the supports at $K = 5$;
# a bias that lets the module say "nothing here".
#
# **Read next**: the notebook `experiment` runs the same module at full size, on other folds and data:
# `python -m fsslib.experiments run -p plugin=my_module.py -p method=mine -p checkpoint=null`.
#
# **References**: K. Wang et al., *PANet*, ICCV 2019; Z. Tian et al., *PFENet*, arXiv 2008.01449 (the most similar cell).
