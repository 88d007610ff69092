# ---
# jupyter:
#   title: Self-distillation
#   minutes: 0.5
# ---

# %% [markdown]
# # 02 · Self-distillation: a teacher made of the answer
#
# A support prototype has to stand for an object that it never saw. In training we know the query's mask, so we know
# which prototype would have been right: the query's own. SD-AANet [lets it *teach* the support's prototype](GLOSSARY.md#self-distillation), and lets
# the support decide which channels count. This notebook takes that module (SDPM) apart and measures every piece.
#
# **What you will learn**
#
# * why two prototypes of the same class differ, and which distance notices it;
# * [what the channel gate does](GLOSSARY.md#channel-gate) to support and query, and why five shots can be worse than one;
# * student, teacher, temperature, and four places where code and paper part;
# * what ["the teacher is not detached"](GLOSSARY.md#detached) means for the gradients;
# * why prototypes can move together while the score stays where it is.
#
# **What it needs**: nothing but this repository and notebook 01. No download, no GPU, about half a minute on two cores.
# The weights are *loaded, not trained here*; three short trainings start from them.

# %% tags=["parameters"]
fold = 0
seed = 0
episodes = 40
train_steps = 40

# %%
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as pixels

import fsslib
from fsslib import EpisodeSampler, Protocol, build_model, load_dataset, load_model, plots
from fsslib.analysis.intervals import mean_interval, percent, verdict
from fsslib.checkpoints import read_note, shipped
from fsslib.data.episodes import EpisodeSpec
from fsslib.data.transforms import MEAN, STD
from fsslib.losses import distillation
from fsslib.metrics import FewShotIoU
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.ops import masked_pool, resize
from fsslib.plots import distillation as pictures
from fsslib.plots.common import differences, strip
from fsslib.plots.display import show
from fsslib.training import Schedule, train_episodes

# %% tags=["nbval-ignore-output"]
print(f"fsslib {fsslib.__version__}, torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} thread(s)")
path = shipped("sdaanet", "shapes", fold)
print(f"{path.name}: loaded, not trained here; made with: {read_note(path).get('command', 'not recorded')}")

# %%
torch.set_grad_enabled(False)
net = load_model(path)
net.explain = True  # keep the intermediate results in Prediction.maps
net.backbone = CachedBackbone(net.backbone, max_bytes=2**29)  # it is frozen: every picture goes through it once
test_set = load_dataset("shapes", fold=fold, split="test", val_classes=0)
sampler = EpisodeSampler(test_set, Protocol.shapes5i(), shot=5)
specs = sampler.fixed(episodes, seed).specs
lots = [sampler.build(specs[i : i + 20]) for i in range(0, episodes, 20)]
print(f"{episodes} episodes of novel classes, {lots[0].shot} supports each")

# %% [markdown]
# ## Two prototypes of one class
#
# SD-AANet pools on the grid of the features: the mask comes down to it, with soft edges. Let $t$ be the prototype of
# the query under its *true* mask, $p$ the support's. How far apart are they, in cosine distance $1 - \cos(p, t)$? For
# comparison we pool the very same picture, its mirror image, and a support of another class.


# %%
def prototype(features, masks):
    """Mean of (B, C, h, w) features under (B, H, W) masks: (B, C)."""
    return masked_pool(features, resize((masks == 1).float(), features.shape[-2:]))


def backbone(images):
    found = net.backbone(images, ["layer2", "layer3"])
    return torch.cat([found["layer3"], found["layer2"]], 1)


def distance(a, b):
    return 1 - F.cosine_similarity(a, b, dim=-1)


# %%
few = lots[0].shots(1)
query, mask = few.query_images, few.query_masks
support, support_mask = few.support_images[:, 0, 0], few.support_masks[:, 0, 0]
n, kind = few.batch, few.classes[:, 0].tolist()
stranger = [next(j % n for j in range(i + 1, i + n) if kind[j % n] != kind[i]) for i in range(n)]
others = {"the same picture": (query, mask), "its mirror image": (query.flip(-1), mask.flip(-1))}
others |= {"same class": (support, support_mask), "other class": (support[stranger], support_mask[stranger])}

spaces = {"backbone": (lambda f: f, lambda f: f), "projected": (net.down_query, net.down_supp)}
table = {name: {} for name in others}
for space, (own, theirs) in spaces.items():
    t = prototype(own(backbone(query)), mask)
    for name, (image, its_mask) in others.items():
        table[name][space] = distance(prototype(theirs(backbone(image)), its_mask), t)

# %% tags=["nbval-ignore-output"]
for name, row in table.items():
    print(f"{name:17s} backbone {row['backbone'].mean().abs():.2f}   projected {row['projected'].mean():.2f}")

# %%
means, itself = [float(row["backbone"].mean()) for row in table.values()], table["the same picture"]["projected"]
print("in the backbone's features, the four are in this order:      ", means == sorted(means))
print("projected, the same picture is further than 0.1 from itself:", bool(itself.mean() > 0.1))

# %%
typical = table["same class"]["backbone"]
i = int((typical - typical.median()).abs().argmin())
near = {name: f"{row['backbone'][i].abs():.2f}" for name, row in table.items()}
row = [("query", plots.overlay(query[i], mask[i]))]
row += [(f"{name}\n{near[name]}", plots.overlay(x[i], its_mask[i])) for name, (x, its_mask) in others.items()]
alt = f"A query and what its prototype is compared with, masks outlined. Cosine distances in the backbone: {near}."
show(*strip(row, alt, side=1.3), photo=True)

# %% [markdown]
# The backbone orders them as it should. The *projected* column holds a surprise: SD-AANet sends support and query
# through two different 1x1 convolutions, `down_supp` and `down_query`. Even the **same** picture under the **same**
# mask gets two prototypes. So $p$ and $t$ differ for two reasons: the pictures do, and the two projections do. That
# returns at the end.
#
# ### A gap that we can turn
#
# In Shapes-5i the knob `gap` divides each class into two domains that differ in light, size, rotation and texture
# phase. We ask the *same* queries twice: with a support of their own domain, and with one of the other.


# %%
def gap_specs(data, count):
    """For each query of domain 1: an episode with a support of domain 0 and one of domain 1."""
    draw, pairs = np.random.default_rng(seed), {"other domain": [], "same domain": []}
    for _ in range(count):
        c = int(draw.choice(data.classes))
        asked, near = draw.permutation(data.images_of(c, domain=1))[:2].tolist()
        far = int(draw.choice(data.images_of(c, domain=0)))
        pairs["other domain"].append(EpisodeSpec((c,), ((far,),), asked))
        pairs["same domain"].append(EpisodeSpec((c,), ((near,),), asked))
    return pairs


def look(batches):
    """Scores and, per episode, the distances of p and t: in the backbone's features, and of S and t behind SDPM."""
    meter, rows = FewShotIoU(), []
    for e in batches:
        said = net(e)
        meter.update(said.masks(), e.query_masks, e.classes)
        p = prototype(backbone(e.support_images[:, 0, 0]), e.support_masks[:, 0, 0])
        raw = distance(p, prototype(backbone(e.query_images), e.query_masks))
        rows.append(torch.stack([raw, distance(said.maps["students"][:, 0], said.maps["query_prototype"])]))
    return meter.compute(), torch.cat(rows, 1)


# %%
gaps = {}
for gap in (0.0, 0.5, 1.0):
    data = load_dataset("shapes", fold=fold, split="test", val_classes=0, knobs={"gap": gap})
    maker, pairs = EpisodeSampler(data, Protocol.shapes5i(), shot=1), gap_specs(data, episodes)
    for name, listed in pairs.items():
        gaps[gap, name] = look(maker.build(listed[i : i + 20]) for i in range(0, episodes, 20))

# %% tags=["nbval-ignore-output"]
panels = {"distance, backbone": {}, "distance, S and t": {}, "mIoU, %": {}}
for (gap, name), (scores, apart) in gaps.items():
    values = [mean_interval(apart[0]), mean_interval(apart[1]), percent((scores.miou, *scores.interval()))]
    for title, value in zip(panels, values):
        panels[title].setdefault(name, {})[gap] = value
show(*pictures.curve_panels(panels, "gap"))

# %%
(far, far_apart), (near, near_apart) = (gaps[1.0, f"{name} domain"] for name in ("other", "same"))
print("at gap 1, the support from the other domain instead of the same one:")
print("  backbone distance larger, beyond the interval:", mean_interval((far_apart - near_apart)[0])[1] > 0)
print("  mIoU lower, beyond the interval:              ", far.difference(near)[2] < 0)

# %% [markdown]
# The intervals in the figure are wide because episodes differ a lot; the paired comparison is sharper. Compare the
# first two panels: the distance *inside the model* ($S$ and $t$: see below) hardly tells the domains apart, the one in
# the backbone does. And not all of the loss is a gap: "same domain" falls, too, since domain 1 moves away from what the
# network was trained on.
#
# Which ingredient hurts? Change only the support: its light, its angle, its size. (Turning and shrinking also leave a
# flat border, so part of their cost may be that.)


# %%
def light(image, mask):
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    warm = (image * std + mean) * torch.tensor([0.5, 0, -0.5]).exp().view(3, 1, 1)
    return (warm.clamp(0, 1) - mean) / std, mask


def moved(angle, scale):
    def change(image, mask):
        turned = pixels.affine(image, angle, [0, 0], scale, [0, 0], interpolation=2)
        return turned, pixels.affine(mask, angle, [0, 0], scale, [0, 0], fill=255)

    return change


def changed(e, change):
    image, mask = change(e.support_images[:, 0, 0], e.support_masks[:, 0, 0])
    return replace(e, support_images=image[:, None, None], support_masks=mask[:, None, None])


changes = {"warm light": light, "turned by 45 degrees": moved(45, 1.0), "60 % of the size": moved(0, 0.6)}
plain = look(e.shots(1) for e in lots)
altered = {name: look(changed(e.shots(1), change) for e in lots) for name, change in changes.items()}

# %% tags=["nbval-ignore-output"]
for name, (scores, apart) in altered.items():
    further = mean_interval((apart - plain[1])[0])
    print(verdict(f"{name:20s} mIoU", percent(scores.difference(plain[0]))), f"| distance {further[0]:+.2f}")

# %%
costs = {name: scores.difference(plain[0]) for name, (scores, _) in altered.items()}
print(
    "the smaller support costs more than the turned one:",
    costs["60 % of the size"][0] < costs["turned by 45 degrees"][0],
)

# %% [markdown]
# ## The channel gate
#
# Not every channel is worth comparing. SDPM lets the support say which: a small network looks at $p_k$ and opens or
# closes every channel, between 0 and 1. Half of the original is kept, so that no channel is lost:
#
# $$a_k = \sigma(W_2 \, \mathrm{ReLU}(W_1 p_k + b_1) + b_2) \qquad g_k = \frac{a_k + 1}{2} \qquad S_k = g_k \, p_k$$

# %%
maps = net(few).maps
p = maps["pooled"]  # (episodes, shots, channels)
first, _, second, _ = net.sdpm.gate
hidden = F.relu(F.linear(p, first.weight.flatten(1), first.bias))
a = torch.sigmoid(F.linear(hidden, second.weight.flatten(1), second.bias))
g = (a + 1) / 2
print("gate a ", tuple(a.shape), "as in the library:", torch.allclose(a, maps["gate"], atol=1e-5))
print("student", tuple(p.shape), "as in the library:", torch.allclose(g * p, maps["students"], atol=1e-5))

# %%
gates = torch.cat([net(e.shots(1)).maps["gate"][:, 0] for e in lots])
labels = [test_set.names[int(c)] for e in lots for c in e.classes[:, 0]]
classes = sorted(set(labels))
by_class = torch.stack([gates[[x == c for x in labels]].mean(0) for c in classes])
print("most channels are damped on average (a below 1/2):", bool((gates.mean(0) < 0.5).float().mean() > 0.5))
print("channels differ more than episodes of one channel:", bool(gates.mean(0).std() > 2 * gates.std(0).mean()))
print(
    "classes differ less than a quarter of what channels do: ", bool(by_class.std(0).mean() < gates.mean(0).std() / 4)
)

# %% tags=["nbval-ignore-output"]
show(*pictures.gate_channels(gates, labels))

# %% [markdown]
# The gate looks like a selection of channels *per class*. Measured, it is nearly the same selection for every class.
# Does the support's own opinion matter, then? Swap the gate: take another episode's; take one number for all channels;
# open it completely ($a = 1$).


# %%
def meter_of(predict, batches):
    meter = FewShotIoU()
    for e in batches:
        meter.update(predict(e), e.query_masks, e.classes)
    return meter.compute()


swaps = {"another episode's gate": lambda a: a.roll(1, 0), "open, a = 1": torch.ones_like}
swaps["one number for all"] = lambda a: torch.full_like(a, float(gates.mean()))
swapped = {}
for name, change in swaps.items():
    hook = net.sdpm.gate.register_forward_hook(lambda module, p, a, change=change: change(a))
    swapped[name] = meter_of(lambda e: net(e.shots(1)).masks(), lots)
    hook.remove()

# %% tags=["nbval-ignore-output"]
show(*differences({f"{name} - own": percent(s.difference(plain[0])) for name, s in swapped.items()}))

# %%
loss = {name: 100 * (plain[0].miou - s.miou) for name, s in swapped.items()}
print("another episode's gate costs less than 3 points:", loss["another episode's gate"] < 3)
print("one number for all costs less than 3 points:    ", loss["one number for all"] < 3)
print("an open gate costs more than both:              ", loss["open, a = 1"] == max(loss.values()))

# %% [markdown]
# In these weights (one training, 32 channels) the gate does not choose. It *scales*, and the decoder has grown used to
# that scale: a single number in place of all gates does as well, while an open gate, which changes the scale, is
# expensive. Hold on to the word scale.
#
# ## What the gate does to the query
#
# The query is multiplied, too. The authors' code [applies the gates of all](GLOSSARY.md#merge-rule) $K$ supports **one after the other**, and
# then their average once more; the paper speaks of an average only.
#
# $$\text{code: } F_q \leftarrow F_q \cdot \prod_{k=1}^{K} g_k \cdot \frac{\bar g + 1}{2} \qquad
# \text{paper: } F_q \leftarrow F_q \cdot \bar g \qquad \bar g = \frac{1}{K} \sum_k g_k$$

# %%
factor = g.prod(1) * (g.mean(1) + 1) / 2
print("query_factor='product', as in the library:", torch.allclose(factor, maps["query_factor"], atol=1e-5))


KS = (1, 2, 5)


def by_shots(*rules):
    """(rule, K) -> scores and the mean factor on the query's channels, for the first K supports of every episode."""
    found = {(rule, k): (FewShotIoU(), []) for rule in rules for k in KS}
    for e in lots:
        query, support = net.features(e)  # once for all rules and shots
        for (rule, k), (meter, factors) in found.items():
            net.sdpm.query_factor = rule
            first = {name: value[:, 0, :k] for name, value in support.items()}
            out = net.segment(query, first, e.support_masks[:, 0, :k], None, False)
            meter.update(out.logits.argmax(1), e.query_masks, e.classes)
            factors.append(out.maps["query_factor"].mean(1))
    net.sdpm.query_factor = "product"
    return {key: (meter.compute(), mean_interval(torch.cat(factors))) for key, (meter, factors) in found.items()}


# %% [markdown]
# The weights were trained with one shot and `"product"`. We change the rule and $K$, nothing else.

# %%
shots = by_shots("product", "mean")
size = {key: value[1][0] for key, value in shots.items()}
print("product: from K=1 to K=5 the factor falls to less than a third:", size["product", 5] < size["product", 1] / 3)
print("mean: it stays within 5 %:", abs(size["mean", 5] / size["mean", 1] - 1) < 0.05)

# %% tags=["nbval-ignore-output"]
panels = {"mean factor on the query": {}, "mIoU, %": {}}
for (rule, k), (scores, spread) in shots.items():
    panels["mean factor on the query"].setdefault(rule, {})[k] = spread
    panels["mIoU, %"].setdefault(rule, {})[k] = percent((scores.miou, *scores.interval()))
show(*pictures.curve_panels(panels, "shots K", integer=True, limits={"mean factor on the query": (0, 1)}))
for rule, k in (("product", 1), ("product", 2), ("mean", 1)):
    print(verdict(f"{rule}, K=5 - K={k}", percent(shots[rule, 5][0].difference(shots[rule, k][0]))))

# %%
scores = {key: value[0] for key, value in shots.items()}
print("product: five shots are worse than two, paired:", scores["product", 5].difference(scores["product", 2])[2] < 0)
print("five shots: mean beats product, paired:        ", scores["mean", 5].difference(scores["product", 5])[1] > 0)
print("one shot: they are within three points:        ", abs(scores["mean", 1].miou - scores["product", 1].miou) < 0.03)

# %% [markdown]
# Every factor is below 1, so five of them leave about a tenth of the query. A network trained with one shot has never
# seen features that faint. Switching to `"mean"` at test time repairs it without any training: the factor no longer
# depends on $K$, although it is not the one of training. Exercise 1 looks for one that is right on both counts.
#
# ## Student and teacher
#
# In training the query's mask is known, and so is $t$. [The teacher stands halfway](GLOSSARY.md#teacher-and-student) between $t$ and the student. Both
# become distributions over the channels, at a temperature $\tau = 5$:
#
# $$T_k = \frac{t + S_k}{2} \qquad P = \mathrm{softmax}(T_k / \tau) \qquad Q = \mathrm{softmax}(S_k / \tau)$$

# %%
S, t = maps["students"], maps["query_prototype"]
T = (t[:, None] + S) / 2
print("teacher as in the library:", torch.allclose(T, maps["teacher"], atol=1e-5))
rows = {f"temperature {tau}": ((S[i, 0] / tau).softmax(0), (T[i, 0] / tau).softmax(0)) for tau in (0.2, 1, 5, 20)}
for title, (student, _) in rows.items():
    entropy = float(-(student * student.log()).sum() / np.log(len(student)))
    print(f"{title:15s} at least 99 % of the largest possible entropy: {entropy > 0.99}")

# %% tags=["nbval-ignore-output"]
show(*pictures.distributions(rows))

# %% [markdown]
# A high temperature lets small channels speak. It was invented for the outputs of a classifier (*logits*), which are
# larger. A prototype's values are around 1 or below: at $\tau = 5$ both distributions are almost uniform. The loss is
# a Kullback-Leibler divergence:
#
# $$L_{KD} = 0.9 \, \tau^2 \, \frac{1}{K C} \sum_{k, c} P_c \, (\log P_c - \log Q_c)$$
#
# $\tau^2$ makes up for gradients that shrink like $1/\tau^2$. A divergence is a *sum* over channels; the code averages
# over them, too (`mean="elements"`).

# %%
tau, channels = 5.0, S.shape[-1]
P, Q = (T / tau).softmax(-1), (S / tau).softmax(-1)
kd = 0.9 * tau**2 * (P * (P.log() - Q.log())).mean()
library = distillation(S, P.log())
print("as in the library:", torch.isclose(kd, library, rtol=0.01).item())
ratio = distillation(S, P.log(), mean="prototypes") / library
print(f"a sum over the channels is {ratio:.0f} times larger; channels: {channels}")

# %% [markdown]
# For nearly flat distributions the divergence is half the variance of the difference, and $\tau$ drops out:
#
# $$L_{KD} \approx \frac{0.9}{2C} \, \mathrm{Var}_c(T - S) = \frac{0.9}{8C} \, \mathrm{Var}_c(t - S)$$
#
# In effect, this distillation is a squared *Euclidean* distance of raw prototypes, each less its mean over the channels. It can be made small by making both
# prototypes **short**. Flatness also decides whether code and paper differ: the paper averages two *distributions*.

# %%
flat = 0.9 / (8 * channels) * (t[:, None] - S).var(-1, unbiased=False).mean()
print("the formula for flat distributions is right within 10 %:", abs(float(flat / kd) - 1) < 0.1)
for tau in (5.0, 0.05):
    both = ((t[:, None] / tau).softmax(-1) + (S / tau).softmax(-1)) / 2
    paper = float(distillation(S, both.log(), temperature=tau))
    code = float(distillation(S, (T / tau).log_softmax(-1), temperature=tau))
    print(f"temperature {tau}: both teachers give the same loss within 10 %: {abs(paper / code - 1) < 0.1}")

# %% [markdown]
# Where they part, and which option of `SDAANet` chooses:
#
# | option | code (default) | paper |
# |---|---|---|
# | `teacher` | `"prototypes"` | `"distributions"` |
# | `teacher_query`: $t$ is pooled | `"original"`: before the gate | `"reweighted"`: behind it |
# | `temperature`, `kd_factor`, `kd_mean` | 5, 0.9, `"elements"` | 1, 1, `"prototypes"` |
# | `detach_teacher` | `False` | `True`: it guides |
#
# The column *paper* follows public summaries of its text; that its teacher is detached is our reading of "guides".
#
# ## Who moves?
#
# A teacher is usually fixed. This one is not detached: the gradient of the loss also reaches $t$, and the student a
# second time through its half of the teacher. Take the gradients by the features of query and support.


# %%
def pulls(detach):
    """Norms of the gradients of kd by the reduced features of query and support."""
    net.sdpm.detach_teacher = detach
    query, support = net.features(few)
    f_q, f_k = query["reduced"].requires_grad_(), support["reduced"][:, 0].requires_grad_()
    with torch.enable_grad():
        own = {"reduced": f_k, "deep": support["deep"][:, 0]}
        loss = net.segment(query, own, few.support_masks[:, 0], few.query_masks, True).losses["kd"]
        found = torch.autograd.grad(loss, (f_q, f_k), materialize_grads=True)
    net.sdpm.detach_teacher = False
    return [float(x.norm()) for x in found]


# %%
free, fixed = pulls(False), pulls(True)
print("not detached: the query gets a gradient:", free[0] > 0, " the support:", free[1] > 0)
print("detached:     the query gets a gradient:", fixed[0] > 0, " the support:", fixed[1] > 0)
print(f"the support's is {fixed[1] / free[1]:.1f} times as strong when the teacher is detached")

# %% [markdown]
# Why twice? The loss depends on $T - S = (t - S)/2$. Detached, only the student moves: the slope by $S$ is $-1$. Not
# detached, the teacher comes along: $-1/2$ by $S$, $+1/2$ by $t$. So the two prototypes *attract each other*, and
# `down_query` is trained to be easy to imitate.
#
# ## How big is it?
#
# $L = L_{main} + L_{aux} + 50 \, L_{KD} + 0.5 \, L_{saam}$ (masks and coarser masks: notebook 04; the last: 03). A
# share of the loss says little: what moves weights is the gradient. Compare both, on what distillation can reach: the
# projections and the gate.


# %%
def parts_of(model, batch):
    """The weighted terms of the loss, and the norms of their gradients on what distillation can reach."""
    reach = [*model.down_query.parameters(), *model.down_supp.parameters(), *model.sdpm.parameters()]
    sizes, norms = {}, {}
    with torch.enable_grad():
        losses = model.losses(batch)
        for name, weight in model.weights.items():
            term = weight * losses[name]
            found = torch.autograd.grad(term, reach, retain_graph=True, materialize_grads=True)
            sizes[name], norms[name] = float(term.detach()), float(torch.cat([x.flatten() for x in found]).norm())
    return sizes, norms


train_set = load_dataset("shapes", fold=fold, split="train", val_classes=0)
batches = EpisodeSampler(train_set, Protocol.shapes5i(), shot=1, seed=seed)

# %%
torch.manual_seed(seed)
options = {name: net.config[name] for name in ("width", "scales", "dropout")}
untrained = build_model("sdaanet", backbone=net.backbone, **options).eval()
bars = {}
for name, model in (("untrained", untrained), ("shipped", net)):
    bars[f"{name}: loss"], bars[f"{name}: gradient"] = parts_of(model, batches.batch(0, 16))

# %% tags=["nbval-ignore-output"]
show(*pictures.shares({bar: {f"{net.weights[k]:g} {k}": v for k, v in parts.items()} for bar, parts in bars.items()}))

# %%
share = {bar: parts["kd"] / sum(parts.values()) for bar, parts in bars.items()}
for name in ("untrained", "shipped"):
    print(f"{name:9s}: share of the loss below 3 %: {share[f'{name}: loss'] < 0.03};", end=" ")
    print("share of the gradient larger:", share[f"{name}: gradient"] > 2 * share[f"{name}: loss"])

# %% [markdown]
# ## Does it help?
#
# Projections and gate forget everything; the decoder stays. Three copies learn again from the same batches, with the
# weight $\alpha = 0$, $50$ (published) and $5000$ before $L_{KD}$. Every 20 steps a callback measures, on 32 fixed
# episodes of novel classes, how far $S$ and $t$ are apart, and separately what the masks are worth.

# %%
exam = [sampler.build([sampler.draw(seed + 1, j) for j in range(i, i + 16)]).shots(1) for i in range(0, 32, 16)]
MEASURES = ("cosine distance of S and t", "Euclidean distance", "to another class", "same picture", "length of t")


def measure(model):
    """Scores, and one row of distances per episode, in the order of MEASURES."""
    model.eval().explain = True
    meter, rows = FewShotIoU(), []
    for e in exam:
        said = model(e)
        meter.update(said.masks(), e.query_masks, e.classes)
        S, t, kind = said.maps["students"][:, 0], said.maps["query_prototype"], e.classes[:, 0]
        foreign = (kind[:, None] != kind).float()
        far = (distance(S[:, None], t[None]) * foreign).sum(0) / foreign.sum(0)
        twin = prototype(model.down_supp(backbone(e.query_images)), e.query_masks)
        parts = [distance(S, t), (S - t).norm(dim=1), far, distance(twin, t), t.norm(dim=1)]
        rows.append(torch.stack(parts, 1))
    model.explain = False
    return meter.compute(), torch.cat(rows)


# %%
def forgetful(alpha):
    """A copy of the shipped network with new projections and a new gate, the same for every `alpha`."""
    model = load_model(path)
    model.backbone, model.weights["kd"] = net.backbone, alpha
    torch.manual_seed(seed)
    for module in (x for part in (model.down_query, model.down_supp, model.sdpm) for x in part.modules()):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def relearn(alpha):
    """step -> what was measured there."""
    model, seen = forgetful(alpha), {0: start}

    def callback(step, model):
        if (step + 1) % 20 == 0 or step + 1 == train_steps:
            with torch.no_grad():
                seen[step + 1] = measure(model)
            model.train()

    schedule = Schedule(train_steps, batch=3, lr=6e-3, warmup=8, seed=seed)
    with torch.enable_grad():
        train_episodes(model, batches, schedule, callback=callback)
    return seen


start = measure(forgetful(0))  # before any step the weight changes nothing
runs = {alpha: relearn(alpha) for alpha in (0, 50, 5000)}

# %% tags=["nbval-ignore-output"]
panels = {title: {} for title in (*MEASURES[:2], "mIoU, %")}
for alpha, seen in runs.items():
    for step, (scores, values) in seen.items():
        points = [mean_interval(values[:, 0]), mean_interval(values[:, 1]), percent((scores.miou, *scores.interval()))]
        for title, point in zip(panels, points):
            panels[title].setdefault(f"alpha = {alpha}", {})[step] = point
show(*pictures.curve_panels(panels, "step"))

# %% tags=["nbval-ignore-output"]
ends = {alpha: seen[train_steps] for alpha, seen in runs.items()}
for alpha, (scores, values) in ends.items():
    numbers = ", ".join(f"{name} {value:.2f}" for name, value in zip(MEASURES, values.mean(0).tolist()))
    print(f"alpha {alpha}: mIoU {100 * scores.miou:.1f} %; {numbers}")
for alpha in (50, 5000):
    closer = mean_interval((ends[alpha][1] - ends[0][1])[:, 0])
    print(verdict(f"alpha {alpha} - 0, mIoU", percent(ends[alpha][0].difference(ends[0][0]))), end="; ")
    print(verdict("cosine distance", closer, 2))

# %%
(none, apart_0), (published, apart_50), (_, apart_5000) = ends.values()
change = [mean_interval((apart_50 - apart_0)[:, i]) for i in range(4)]
print("alpha 50: S and t are closer, beyond the interval:", change[0][2] < 0)
print("          S is closer to other classes' t as well:", change[2][2] < 0)
print("          and so are the prototypes of one picture:", change[3][2] < 0)
print("          mIoU gains more than 6 points:           ", published.miou - none.miou > 0.06)
print("alpha 5000: t is less than half as long:           ", bool(apart_5000[:, 4].mean() < apart_0[:, 4].mean() / 2))

# %% [markdown]
# With the loss, the distance ends clearly below what it is without; the score hardly differs. More measurements:
#
# * $S$ came closer to queries of its *own* class and of *other* classes alike (at $\alpha = 50$). That tells classes apart no better.
# * Even the two prototypes of *one picture* came closer. Much of what the loss removes is the difference between the
#   two projections, not the one between pictures for which it was invented.
# * A huge $\alpha$ finds the cheapest way: short prototypes. The Euclidean distance collapses with their lengths.
#
# This is one seed, 40 steps of three episodes, 32 channels, and its intervals cover the choice of episodes only: after
# 125 steps of four, with `seed` 1 and 2, we measured about two points *less* with $\alpha = 50$. For PASCAL-5i, a full training and 256 channels, a public review
# quotes +1.6 mIoU from the paper. Notebook 04 compares several trainings. What carries over is the method: show distance
# and score apart, and pair the comparison.
#
# ## Try it
#
# The model runs once per episode; the loss follows your hand.
#
# * Turn the temperature down from 5. Where do student and teacher begin to differ, and does the loss follow?
# * Which weight gives the distillation as large a share of the loss as the main term has? What of the prediction does
#   that change here, where nothing learns?
# * More supports: how does the factor on the query fall, and the IoU with and without the gate?

# %% tags=["nbval-ignore-output"]
from fsslib.widgets import explore_distillation

explore_distillation(test_set, net)

# %% [markdown]
# ## Summary
#
# * Support and query prototypes differ because the pictures differ *and* because the two projections do.
# * A gate scales channels. Whether it also chooses among them, swapping it tells.
# * A product of gates shrinks with $K$: for other $K$ than in training, look at the scale first.
# * At $\tau = 5$ the distillation of raw prototypes is nearly a squared distance of centred prototypes; short ones satisfy it.
# * Not detached, teacher and student attract each other. A small loss may carry a large gradient.
# * Closer prototypes need not be better masks.
#
# ## Exercises
#
# Write each function in the cell below its question. `check` needs less than a second, names the idea that is
# missing, and may be asked as often as you like.

# %%
from fsslib.labs import check

# %% [markdown] tags=["exercise"]
# ### 1 · `lasting_factor`
#
# *Difficulty ●●○ · importance ●●● · 15 minutes.* Find a factor on the query that equals the trained one at $K = 1$ and
# keeps its size for every $K$: gates `a` (B, K, C), float in 0..1, give (B, C). All supports count, in any order; $K$
# equal ones say what one says. One line is missing. Then the cell below tries your rule at five shots.
#
# <details><summary>Hint</summary>With one shot, a product and an average are the same.</details>


# %% tags=["solution"]
def lasting_factor(a):
    """Gates a (B, K, C) in 0..1 -> the factor (B, C) on the query's channels; as trained at K = 1, of lasting size."""
    g = (a + 1) / 2
    ### BEGIN SOLUTION
    return g.mean(1) * (g.mean(1) + 1) / 2
    ### END SOLUTION


# %%
check(lasting_factor)

# %%
with net.sdpm.register_forward_hook(lambda module, p, out: (out[0], out[1], lasting_factor(out[0]))):
    repaired = meter_of(lambda e: net(e).masks(), lots)
print("five shots, it beats the product beyond the interval:", repaired.difference(shots["product", 5][0])[1] > 0)

# %% [markdown] tags=["exercise"]
# ### 2 · `distil`
#
# *Difficulty ●●○ · importance ●●● · 20 minutes.* Write $L_{KD}$: raw prototypes `S` and `T` (E, C), float, and a float
# `tau` give one value, with gradients into `S` and `T`. The cell below asks how much the temperature matters.
#
# <details><summary>Hint</summary>Which argument does `F.kl_div` want as a logarithm? Over what does its "mean" run?
# A share may round to 0.</details>


# %% tags=["solution"]
def distil(S, T, tau):
    """Students S and teachers T (E, C), raw prototypes, and a temperature tau -> the loss, a 0-dimensional tensor."""
    terms = F.kl_div((S / tau).log_softmax(-1), (T / tau).softmax(-1), reduction="none")
    return 0.9 * tau**2 * terms.mean()


# %%
check(distil)

# %%
cool, warm, hot = (float(distil(S[:, 0], T[:, 0], x)) for x in (0.05, 5.0, 20.0))
print("temperatures 5 and 20 give the same loss within 10 %:  ", abs(warm / hot - 1) < 0.1)
print("temperatures 0.05 and 5 give the same loss within 10 %:", abs(cool / warm - 1) < 0.1)

# %% [markdown] tags=["exercise"]
# ### 3 · `gradient_reach`
#
# *Difficulty ●○○ · importance ●●○ · 10 minutes.* Which of `"down_query"`, `"down_supp"` and `"sdpm"` does $L_{KD}$
# train, with the teacher detached or not? Predict: a bool gives a set of names. Then let the gradients answer.
#
# <details><summary>Hint</summary>Follow $t$ and both parts of $S = g \, p$ back to where they come from.</details>


# %% tags=["solution"]
def gradient_reach(detached):
    """Is the teacher detached? -> the set of names, of "down_query", "down_supp" and "sdpm", that the loss trains."""
    student = {"down_supp", "sdpm"}
    return student if detached else student | {"down_query"}


# %%
check(gradient_reach)

# %%
for detached in (True, False):
    net.sdpm.detach_teacher, found = detached, set()
    with torch.enable_grad():
        loss = net.losses(few)["kd"]
    for name in ("down_query", "down_supp", "sdpm"):
        own = list(net.get_submodule(name).parameters())
        grads = torch.autograd.grad(loss, own, retain_graph=True, materialize_grads=True)
        found |= {name} if any(x.any() for x in grads) else set()
    print(f"detached={detached}: as predicted: {found == gradient_reach(detached)}")
net.sdpm.detach_teacher = False

# %% [markdown] tags=["exercise"]
# ### 4 · `teacher_sees`
#
# *Difficulty ●●○ · importance ●●○ · 10 minutes.* The teacher sees the query's true mask, the student never does. At
# $\alpha = 50$ they end closer, yet the score does not gain. What has the student learned? Answer in 25 words or more,
# with a number that you measured above, as the text the function returns.
#
# <details><summary>Hint</summary>Which other distances fell with the one of $S$ and $t$?</details>


# %% tags=["solution"]
def teacher_sees():
    """-> your answer, a text."""
    return """It learned little about the query, whose true mask exists in training only. The distance of S and t fell
    (0.67 to 0.50), but that to other classes fell alike (0.68 to 0.50), and that of two prototypes of the same picture
    (0.67 to 0.49): mostly the two projections came to agree, which tells no class from another."""


# %%
check(teacher_sees)

# %% [markdown] tags=["marking"]
# **Marking.** `lasting_factor`, `distil`, `gradient_reach`: the check decides. It takes every lasting rule: average of the
# gates, of the single factors, or a geometric mean. *Known wrong paths*: the paper's mean (not the trained factor at
# $K = 1$); `F.kl_div` with exchanged arguments or with "batchmean"; the gate is forgotten among what is trained.
#
# `teacher_sees`, three points: the student never sees the mask, at test time nobody does; the distances to other classes
# and of one picture fell as well (the two projections agree); a fitting number. *Known wrong paths*: "the weight is too
# small" (5000 shortens the prototypes and the score does not gain either); "closer prototypes must give better masks".

# %% [markdown]
# **Read next**: notebook 03, the attention that is supervised on the support; 04 puts both into SD-AANet.
#
# **References**: Q. Zhao, B. Liu, S. Lyu, H. Chen, *A Self-Distillation Embedded Supervised Affinity Attention Model for
# Few-Shot Segmentation*, IEEE TCDS 2024, arXiv 2108.06600 (original code: github.com/cv516Buaa/SD-AANet). G. Hinton, O. Vinyals, J. Dean, *Distilling the Knowledge in a Neural Network*, 2015, arXiv
# 1503.02531.
