# ---
# jupyter:
#   title: "Four methods on equal terms"
#   minutes: 0.5
# ---

# %% [markdown]
# # 07 · Four methods on equal terms
#
# Every paper's table says that its method is best. Is it? Here PANet, ASGNet, SD-AANet and HDMNet get the same data, the
# same backbone, the same number of training steps and the same episodes, three times each. You will read the result,
# recompute a part of it, and find out what the numbers in papers leave open.
#
# **What you will learn**
#
# * what has to be equal before two scores may be compared, and how to check it;
# * two kinds of uncertainty: other episodes, and other trainings;
# * [why paired differences say more](GLOSSARY.md#paired-interval) than two intervals side by side;
# * which data make a method fail, and what it costs;
# * why published tables cannot simply be read from top to bottom.
#
# **What it needs**: notebooks 00 and 01; about half a minute on two cores. Weights are *loaded, not trained here*; with
# `retrain = True` all four methods are trained before your eyes, in less than 20 minutes.

# %% tags=["parameters"]
seed = 0  # of the training with retrain = True
episodes = 50
retrain = False
steps = None  # of each of its two stages; None: the stored budget
plugin = None  # a Python file that registers a method of your own
plugin_checkpoint = None

# %%
import json
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pandas as pd
import torch
from IPython.display import HTML

import fsslib
from fsslib import EpisodeSampler, Protocol, build_model, evaluate, load_dataset, load_model, models
from fsslib.analysis import costs, intervals
from fsslib.analysis.baselines import baselines
from fsslib.analysis.intervals import percent, verdict
from fsslib.checkpoints import read_note
from fsslib.evaluation import Evaluation
from fsslib.experiments import read_result, run_notebook
from fsslib.metrics import over_trainings
from fsslib.nn.backbones.cached import MemoryStore
from fsslib.plots import ablation as tables
from fsslib.plots import comparison as pictures
from fsslib.plots.display import show

torch.set_grad_enabled(False)
data = fsslib.files.data_folder()


# %% tags=["nbval-ignore-output"]
print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")

# %% [markdown]
# ## What is equal
#
# Twelve runs of the notebook `experiment`, started by `tools/comparison.py`, left a result file and the pixel counts of
# all 1,000 episodes each. First check that they belong together. A score without this check is an anecdote.

# %%
NAMES = {"panet": "PANet", "asgnet": "ASGNet", "sdaanet": "SD-AANet", "hdmnet": "HDMNet"}
SEEDS = (0, 1, 2)
files = {(m, s): data / "results" / "comparison" / f"{m}-{s}.json" for m in NAMES for s in SEEDS}
stored = {key: json.loads(path.read_text()) for key, path in files.items()}
counts = {key: Evaluation.load(path.with_suffix(".npz")) for key, path in files.items()}

# %%
settings = pd.DataFrame({key: {k: str(v) for k, v in r["parameters"].items()} for key, r in stored.items()})
settings = settings.fillna("None")
differs = settings[settings.nunique(axis=1) > 1]
assert set(differs.index) <= {"method", "seed", "width", "lr", "options"}, f"the runs differ in {list(differs.index)}"
hashes = {r["list_hash"] for r in stored.values()} | {entry.protocol.list_hash for entry in counts.values()}
assert len(hashes) == 1, f"the runs were scored on different episodes: {hashes}"
card = counts["panet", 0].protocol
assert all(entry.protocol == card for entry in counts.values()), "the runs were scored by different rules"

# %%
p = stored["panet", 0]["parameters"]
print(f"{len(stored)} runs, one list of {p['episodes']} episodes: {hashes.pop()}")
print(f"backbone {p['backbone']}, fold {p['fold']} of {p['dataset']}, {p['train_shot']} shot in training")
print(f"{p['pretrain_steps']} steps of base pre-training and {p['episodic_steps']} on episodes, batch {p['batch']}")

# %%
print(card.card())

# %% [markdown]
# What differs are the method, the seed and these (`width`: channels behind the backbone, `lr`: learning rate):


# %%
def table(frame, index=True):
    """A DataFrame as HTML without line breaks, which would double the size of the stored notebook."""
    return HTML(re.sub(r"\s*\n\s*", "", frame.to_html(border=0, index=index)))


own_settings = differs.xs(0, axis=1, level=1).drop(index=["method", "seed"], errors="ignore")
table(own_settings.rename(columns=NAMES))

# %% [markdown]
# Equal is not the same as fair to all. Keep in mind:
#
# * PANet trains its backbone on episodes; [the others keep it frozen](GLOSSARY.md#frozen-backbone) and train what lies behind it. HDMNet's
#   pre-training also trains the head of its base learner.
# * Equal steps are not equal time; see the costs below.
# * The settings in this table were tried out on novel classes: those of SD-AANet on episodes of this very fold (seed 0),
#   those of ASGNet and HDMNet on fold 1. PANet has the learning rate of its shipped weights. Seeds 1 and 2 were not
#   looked at before.
# * All are trained with one shot, on images that show no novel class: what HDMNet's authors reach by a filter of their
#   training images, these drawn images have by themselves, for every method.
#
# ## The stored table
#
# The **interval** says what other episodes would change; it is a bootstrap over the 1,000 episodes (drawn again and
# again with replacement), which all trainings share. The **dots** are the three trainings; their range says what another
# seed would change. The dotted line is [the oracle of notebook 00](GLOSSARY.md#oracle): it outlines all novel objects perfectly and never looks
# at the support. PANet stands lower than in notebooks 00 and 01, whose weights had twice the steps.

# %%
own = {(m, k): [counts[m, s].scores[k] for s in SEEDS] for k in (1, 5) for m in NAMES}
rows = []
for (m, k), scores in own.items():
    each = [100 * score.miou for score in scores]
    rows.append({"shots": k, "model": NAMES[m], "miou": percent(over_trainings(scores)), "per_seed": each})
test_set = load_dataset("shapes", fold=0, split="test", val_classes=0)
oracle = 100 * baselines(test_set, Protocol())["every novel object (oracle)"].miou
show(*tables.ablation(rows, {"oracle": oracle}))

# %%
spread = {}
for row in rows:
    value, low, high = row["miou"]
    said = f"{value:.1f} ({low:.1f}–{high:.1f}), trainings {min(row['per_seed']):.1f}–{max(row['per_seed']):.1f}"
    spread.setdefault(f"K={row['shots']}", {})[row["model"]] = said
table(pd.DataFrame(spread))

# %% [markdown]
# How much of it is the method? Match prototypes on the pre-trained features alone, before a single episode was learned
# (HDMNet's features were pre-trained under a larger head):

# %%
for m, name in NAMES.items():
    found = [row["miou"] for s in SEEDS for row in stored[m, s]["rows"] if row["model"] == "after base pre-training"]
    print(f"{name:9s} features alone: K=1 {sum(found[::2]) / 3:.1f}, K=5 {sum(found[1::2]) / 3:.1f}")

# %% [markdown]
# ## Who is better than whom?
#
# Some episodes are hard for everybody. That noise cancels when two methods are compared on the *same* episodes: draw
# episodes, score both on them, subtract, repeat. With scores $s_t$ of training $t$ on the resampled episodes $b$,
#
# $$\Delta_b = \frac{1}{3}\sum_{t=1}^{3} \left( s^{A}_{t}(b) - s^{B}_{t}(b) \right)$$
#
# and the 95 % interval of the $\Delta_b$. We call a difference **clear** if the interval leaves out 0 *and* all three
# trainings agree on the sign.

# %%
pairs = {}
for k in (1, 5):
    for a, b in combinations(NAMES, 2):
        found = percent(over_trainings(own[a, k], own[b, k]))
        each = [100 * (x.miou - y.miou) for x, y in zip(own[a, k], own[b, k])]
        pairs[k, NAMES[a], NAMES[b]] = found, each
        value, low, high = found
        pairs[k, NAMES[b], NAMES[a]] = (-value, -high, -low), [-x for x in each]
by_shots = {k: {key[1:]: entry for key, entry in pairs.items() if key[0] == k} for k in (1, 5)}

# %% tags=["question"]
show(*pictures.matrix({f"K={k}": by_shots[k] for k in (1, 5)}, list(NAMES.values())))

# %%
for k in (1, 5):
    for name in list(NAMES.values())[1:]:
        print(intervals.gain_verdict(f"K={k}, {name} - PANet", *pairs[k, name, "PANet"]))

# %%
for k in (1, 5):
    print(f"K={k}:", intervals.ranking({r["model"]: r["miou"][0] for r in rows if r["shots"] == k}, by_shots[k]))

# %% [markdown]
# ## Why the order changes with five shots
#
# All models learned from one support. At $K = 5$ each [merges the supports by its own rule](GLOSSARY.md#merge-rule), and a rule may produce numbers
# that training has never shown:

# %%
for m, name in NAMES.items():
    print(verdict(f"{name}, K=5 - K=1", percent(over_trainings(own[m, 5], own[m, 1]))))

# %% [markdown]
# PANet takes a *mean* of prototypes. The other three let something grow with $K$: SD-AANet multiplies the gates of all
# supports (notebook 04); ASGNet sums one similarity map for every prototype (05); in HDMNet every support cell spreads one
# unit of attention over the query, and the units add up (06). A hypothesis, then: scale, not information, is lost. Test
# it (seed 0, live). Keep the weights, and exchange each rule for one that gives the same at $K = 1$: average the gates;
# allocate every support's prototypes by themselves and average; divide the attention's sum by $K$.

# %%
warnings.filterwarnings("ignore", message="5 shots, but the weights")  # HDMNet: plain mean of the scene distances
weights = {name: data / "weights" / f"{m}-shapes-fold0.safetensors" for m, name in NAMES.items()}
weights["PANet"] = data / "weights" / "panet-shapes-fold0-short.safetensors"
nets = {name: load_model(path) for name, path in weights.items()}
protocol = Protocol.shapes5i(episodes=episodes)
store = MemoryStore()  # features are computed once
live = {name: evaluate(net, test_set, protocol, shots=(1, 5), cache=store) for name, net in nets.items()}

# %%
changed = {name: nets[name] for name in ("ASGNet", "SD-AANet", "HDMNet")}
few = EpisodeSampler(test_set, protocol, shot=1).batch(0, 8)
before = {name: net(few).logits for name, net in changed.items()}
nets["SD-AANet"].sdpm.query_factor = nets["ASGNet"].shot_merge = "average"
same = [torch.allclose(net(few).logits, before[name], atol=1e-3) for name, net in changed.items()]
outputs = [layer.attention.out for layer in nets["HDMNet"].transformer.match]
hooks = [layer.register_forward_pre_hook(lambda _, given: (given[0] / 5,)) for layer in outputs]
other = {n: evaluate(net, test_set, protocol, shots=(5,), cache=store).scores[5] for n, net in changed.items()}
nets["SD-AANet"].sdpm.query_factor, nets["ASGNet"].shot_merge = "product", "pool"
for hook in hooks:
    hook.remove()
print("K=1 as before:", all(same))

# %%
gains = {name: percent(scores.difference(live[name].scores[5])) for name, scores in other.items()}
for name, scores in other.items():
    more = scores.miou > live[name].scores[1].miou
    print(f"{name}: better than the published rule, beyond the interval: {gains[name][1] > 0}; than K=1: {more}")

# %% tags=["nbval-ignore-output"]
for name, gain in gains.items():
    print(verdict(f"{name}, K=5, other rule - published rule", gain))

# %% [markdown]
# So the $K = 5$ column ranks merge rules that training has not met, at least as much as methods. ASGNet's author
# answers a user who saw the same drop that the five-shot scores come from models trained with five shots.
#
# ## Live
#
# The shipped weights are those of seed 0 (half precision). On a small live sample, the first episodes of the stored list,
# the stored score must lie inside the live interval.

# %% tags=["nbval-ignore-output"]
for name, path in weights.items():
    print(f"{name}: loaded, not trained here; made with {read_note(path).get('command', 'not recorded')}")

# %%
full = EpisodeSampler(test_set, protocol, shot=5).fixed(p["episodes"], 0)
assert full.hash == card.list_hash, "the data of the stored runs was drawn differently"
assert all(entry.lists[0].specs == full.specs[:episodes] for entry in live.values())
for m, name in NAMES.items():
    inside = []
    for k in (1, 5):
        low, high = percent(live[name].scores[k].interval())
        score = 100 * counts[m, 0].scores[k].miou
        inside.append(bool(low < score < high))
        said = f"{name}, K={k}: stored {score:.1f}, live interval {low:.1f} to {high:.1f}"
        assert inside[-1] or episodes < 200, said  # an interval from few episodes is none
    print(f"{name}: the stored scores of these weights lie in the live intervals, K=1 and K=5: {all(inside)}")

# %% [markdown]
# **Your own method** joins here: with `plugin` (a file as in the README) and, if it was trained, `plugin_checkpoint`. What
# has no checkpoint is built on PANet's backbone as it is.

# %%
for mine in models.use(plugin) if plugin else ():
    like = nets["PANet"].config
    net = build_model(mine, backbone=like["backbone"], backbone_options=like["backbone_options"])
    net.backbone.load_state_dict(nets["PANet"].backbone.state_dict())
    if plugin_checkpoint and read_note(plugin_checkpoint)["config"]["name"] == mine:
        net = load_model(plugin_checkpoint)
    nets[mine], live[mine] = net.eval(), evaluate(net, test_set, protocol, shots=(1, 5))

# %% tags=["nbval-ignore-output"]
seen = {}
for name, entry in live.items():
    for k, scores in entry.scores.items():
        value, low, high = percent((scores.miou, *scores.interval()))
        seen.setdefault(f"K={k}, {episodes} episodes", {})[name] = f"{value:.1f} ({low:.1f}–{high:.1f})"
        gain = percent(scores.difference(live["PANet"].scores[k]))
        seen.setdefault(f"K={k}, minus PANet", {})[name] = "{:+.1f} ({:.1f} to {:.1f})".format(*gain)
table(pd.DataFrame(seen))

# %% [markdown]
# ## Training all four
#
# With `retrain = True` each method runs through the notebook `experiment` in a process of its own, two at a time, the
# longest first: the stored parameters, one seed, all 1,000 episodes. Other processors round differently, which may move
# a score by a point or two; so each must fall within 2 points of the range of the stored trainings.


# %%
def train_again(m):
    """One papermill run of `experiment` with the stored parameters; returns what result.json holds."""
    given = stored[m, 0]["parameters"] | {"seed": seed}
    if steps is not None:
        given |= {"pretrain_steps": steps, "episodic_steps": steps, "episodes": episodes}
    return read_result(run_notebook("experiment", f"runs/retrained/{m}-{seed}", given, progress=False))


again = {}
if retrain:
    os.environ["OMP_NUM_THREADS"] = "1"  # two single-threaded processes do more than one with two threads
    with ThreadPoolExecutor(2) as two:
        order = ("hdmnet", "sdaanet", "asgnet", "panet")
        again = dict(zip(order, two.map(train_again, order)))

# %%
misses = []
for m, result in again.items():
    for k in (1, 5):
        score, each = result["scores"][str(k)]["miou"], [100 * s.miou for s in own[m, k]]
        print(
            f"{NAMES[m]:9s} K={k}: {score:.1f}; stored {min(each):.1f} to {max(each):.1f}; {result['duration_s']:.0f} s"
        )
        if not min(each) - 2 <= score <= max(each) + 2:
            misses.append(f"{NAMES[m]}, K={k}: {score:.1f}, stored {min(each):.1f} to {max(each):.1f}")
if again and steps is None:
    assert {r["list_hash"] for r in again.values()} == {card.list_hash}, "scored on other episodes than the stored runs"
    assert not misses, "more than 2 points outside the range of the stored trainings: " + "; ".join(misses)
said = "with the stored budget" if steps is None else f"a trial of {steps} steps, not compared with the stored range"
print(said if again else "nothing was trained here (retrain = False)")

# %% [markdown]
# ## Harder pictures
#
# One number hides *when* a method works. Shapes-5i has a knob for each difficulty: `gap` (light, size and pose differ
# between support and query), `parts` (an object has several textures), `area` (small objects), `co_occurrence` (the
# background is full of classes known from training). The models are those of the table: trained on standard pictures, met
# with harder ones. Each point: three trainings, the same 300 episodes.

# %%
hard = json.loads((data / "results" / "comparison-knobs.json").read_text())
show(*pictures.knobs(hard["rows"], NAMES))

# %% [markdown]
# In words, $K = 1$. "Overlap": the method's two intervals touch, so its change may be chance.

# %%
print("\n".join(intervals.knob_verdicts(hard["rows"], NAMES)))

# %%
for knob, value in dict.fromkeys((row["knob"], row["value"]) for row in hard["rows"]):
    here = [row for row in hard["rows"] if (row["knob"], row["value"]) == (knob, value)]
    best = max(here, key=lambda row: row["miou"][0])
    print(f"{knob} {value:g}: best {NAMES[best['method']]} {best['miou'][0]:.1f}")

# %% [markdown]
# Beware of points: who starts higher has more to lose. And these are models that never met the difficulty; trained on
# it, they may order differently (`train_knobs` of the notebook `experiment`).
#
# ## What it costs
#
# A multiply-accumulate (MAC) is one product added to a sum. A convolution of $C_i$ to $C_o$ channels with a $k \times k$
# kernel and $h \times w$ outputs needs
#
# $$\mathrm{MACs} = k^2 \, C_i \, C_o \, h \, w$$
#
# `costs.macs` counts those of convolutions, matrix products and attention while a model runs.

# %%
eight = EpisodeSampler(test_set, protocol, shot=5).batch(0, 8)
one, found, used = eight.select([0]), {}, {}
for name, net in nets.items():
    total, learned = costs.parameters(net)
    found[name] = {"parameters": f"{total:,}", "learned": f"{learned:,}"}
    for k in (1, 5):
        used[name, k] = costs.macs(net, one.shots(k))
        found[name][f"GMACs, K={k}"] = f"{used[name, k].total / 1e9:.2f}"
table(pd.DataFrame(found).T)

# %% tags=["nbval-ignore-output"]
for name in nets:
    counted, rest = used[name, 1].by_operator, used[name, 1].uncounted
    share = 100 * counted["convolution"] / used[name, 1].total
    largest = ", ".join(sorted(rest, key=rest.get, reverse=True)[:5])
    print(f"{name:9s} convolutions {share:.0f} %; not counted, largest first: {largest}")

# %% tags=["nbval-ignore-output"]
spent = {}
for name, net in nets.items():
    for k in (1, 5):
        seconds = costs.seconds(net, eight.shots(k), repeats=1) / 8
        spent.setdefault(f"ms an episode, K={k}", {})[name] = round(1000 * seconds, 1)
        spent.setdefault(f"MB at once, K={k}", {})[name] = round(costs.peak_memory(net, one.shots(k)) / 2**20, 1)
table(pd.DataFrame(spent))

# %%
level = {r["model"]: r["miou"] for r in rows if r["shots"] == 1}
level |= {n: percent((e.scores[1].miou, *e.scores[1].interval())) for n, e in live.items() if n not in level}
points = {n: (used[n, 1].total / 1e9, level[n], costs.parameters(net)[1]) for n, net in nets.items()}
show(*pictures.trade(points, "GMACs an episode, K=1"))

# %% [markdown]
# At the size of the papers (width 256) the picture changes: the backbone grows more than what learns.

# %%
for m, backbone in (("panet", "vgg16"), ("asgnet", "resnet50"), ("sdaanet", "resnet50"), ("hdmnet", "resnet50")):
    total, learned = costs.published_parameters(m, backbone)
    print(f"{NAMES[m]:9s} {backbone:9s} {total:>11,} in all, {learned:>11,} learned")

# %% [markdown]
# ## Look at them
#
# An average of 1,000 episodes shows no episode. The rule picks for each method the live episode in which its IoU leads
# the best other method by most, and the one in which it falls behind by most; nothing was chosen by hand. White: the
# true outline.

# %%
ious = {name: entry.scores[1].episode_iou() for name, entry in live.items()}
picks = intervals.contrasts(ious)
specs = live["PANet"].lists[0].shots(1).specs


def gallery(kind, what):
    """Draw the picked episodes of one kind, one for each method."""
    chosen = [picks[name][kind] for name in nets]
    episode = EpisodeSampler(test_set, protocol, shot=1).build([specs[i] for i in chosen])
    masks = {name: net(episode).masks() for name, net in nets.items()}
    labels = [f"{name}\n{kind}" for name in nets]
    show(*pictures.side_by_side(episode, masks, {n: v[chosen] for n, v in ious.items()}, labels, what), photo=True)


# %% tags=["nbval-ignore-output"]
gallery("wins", "For each method the episode in which it leads the others by most.")

# %% tags=["nbval-ignore-output"]
gallery("fails", "For each method the episode in which it falls behind the best other one by most.")

# %%
best = pd.DataFrame(ious).idxmax(axis=1).value_counts(normalize=True)
print("every method is the best one in some episode:", set(best.index) == set(nets))
print("no method is the best one in 95 % of the episodes:", bool(best.max() < 0.95))

# %% [markdown]
# ## Try it
#
# Your own contest: draw on the support, or take its true mask, and move the query. Can you find a drawing that turns the
# order of the table upside down? Start with two strokes on the object and none on the background, then add one there.

# %%
from fsslib.widgets import compare_methods

compare_methods(nets)

# %% [markdown]
# ## What the papers report
#
# mIoU in percent, mean of four folds; [folds and FB-IoU](GLOSSARY.md#fb-iou) are in `data/published.json`. Only values that were seen in a
# source, which the last columns name (mostly tables of later papers); `S2` is a source that quotes the paper. What stands
# below the line uses backbones that have met the test classes before.

# %%
published = json.loads((data / "published.json").read_text())["comparison"]


def report(rows):
    """Rows of a published table; foundation models last, behind a line."""
    shown = [
        {
            "method": r["method"],
            "backbone": r["backbone"],
            **{f"K={k}": r["miou"].get(k, "") for k in "15"},
            "remark": r.get("note", ""),
            "source": r["source"],
            "tag": r["tag"],
        }
        for r in sorted(rows, key=lambda r: r.get("saw_test_concepts", False))
    ]
    line = sum(not r.get("saw_test_concepts", False) for r in rows)
    return table(pd.DataFrame([*shown[:line], dict.fromkeys(shown[0], "—"), *shown[line:]]).astype(str), index=False)


report(published["pascal5i"])

# %%
report(published["coco20i"])

# %% [markdown]
# Read down such a column and you compare more than methods. What four of the codes do differently:

# %%
cards = {name: Protocol.published(m).as_dict() for m, name in NAMES.items()}
choices = ["queries", "novel_pixels", "void", "input_size", "train_size", "resize", "label_size", "area_filter"]
choices += ["episodes", "bn", "selection", "counting"]
habits = {name: {c: cards[name][c] for c in choices} | published["habits"][m] for m, name in NAMES.items()}
for name, entry in habits.items():
    entry["episodes"] = f"{entry['episodes']} x {len(cards[name]['seeds'])} lists"
    entry["train_size"] = entry["train_size"] or entry["input_size"]
table(pd.DataFrame(habits).astype(str))

# %% [markdown]
# `test_fold` means that the checkpoint was chosen on the classes it is scored on; `drop` that training images with a novel
# class were removed, while the other three call it background. How large can such a choice be? Reported cases, in mIoU:

# %%
table(pd.DataFrame(published["effects"])[["what", "shots", "from", "to", "source"]].astype(str), index=False)

# %% [markdown]
# Many steps from one row of the tables above to the next are smaller than these.

# %%
for key, place in published["sources"].items():
    print(f"{key}: {place}")

# %% [markdown]
# ## Summary
#
# * Compare scores only if data, budget, episodes and counting agree. Here the notebook itself refuses otherwise.
# * Episodes and trainings are two sources of chance. A difference is clear if neither can explain it.
# * A five-shot score of a model trained with one shot tests its merge rule: the three methods that fell rise above their
#   one-shot score when the rule keeps its scale (seed 0, the only one in which HDMNet falls).
# * Rankings depend on the difficulty and on the budget. This one holds for Shapes-5i, fold 0, a small backbone and
#   4,000 steps; it says nothing about photographs.
#
# ## Exercises
#
# Write each function in the cell below its question. `check` needs less than a second, names the idea that is
# missing, and may be asked as often as you like.

# %%
from fsslib.labs import check

# %% [markdown] tags=["exercise"]
# ### 1 · `is_clear`
#
# *Difficulty ●○○ · importance ●●● · 5 minutes.* Is a paired difference clear, as defined above? `interval` is a tuple of
# three floats (value, low, high), `trainings` a list of one float for each training.
#
# <details><summary>Hint</summary>A loss can be as clear as a gain.</details>


# %% tags=["solution"]
def is_clear(interval, trainings):
    """(value, low, high) and the difference of every training -> True or False."""
    value, low, high = interval
    return low * high > 0 and all(x * value > 0 for x in trainings)


# %%
check(is_clear)

# %%
print("as in the matrix:", all(is_clear(*entry) == intervals.clear(*entry) for entry in pairs.values()))

# %% [markdown] tags=["exercise"]
# ### 2 · `conv_macs`
#
# *Difficulty ●○○ · importance ●●○ · 10 minutes.* Count the MACs of a `torch.nn.Conv2d` from its attributes, an int;
# `height` and `width` are those of its output. Kernels need not be square, and `layer.groups` divides the channels. One
# line is missing.
#
# <details><summary>Hint</summary>How many products make one output value?</details>


# %% tags=["solution"]
def conv_macs(layer, height, width):
    """A Conv2d and two ints, the size of its output -> int: multiply-accumulates for one image."""
    ### BEGIN SOLUTION
    products = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
    ### END SOLUTION
    return products * layer.out_channels * height * width


# %%
check(conv_macs)

# %%
found = []
with torch.nn.modules.module.register_module_forward_hook(lambda layer, _, y: found.append((layer, y))):
    nets["PANet"](one.shots(1))
mine = sum(len(y) * conv_macs(x, *y.shape[-2:]) for x, y in found if isinstance(x, torch.nn.Conv2d))
print("all of PANet's convolutions, as counted above:", mine == used["PANet", 1].by_operator["convolution"])

# %% [markdown] tags=["exercise"]
# ### 3 · `miou`
#
# *Difficulty ●●○ · importance ●●● · 15 minutes.* mIoU from counts. `table` (E, 2, 3) long: for each episode background
# and object, of each true positives, false positives and false negatives. `classes` (E, 1) long. A class without a
# pixel in its union is left out. The result is a float.
#
# <details><summary>Hint</summary>Sum, divide, average: in this order, and over what each time?</details>


# %% tags=["solution"]
def miou(table, classes):
    """(E, 2, 3) long counts and (E, 1) long classes -> float: mean over the classes of summed intersection / union."""
    sums = torch.stack([table[classes[:, 0] == c, 1].sum(0) for c in classes.unique()])
    return float((sums[:, 0] / sums.sum(1)).nanmean())


# %%
check(miou)

# %%
scores = own["panet", 1][0]
mine = miou(torch.from_numpy(scores.table), torch.from_numpy(scores.classes))
print("the stored score:", abs(mine - scores.miou) < 1e-5, "- the mean of IoUs:", abs(mine - scores.image_iou) < 1e-5)

# %% [markdown] tags=["exercise"]
# ### 4 · `fair_comparison`
#
# *Difficulty ●●● · importance ●●● · 15 minutes.* A new paper leads ASGNet by one point at $K=5$ and copies ASGNet's
# number from its paper. What do you check before you believe it? Name two things that have to be equal and two kinds of
# chance, in 25 words or more, with a number from this notebook.
#
# <details><summary>Hint</summary>How far do the three trainings of one method lie apart?</details>


# %% tags=["solution"]
def fair_comparison():
    """-> your answer, a text."""
    return """Equal: the protocol (folds, episodes, how the checkpoint was chosen) and the shots of the training; one-shot
    weights cost ASGNet 15 points at K=5. Chance: other episodes, so ask for a paired interval, and other trainings: those of
    HDMNet at K=5 go from 47.7 to 65.0, so one point from one seed proves nothing."""


# %%
check(fair_comparison)

# %% [markdown] tags=["marking"]
# **Marking.** `is_clear`, `conv_macs`, `miou`: the check decides. *Known wrong paths*: only gains count as clear; the
# interval alone or the trainings alone are asked; groups are forgotten; operations instead of MACs; the mean of the
# episodes' IoUs, or one sum over all classes.
#
# `fair_comparison`, four points: two equal conditions (data and fold, backbone, training shots, episodes and their list,
# counting, selection of the checkpoint); both kinds of chance (episodes, trainings); a number as a yardstick. *Known wrong
# paths*: "the intervals overlap, so nothing is proved" (unpaired intervals do not answer this); "more episodes settle it"
# (they leave the training seed open); "ASGNet has fewer parameters" (a cost, no error of the comparison).

# %% [markdown]
# **Read next**: `experiment`, the report with your own parameters; notebooks 05 and 06 for ASGNet and HDMNet from inside.
#
# **References**: K. Wang et al., *PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment*, ICCV 2019
# (github.com/kaixin96/PANet). G. Li et al., *Adaptive Prototype Learning and Allocation for Few-Shot Segmentation* (ASGNet),
# CVPR 2021 (github.com/Reagan1311/ASGNet). Q. Zhao et al., *A Self-Distillation Embedded Supervised Affinity Attention Model
# for Few-Shot Segmentation* (SD-AANet), arXiv 2108.06600 (github.com/cv516Buaa/SD-AANet). B. Peng et al., *Hierarchical
# Dense Correlation Distillation for Few-Shot Segmentation* (HDMNet), CVPR 2023 (github.com/Pbihao/HDMNet).
