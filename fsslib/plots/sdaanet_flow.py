"""SD-AANet as one picture: the data flow of the whole model, drawn with the maps of a real episode."""

from collections.abc import Mapping
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..episode import Episode, Prediction
from ..errors import FsslibError
from ..metrics import FewShotIoU
from ..ops import resize
from .common import Drawing, overlay, theme

LEARNED, FROZEN, TRAINING, STUDENT, LINE = "#0072B2", "#7F7F7F", "#D55E00", "#009E73", "#333333"
NEEDED = ("attention", "gate", "inner/0", "pooled", "prior", "query_features", "query_reweighted", "students")
SIDE = 9.5  # of a thumbnail, in tenths of an inch as all places here
X = (6.2, 16.5, 29, 43, 58, 74, 85.5, 97, 109)  # inputs, backbone, features, masks, gate, maps, merge, pyramid, output
Y = {"prior": 70, "support": 50, "query": 28, "saam": 9}
LEVELS = (70, 50, 30, 10)
DASHED = (0, (3, 2))
ORANGE = {"colour": TRAINING, "dashed": True}
BIG = 17  # side of a picture in a storyboard


class Canvas:
    """A sheet in tenths of an inch on which boxes, arrows and small pictures are placed by their centres."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = plt.figure(figsize=(width / 10, height / 10), layout="none")
        self.axis = self._inset(width / 2, height / 2, width, height)
        self.axis.set(xlim=(0, width), ylim=(0, height))
        self.axis.axis("off")

    def _inset(self, x: float, y: float, width: float, height: float) -> plt.Axes:
        place = ((x - width / 2) / self.width, (y - height / 2) / self.height)
        return self.figure.add_axes((*place, width / self.width, height / self.height))

    def picture(
        self, x: float, y: float, values, title: str, dashed: bool = False, limits=(None, None), side: float = SIDE
    ) -> None:  # fmt: skip
        """An (h, w) map or (h, w, 3) photograph with its title above; training only if dashed."""
        values = np.asarray(values)
        inset = self._inset(x, y, side, side)
        smooth = "nearest" if values.shape[0] < 30 else "bicubic"
        inset.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation=smooth, aspect="auto")
        self._frame(inset, title, dashed)

    def bars(
        self, x: float, y: float, values, title: str, colour: str, dashed: bool = False, top=None,
        size: tuple[float, float] = (SIDE + 3, 4.2),
    ) -> None:  # fmt: skip
        """One bar per channel."""
        values, inset = np.asarray(values), self._inset(x, y, *size)
        inset.bar(range(len(values)), values, 0.85, color=colour)
        inset.set(ylim=(0, top or max(float(np.max(values)), 1e-6) * 1.05), xlim=(-1, len(values)))
        self._frame(inset, title, dashed)

    @staticmethod
    def _frame(inset: plt.Axes, title: str, dashed: bool) -> None:
        inset.set(xticks=[], yticks=[])
        inset.set_title(title, fontsize=8, pad=2.5, color=TRAINING if dashed else "black")
        inset.spines[:].set(color=TRAINING if dashed else LINE, linestyle=DASHED if dashed else "-", linewidth=0.9)

    def box(self, x: float, y: float, width: float, height: float, text: str, colour: str, upright: bool = False):
        """A part of the model; without parameters if white."""
        corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.8"
        edge, ink = (LINE, "black") if colour == "white" else ("none", "white")
        self.axis.add_patch(FancyBboxPatch(corner, width, height, style, fc=colour, ec=edge, zorder=3))
        self.write(x, y, text, ink, rotation=90 if upright else 0, fontsize=8.5)

    def line(self, *points: tuple[float, float], **how) -> None:
        """A connection without a head."""
        self.axis.plot(*zip(*points), **{"color": LINE, "lw": 1.3, "solid_joinstyle": "round", **how})

    def arrow(self, *points: tuple[float, float], colour: str = LINE, dashed: bool = False) -> None:
        """Along straight lines through the points; a white rim keeps crossings apart."""
        rim = [patheffects.withStroke(linewidth=4, foreground="white")]
        look = {"color": colour, "linestyle": DASHED if dashed else "-", "lw": 1.3}
        *_, before, end = points
        self.line(*points[:-1], path_effects=rim, **look)
        head = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "path_effects": rim}
        self.axis.annotate("", end, before, arrowprops=look | head)

    def write(self, x: float, y: float, text: str, colour: str = "black", **how) -> None:
        """A remark."""
        look = {"ha": "center", "va": "center", "fontsize": 8, "color": colour, "zorder": 6}
        self.axis.text(x, y, text, **look | how)


@theme()
def dataflow(
    episode: Episode, prediction: Prediction, deep: tuple[Tensor, Tensor], name: str = "the object"
) -> Drawing:
    """SD-AANet from the pictures to the mask, for one 1-way 1-shot episode.

    Args:
        episode: a single one (B = N = K = 1). prediction: of a model with `explain` set and every part switched on.
        deep: features of the deepest stage of query (1, C, h, w) and masked support (1, 1, 1, C, h, w), as
            `SDAANet.features` returns them under "deep".
        name: of the class, for the words.
    Raises FsslibError: more than one episode, way or shot, or maps that are missing.
    """
    maps = {key: value[0].float().cpu() for key, value in prediction.maps.items()}
    if missing := [key for key in NEEDED if key not in maps]:
        raise FsslibError(f"dataflow() needs the maps {', '.join(missing)}: set model.explain, switch every part on.")
    if (size := (episode.batch, episode.way, episode.shot)) != (1, 1, 1):
        raise FsslibError(f"dataflow() draws one 1-way 1-shot episode, found (episodes, ways, shots) = {size}.")
    canvas = Canvas(115, 80)
    _inputs(canvas, episode)
    _features(canvas, episode, maps, deep)
    _guides(canvas, maps)
    if "query_prototype" in maps:
        _answer(canvas, episode)
    levels = _decoder(canvas, maps)
    x, query, predicted, meter = X[8], episode.query_images[0], prediction.masks(), FewShotIoU()
    meter.update(predicted, episode.query_masks, episode.classes)
    probability = prediction.logits[0].softmax(0)[1]
    canvas.picture(x, LEVELS[1], probability, "P(object)", limits=(0, 1))
    canvas.picture(x, LEVELS[2], overlay(query, predicted[0]), "prediction")
    canvas.picture(x, LEVELS[3], overlay(query, episode.query_masks[0]), "true mask")
    canvas.arrow((x, LEVELS[1] - SIDE / 2), (x, LEVELS[2] + SIDE / 2 + 2.2))
    canvas.arrow((x, LEVELS[3] + SIDE / 2 + 2.2), (x, LEVELS[2] - SIDE / 2), colour=TRAINING, dashed=True)
    canvas.write(x + 0.6, (LEVELS[2] + LEVELS[3]) / 2 + 1, "main\nloss", TRAINING, ha="left")
    alt = (
        f"Data flow of SD-AANet with the maps of one episode of {name}. Support and query pass the frozen backbone. "
        "The support's features are pooled under the soft mask into a prototype, whose gate re-weights prototype and "
        "query. The deepest features give the prior mask, SAAM the attention map. Prototype, re-weighted query, prior "
        f"and attention are merged at {len(levels)} grids ({', '.join(levels)}), each with logits of its own, and "
        f"fused into the prediction: IoU {100 * meter.compute().episode_iou()[0]:.0f} % with the true mask."
    )
    return canvas.figure, alt, None


def _inputs(canvas: Canvas, episode: Episode) -> None:
    support = overlay(episode.support_images[0, 0, 0], episode.support_masks[0, 0, 0])
    canvas.picture(X[0], Y["support"], support, "support, mask")
    canvas.picture(X[0], Y["query"], overlay(episode.query_images[0]), "query")
    canvas.box(X[1], 47.5, 4, 57, "backbone: pre-trained on base classes, then frozen", FROZEN, upright=True)
    for lane in ("support", "query"):
        canvas.arrow((X[0] + SIDE / 2, Y[lane]), (X[1] - 2, Y[lane]))
    kinds = {"frozen": (FROZEN, FROZEN), "learned": (LEARNED, LEARNED), "no parameters": ("white", LINE)}
    handles = [Patch(fc=face, ec=edge, label=label) for label, (face, edge) in kinds.items()]
    handles.append(Line2D([], [], color=TRAINING, linestyle=DASHED, label="training only"))
    canvas.axis.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.004, 0.01))


def _features(canvas: Canvas, episode: Episode, maps: Mapping[str, Tensor], deep: tuple[Tensor, Tensor]) -> None:
    size = tuple(maps["query_features"].shape[-2:])
    soft = resize((episode.support_masks[:, 0] == 1).float(), size)[0, 0]
    canvas.picture(X[2], Y["prior"], deep[1][0, 0, 0].norm(dim=0), "layer4, masked support")
    canvas.picture(X[3], Y["prior"], deep[0][0].norm(dim=0), "layer4, query")
    canvas.picture(X[2], Y["support"], maps["support_features"][0].norm(dim=0), "features $F_s$")
    canvas.picture(X[3], Y["support"], soft, "soft mask", limits=(0, 1))
    canvas.picture(X[2], Y["query"], maps["query_features"].norm(dim=0), "features $F_q$")
    begin, end = X[1] + 2, X[2] - SIDE / 2
    for lane, text in (("support", "layers\n2, 3"), ("query", "layers\n2, 3"), ("prior", "layer\n4")):
        canvas.arrow((begin, Y[lane]), (end, Y[lane]))
        canvas.write((begin + end) / 2, Y[lane] + 1, text, va="bottom")
        if lane != "prior":
            canvas.write((begin + end) / 2, Y[lane] - 1, "1x1\nconv", LEARNED, va="top")


def _guides(canvas: Canvas, maps: Mapping[str, Tensor]) -> None:
    """Prior, prototype with gate and teacher, re-weighted query, attention."""
    half, merge, (top, support, query, saam) = SIDE / 2, X[6] - 1.8, Y.values()
    canvas.write((X[2] + X[3]) / 2, top, "cos")
    canvas.box(X[4], top, 13, 5, "best match in the\nsupport, per cell", "white")
    canvas.arrow((X[3] + half, top), (X[4] - 6.5, top))
    canvas.arrow((X[4] + 6.5, top), (X[5] - half, top))
    canvas.picture(X[5], top, maps["prior"][0], "prior R", limits=(0, 1))
    canvas.write((X[2] + X[3]) / 2, support, "×", fontsize=12)
    pooled, gate, wide = support + 4.5, support - 6, SIDE / 2 + 1.5
    canvas.bars(X[4], pooled, maps["pooled"][0], "prototype $p$", STUDENT)
    canvas.bars(X[4], gate, (maps["gate"][0] + 1) / 2, "gate $g=(a+1)/2$", LEARNED, top=1)
    canvas.bars(X[5], pooled, maps["students"][0], "student $S=g\\cdot p$", STUDENT)
    canvas.arrow((X[3] + half, pooled), (X[4] - wide, pooled))
    canvas.write((X[3] + half + X[4] - wide) / 2, pooled + 1.2, "pool", va="bottom")
    canvas.arrow((X[4], pooled - 2.1), (X[4], gate + 4.3), colour=LEARNED)
    canvas.arrow((X[4] + wide, pooled), (X[5] - wide, pooled))
    canvas.arrow((X[4] + wide, gate), (X[4] + wide + 1.6, gate), (X[4] + wide + 1.6, pooled), colour=LEARNED)
    if "teacher" in maps:
        canvas.bars(X[5], gate, maps["teacher"][0], "teacher $T=(t+S)/2$", TRAINING, dashed=True)
        canvas.arrow((X[5], gate + 4.3), (X[5], pooled - 2.1), colour=TRAINING, dashed=True)
        canvas.write(X[5] + 0.8, (gate + 4.3 + pooled - 2.1) / 2, "kd loss", TRAINING, ha="left")
    canvas.axis.add_patch(Circle((X[4], query), 1.5, fc="white", ec=LINE, lw=1.2, zorder=5))
    canvas.write(X[4], query, "×", fontsize=11)
    canvas.write(X[4] + 1, query - 3, "$g\\cdot(g+1)/2$", LEARNED)
    canvas.arrow((X[4], gate - 2.1), (X[4], query + 1.5), colour=LEARNED)
    canvas.arrow((X[2] + half, query), (X[4] - 1.5, query))
    canvas.arrow((X[4] + 1.5, query), (X[5] - half, query))
    canvas.picture(X[5], query, maps["query_reweighted"].norm(dim=0), "re-weighted query")
    canvas.box(X[4], saam, 12, 6, "SAAM\naffinity head", LEARNED)
    down = X[4] - wide - 1.8
    canvas.arrow((down, pooled), (down, saam + 10.5), (X[4] + 2, saam + 10.5), (X[4] + 2, saam + 3))
    canvas.arrow((X[2], query - half), (X[2], saam + 8.2), (X[4] - 2, saam + 8.2), (X[4] - 2, saam + 3))
    if "support_attention" in maps:
        known = maps["support_attention"][0].softmax(0)[1]
        canvas.picture(X[3], saam, known, "on the support: saam loss", dashed=True, limits=(0, 1))
        canvas.arrow((X[4] - 6, saam), (X[3] + half, saam), colour=TRAINING, dashed=True)
    canvas.arrow((X[4] + 6, saam), (X[5] - half, saam))
    canvas.picture(X[5], saam, maps["attention"][0], "attention A")
    for lane in (top, pooled, query, saam):
        canvas.arrow((X[5] + (wide if lane == pooled else half), lane), (merge, lane))


def _answer(canvas: Canvas, episode: Episode) -> None:
    """What the teacher knows: the query under its true mask, in training only."""
    x, y, half = 42.5, 36.4, SIDE / 2
    canvas.picture(x, y, overlay(episode.query_images[0], episode.query_masks[0]), "query, true mask", dashed=True)
    canvas.arrow((X[2] + half, Y["query"] + 2.5), (35, Y["query"] + 2.5), (35, y), (x - half, y), **ORANGE)
    canvas.arrow((x + half, y), (X[5], y), (X[5], Y["support"] - 8.1), **ORANGE)
    canvas.write(62, y + 0.8, "pool: $t$", TRAINING, va="bottom")


@theme()
def storyboard(episode: Episode, prediction: Prediction, name: str = "the object") -> Drawing:
    """SDPM step by step, for one 1-way 1-shot episode: prototype, gate, student, and the teacher that sees the answer.

    Args: as in `dataflow`; the model needs SDPM only.
    """
    maps = {key: value[0].float().cpu() for key, value in prediction.maps.items()}
    canvas, xs, top, low, half = Canvas(100, 46), (9.5, 32, 55, 78), 33, 11, BIG / 2
    wide = half + 0.6
    support = overlay(episode.support_images[0, 0, 0], episode.support_masks[0, 0, 0])
    known = overlay(episode.query_images[0], episode.query_masks[0])
    canvas.picture(xs[0], top, support, "1 support, its mask", side=BIG)
    canvas.picture(xs[0], low, known, "5 query, its true mask", dashed=True, side=BIG)
    tall = {"size": (BIG, 9)}
    canvas.bars(xs[1], top, maps["pooled"][0], "2 pool: prototype $p$", STUDENT, **tall)
    canvas.bars(xs[2], top, (maps["gate"][0] + 1) / 2, "3 gate: $g=(a+1)/2$", LEARNED, top=1, **tall)
    canvas.bars(xs[3], top, maps["students"][0], "4 student $S=g\\cdot p$", STUDENT, **tall)
    canvas.bars(xs[1], low, maps["query_prototype"], "6 pool: prototype $t$", TRAINING, dashed=True, **tall)
    canvas.bars(xs[3], low, maps["teacher"][0], "7 teacher $T=(t+S)/2$", TRAINING, dashed=True, **tall)
    for begin, end in pairwise(xs):
        canvas.arrow((begin + wide, top), (end - wide, top))
    canvas.arrow((xs[0] + wide, low), (xs[1] - wide, low), **ORANGE)
    canvas.arrow((xs[1] + wide, low), (xs[3] - wide, low), **ORANGE)
    canvas.arrow((xs[3] - 4, top - 4.8), (xs[3] - 4, low + 7), **ORANGE)
    canvas.arrow((xs[3] + 4, low + 7), (xs[3] + 4, top - 4.8), **ORANGE)
    canvas.write(xs[3] - 5, 22, "half of it", TRAINING, ha="right")
    canvas.write(xs[3] + 5, 22, "8 loss: imitate", TRAINING, ha="left")
    canvas.write(xs[2], low + 2, "the other half", TRAINING)
    apart = 1 - float(cosine_similarity(maps["students"][0], maps["query_prototype"], dim=0))
    alt = (
        f"SDPM for one episode of {name}, in eight steps: the support's features are pooled under its mask into p, a "
        "gate damps its channels and gives the student S; in training the query's features under its true mask give t, "
        f"half of t and half of S are the teacher, which the student imitates. Cosine distance of S and t: {apart:.2f}."
    )
    return canvas.figure, alt, None


def _decoder(canvas: Canvas, maps: Mapping[str, Tensor]) -> list[str]:
    """Merge box, inner logits of every scale, and the fusion; returns the grids in words."""
    half, bus, names = SIDE / 2, X[8] - SIDE / 2 - 1.8, []
    text = "merge at every grid: {0} + {0} + 1 + 1 channels to {0}".format(len(maps["query_features"]))
    canvas.box(X[6], 40, 3.6, 70, text, LEARNED, upright=True)
    inner = [maps[key].softmax(0)[1] for key in sorted(k for k in maps if k.startswith("inner/"))]
    for level, y in zip(inner, LEVELS):
        names.append(f"{level.shape[0]}x{level.shape[1]}")
        canvas.arrow((X[6] + 1.8, y), (X[7] - half, y))
        canvas.picture(X[7], y, level, f"{names[-1]}: aux loss", limits=(0, 1))
        canvas.line((X[7] + half, y), (bus, y))
    for above, below in pairwise(LEVELS):
        canvas.arrow((X[7], above - half), (X[7], below + half + 2.2), colour=LEARNED)
    canvas.line((bus, LEVELS[-1]), (bus, LEVELS[0]))
    canvas.line((bus, LEVELS[0]), (X[8], LEVELS[0]))
    canvas.arrow((X[8], LEVELS[0]), (X[8], LEVELS[1] + half + 2.2))
    canvas.box(X[8], LEVELS[0], 9.5, 6, "fuse,\nclassify", LEARNED)
    return names
