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
SIDE = 17  # of a picture, in tenths of an inch as all places here
WIDTH, HEIGHT = 104, 189
COLUMNS = (10, 37, 64, 91)
BACKBONE = 23.5  # between the pictures and their features
# From top to bottom: features of support and query, prototype, teacher, attention, merge, scales, answer.
SUPPORT, QUERY, PROTOTYPE, TEACHER, ATTENTION, MERGE, SCALES, ANSWER = 174, 145, 122, 99, 74, 57, 40, 15
DASHED = (0, (3, 2))
ORANGE = {"colour": TRAINING, "dashed": True}


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
        self, x: float, y: float, values, title: str, dashed: bool = False, limits=(None, None)
    ) -> None:  # fmt: skip
        """An (h, w) map or (h, w, 3) photograph with its title above; training only if dashed."""
        values = np.asarray(values)
        inset = self._inset(x, y, SIDE, SIDE)
        smooth = "nearest" if values.shape[0] < 30 else "bicubic"
        inset.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation=smooth, aspect="auto")
        self._frame(inset, title, dashed)

    def bars(
        self, x: float, y: float, values, title: str, colour: str, dashed: bool = False, top=None,
        size: tuple[float, float] = (SIDE, 9),
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
    canvas = Canvas(WIDTH, HEIGHT)
    _inputs(canvas, episode)
    _features(canvas, maps, deep)
    _prior(canvas, maps)
    _prototype(canvas, episode, maps)
    _teacher(canvas, episode, maps)
    _attention(canvas, maps)
    grids = _decoder(canvas, maps)
    predicted, meter = prediction.masks(), FewShotIoU()
    meter.update(predicted, episode.query_masks, episode.classes)
    _answer(canvas, episode, prediction.logits[0].softmax(0)[1], predicted[0])
    alt = (
        f"Data flow of SD-AANet with the maps of one episode of {name}. Support and query pass the frozen backbone. "
        "The support's features are pooled under the soft mask into a prototype, whose gate re-weights prototype and "
        "query. The deepest features give the prior mask, SAAM the attention map. Prototype, re-weighted query, prior "
        f"and attention are merged at {len(grids)} grids ({', '.join(grids)}), each with logits of its own, and "
        f"fused into the prediction: IoU {100 * meter.compute().episode_iou()[0]:.0f} % with the true mask."
    )
    return canvas.figure, alt, None


def _inputs(canvas: Canvas, episode: Episode) -> None:
    x, half = COLUMNS[0], SIDE / 2
    support = overlay(episode.support_images[0, 0, 0], episode.support_masks[0, 0, 0])
    canvas.picture(x, SUPPORT, support, "support, mask")
    canvas.picture(x, QUERY, overlay(episode.query_images[0]), "query")
    text = "backbone: pre-trained on base classes, then frozen"
    canvas.box(BACKBONE, (SUPPORT + QUERY) / 2, 4, SUPPORT - QUERY + SIDE, text, FROZEN, upright=True)
    for lane in (SUPPORT, QUERY):
        canvas.arrow((x + half, lane), (BACKBONE - 2, lane))
    kinds = {"frozen": (FROZEN, FROZEN), "learned": (LEARNED, LEARNED), "no parameters": ("white", LINE)}
    handles = [Patch(fc=face, ec=edge, label=label) for label, (face, edge) in kinds.items()]
    handles.append(Line2D([], [], color=TRAINING, linestyle=DASHED, label="training only"))
    canvas.axis.legend(handles=handles, loc="lower center", ncols=4, bbox_to_anchor=(0.5, 0))


def _features(canvas: Canvas, maps: Mapping[str, Tensor], deep: tuple[Tensor, Tensor]) -> None:
    shallow, last, half = *COLUMNS[1:3], SIDE / 2
    canvas.picture(shallow, SUPPORT, maps["support_features"][0].norm(dim=0), "$F_s$: layers 2, 3 and 1x1 conv")
    canvas.picture(shallow, QUERY, maps["query_features"].norm(dim=0), "$F_q$: layers 2, 3 and 1x1 conv")
    canvas.picture(last, SUPPORT, deep[1][0, 0, 0].norm(dim=0), "layer 4, masked support")
    canvas.picture(last, QUERY, deep[0][0].norm(dim=0), "layer 4, query")
    for lane in (SUPPORT, QUERY):
        canvas.arrow((BACKBONE + 2, lane), (shallow - half, lane))
    between = SUPPORT - half - 3.5
    canvas.arrow((BACKBONE + 2, between), (last, between), (last, SUPPORT - half))
    canvas.arrow((last - 1, between), (last, between), (last, QUERY + half + 3))
    canvas.write(BACKBONE + 3.5, between + 0.7, "layer 4", ha="left", va="bottom")


def _prior(canvas: Canvas, maps: Mapping[str, Tensor]) -> None:
    last, x, half = *COLUMNS[2:], SIDE / 2
    canvas.box(x, QUERY, SIDE, 7, "best match in the\nsupport (cosine),\nper cell", "white")
    canvas.arrow((last + half, QUERY), (x - half, QUERY))
    canvas.arrow((last + half, SUPPORT), (x - half - 3.5, SUPPORT), (x - half - 3.5, QUERY + 2), (x - half, QUERY + 2))
    canvas.picture(x, SUPPORT, maps["prior"][0], "prior R", limits=(0, 1))
    canvas.arrow((x, QUERY + 3.5), (x, SUPPORT - half))
    canvas.arrow((x + half, SUPPORT), (WIDTH - 1.2, SUPPORT), (WIDTH - 1.2, MERGE - 1.3), (WIDTH - 6, MERGE - 1.3))


def _prototype(canvas: Canvas, episode: Episode, maps: Mapping[str, Tensor]) -> None:
    """Pooled under the soft mask, damped by the gate."""
    (mask, pooled, gate, student), half = COLUMNS, SIDE / 2
    size = tuple(maps["query_features"].shape[-2:])
    soft = resize((episode.support_masks[:, 0] == 1).float(), size)[0, 0]
    canvas.picture(mask, PROTOTYPE, soft, "soft mask of the support", limits=(0, 1))
    canvas.bars(pooled, PROTOTYPE, maps["pooled"][0], "pool: prototype $p$", STUDENT)
    canvas.bars(gate, PROTOTYPE, (maps["gate"][0] + 1) / 2, "gate $g=(a+1)/2$", LEARNED, top=1)
    canvas.bars(student, PROTOTYPE, maps["students"][0], "student $S=g\\cdot p$", STUDENT)
    for begin, end in pairwise(COLUMNS):
        canvas.arrow((begin + half, PROTOTYPE), (end - half, PROTOTYPE), colour=LEARNED if end == gate else LINE)
    lane = pooled + half + 2
    canvas.arrow(
        (pooled + half, SUPPORT - 3), (lane, SUPPORT - 3), (lane, PROTOTYPE + 2.5), (pooled + half, PROTOTYPE + 2.5)
    )
    canvas.arrow(
        (student + half, PROTOTYPE), (WIDTH - 3, PROTOTYPE), (WIDTH - 3, MERGE + 1.3), (WIDTH - 6, MERGE + 1.3)
    )


def _teacher(canvas: Canvas, episode: Episode, maps: Mapping[str, Tensor]) -> None:
    """In training only: what the query under its true mask says of the prototype."""
    if "teacher" not in maps:
        return
    known, pooled, _, x = COLUMNS
    half, above = SIDE / 2, PROTOTYPE - 4.5
    mask = overlay(episode.query_images[0], episode.query_masks[0])
    canvas.picture(known, TEACHER, mask, "query, true mask", dashed=True)
    canvas.bars(pooled, TEACHER, maps["query_prototype"], "pool: prototype $t$", TRAINING, dashed=True)
    canvas.bars(x, TEACHER, maps["teacher"][0], "teacher $T=(t+S)/2$", TRAINING, dashed=True)
    canvas.arrow((known + half, TEACHER), (pooled - half, TEACHER), **ORANGE)
    canvas.arrow((pooled + half, TEACHER), (x - half, TEACHER), **ORANGE)
    canvas.arrow((x - 4, above), (x - 4, TEACHER + 7.2), **ORANGE)
    canvas.arrow((x + 4, TEACHER + 7.2), (x + 4, above), **ORANGE)
    canvas.write(x - 4.8, above - 3.5, "half of it", TRAINING, ha="right")
    canvas.write(x + 4.8, above - 3.5, "kd loss", TRAINING, ha="left")


def _attention(canvas: Canvas, maps: Mapping[str, Tensor]) -> None:
    """SAAM's map of the query, and the query re-weighted by the gate."""
    (known, head, x, weighted), half, top = COLUMNS, SIDE / 2, ATTENTION + SIDE / 2
    canvas.box(head, ATTENTION, 13, 7, "SAAM\naffinity head", LEARNED)
    left, right, cross = head - half - 2, head + half + 4, (x + weighted) / 2
    canvas.arrow(
        (head - half, PROTOTYPE - 2),
        (left, PROTOTYPE - 2),
        (left, top + 4),
        (head - 2, top + 4),
        (head - 2, ATTENTION + 3.5),
    )
    canvas.arrow(
        (head + half, QUERY), (right, QUERY), (right, top + 4), (head + 2, top + 4), (head + 2, ATTENTION + 3.5)
    )
    if "support_attention" in maps:
        inside = maps["support_attention"][0].softmax(0)[1]
        canvas.picture(known, ATTENTION, inside, "on the support: saam loss", dashed=True, limits=(0, 1))
        canvas.arrow((head - 6.5, ATTENTION), (known + half, ATTENTION), **ORANGE)
    canvas.picture(x, ATTENTION, maps["attention"][0], "attention A")
    canvas.arrow((head + 6.5, ATTENTION), (x - half, ATTENTION))
    canvas.axis.add_patch(Circle((cross, ATTENTION), 1.6, fc="white", ec=LINE, lw=1.2, zorder=5))
    canvas.write(cross, ATTENTION, "×", fontsize=11)
    canvas.write(cross, ATTENTION - 3, "$g\\cdot(g+1)/2$", LEARNED)
    canvas.arrow((right, top + 5), (right, top + 4), (cross - 1, top + 4), (cross - 1, ATTENTION + 1.2))
    canvas.arrow(
        (x + 2, PROTOTYPE - 4.5),
        (x + 2, top + 6.5),
        (cross + 1, top + 6.5),
        (cross + 1, ATTENTION + 1.2),
        colour=LEARNED,
    )
    canvas.picture(weighted, ATTENTION, maps["query_reweighted"].norm(dim=0), "re-weighted query")
    canvas.arrow((cross + 1.6, ATTENTION), (weighted - half, ATTENTION))


def _decoder(canvas: Canvas, maps: Mapping[str, Tensor]) -> list[str]:
    """The merge and the inner logits of every scale; returns the grids in words."""
    half, bus, grids = SIDE / 2, SCALES - SIDE / 2 - 2.5, []
    text = "merge at every grid: {0} + {0} + 1 + 1 channels to {0}".format(len(maps["query_features"]))
    canvas.box(WIDTH / 2 - 2, MERGE, WIDTH - 8, 5, text, LEARNED)
    for x in COLUMNS[2:]:
        canvas.arrow((x, ATTENTION - half), (x, MERGE + 2.5))
    inner = [maps[key].softmax(0)[1] for key in sorted(k for k in maps if k.startswith("inner/"))]
    for level, x in zip(inner, COLUMNS):
        grids.append(f"{level.shape[0]}x{level.shape[1]}")
        canvas.arrow((x, MERGE - 2.5), (x, SCALES + half + 2.8))
        canvas.picture(x, SCALES, level, f"{grids[-1]}: aux loss", limits=(0, 1))
        canvas.line((x, SCALES - half), (x, bus))
    for begin, end in pairwise(COLUMNS[: len(inner)]):
        canvas.arrow((begin + half, SCALES), (end - half, SCALES), colour=LEARNED)
    canvas.line((COLUMNS[len(inner) - 1], bus), (COLUMNS[0], bus))
    canvas.arrow((COLUMNS[0], bus), (COLUMNS[0], ANSWER + 4))
    canvas.box(COLUMNS[0], ANSWER, 13, 8, "fuse,\nclassify", LEARNED)
    return grids


def _answer(canvas: Canvas, episode: Episode, probability: Tensor, predicted: Tensor) -> None:
    (fused, *places), half, query = COLUMNS, SIDE / 2, episode.query_images[0]
    truth = overlay(query, episode.query_masks[0])
    canvas.picture(places[0], ANSWER, probability, "P(object)", limits=(0, 1))
    canvas.picture(places[1], ANSWER, overlay(query, predicted), "prediction")
    canvas.picture(places[2], ANSWER, truth, "true mask")
    canvas.arrow((fused + 6.5, ANSWER), (places[0] - half, ANSWER))
    canvas.arrow((places[0] + half, ANSWER), (places[1] - half, ANSWER))
    canvas.arrow((places[2] - half, ANSWER), (places[1] + half, ANSWER), **ORANGE)
    canvas.write((places[1] + places[2]) / 2, ANSWER + 2.2, "main\nloss", TRAINING)


@theme()
def storyboard(episode: Episode, prediction: Prediction, name: str = "the object") -> Drawing:
    """SDPM step by step, for one 1-way 1-shot episode: prototype, gate, student, and the teacher that sees the answer.

    Args: as in `dataflow`; the model needs SDPM only.
    """
    maps = {key: value[0].float().cpu() for key, value in prediction.maps.items()}
    canvas, xs, top, low, half = Canvas(100, 46), (9.5, 32, 55, 78), 33, 11, SIDE / 2
    wide = half + 0.6
    support = overlay(episode.support_images[0, 0, 0], episode.support_masks[0, 0, 0])
    known = overlay(episode.query_images[0], episode.query_masks[0])
    canvas.picture(xs[0], top, support, "1 support, its mask")
    canvas.picture(xs[0], low, known, "5 query, its true mask", dashed=True)
    canvas.bars(xs[1], top, maps["pooled"][0], "2 pool: prototype $p$", STUDENT)
    canvas.bars(xs[2], top, (maps["gate"][0] + 1) / 2, "3 gate: $g=(a+1)/2$", LEARNED, top=1)
    canvas.bars(xs[3], top, maps["students"][0], "4 student $S=g\\cdot p$", STUDENT)
    canvas.bars(xs[1], low, maps["query_prototype"], "6 pool: prototype $t$", TRAINING, dashed=True)
    canvas.bars(xs[3], low, maps["teacher"][0], "7 teacher $T=(t+S)/2$", TRAINING, dashed=True)
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
