"""The protocol: every choice that moves a score, in one place that can be printed beside the score."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .arguments import check_count, check_number
from .errors import ProtocolError

# Rules of `fsslib.models.shot_by_shot`; every other text only says what a method does by itself.
MERGE_RULES = ("vote of K masks", "mean of K probabilities")
# The order of the card, from the data to the source.
_CARD = (
    "fold_scheme images area_filter novel_pixels void input_size train_size augmentation resize label_size queries "
    "episodes seeds way annotation absent k_merge backbone bn selection counting list_hash source"
)


def _row(meaning: str, default: object, *others: str) -> Any:
    """A field of the protocol: what it means, its default, and for a text what it may be besides."""
    return field(default=default, metadata={"meaning": meaning, "choices": (default, *others) if others else None})


@dataclass(frozen=True)
class Protocol:
    """Everything about data, episodes and counting that a score depends on besides the weights.

    The defaults are the honest ones: no choice looks at the test fold, every pixel and every episode counts.
    `k_merge` is the method's own unless it is one of `MERGE_RULES`, which then replaces it (see
    `fsslib.models.shot_by_shot`).
    `images` is filled in by the data set, as are `fold_scheme` and `area_filter` where it knows better; `backbone` by a
    model whose backbone is one of timm's.
    `train_size=None` trains at `input_size`; `augmentation="dataset"` changes images as suits the data set.
    `selection="test_fold"` exists only in `Protocol.published(...)`.

    Raises ProtocolError for unknown choices and numbers out of range.
    """

    name: str = "shapes5i"
    fold_scheme: str = _row("how classes are divided into folds", "crossed")
    area_filter: int = _row("least object area in pixels of the original image", 0)
    novel_pixels: str = _row("what pixels of novel classes become in training images", "background", "ignore", "drop")
    void: str = _row("what the 255 border of support masks counts as", "ignore", "background")
    input_size: int = _row("network input, pixels a side", 97)
    resize: str = _row("how an image becomes square", "squash", "pad")
    label_size: str = _row("where predictions are compared with labels", "input", "original")
    queries: str = _row("how queries are drawn", "uniform_class", "every_image")
    episodes: int = _row("episodes per list", 1000)
    seeds: tuple[int, ...] = _row("one episode list per seed", (0,))
    way: int = _row("classes per episode", 1)
    annotation: str = _row("what the supports are annotated with", "mask", "box", "scribble")
    absent: float = _row("share of queries that show none of the classes", 0.0)
    k_merge: str = _row("how several shots are merged", "the method's own")
    bn: str = _row("batch norm of the backbone while training", "frozen", "batch")
    selection: str = _row("how the checkpoint is chosen", "last", "val_classes", "test_fold")
    counting: str = _row("false positives of a class absent from the label", "all", "present")
    train_size: int | None = _row("input of the training, pixels a side", None)
    augmentation: str = _row(
        "random changes of images in episodic training",
        *("dataset", "photo", "flip", "symmetry", "sdaanet", "pfenet", "hdmnet", "none"),
    )
    list_hash: str = _row("identifies the episode lists", "")
    source: str = _row("where these choices come from", "")
    images: str = _row("which images", "")
    backbone: str = _row("features that are not ours, licence of their weights, and what these have seen", "")

    def __post_init__(self) -> None:
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata.get("choices")
            if choices and value not in choices:
                raise ProtocolError(f"Protocol.{item.name}: found {value!r}, expected one of {', '.join(choices)}.")
        for name, least in {"area_filter": 0, "input_size": 16, "train_size": 16, "episodes": 1, "way": 1}.items():
            if name != "train_size" or self.train_size is not None:
                check_count(getattr(self, name), f"Protocol.{name}", least, error=ProtocolError)
        check_number(self.absent, "Protocol.absent", 1, error=ProtocolError)
        if self.absent and self.counting == "present":
            cure = "counting='present' forgives whatever is marked where nothing is; use counting='all'"
            raise ProtocolError(f"Protocol.absent: {cure}.")
        rules = {rule.casefold(): rule for rule in MERGE_RULES}
        if self.k_merge != rules.get(str(self.k_merge).casefold(), self.k_merge):
            rule = f"{rules[self.k_merge.casefold()]!r}: a text that is no rule changes nothing"
            raise ProtocolError(f"Protocol.k_merge: found {self.k_merge!r}, expected {rule}.")
        seeds = tuple(self.seeds) if isinstance(self.seeds, (tuple, list, range)) else ()
        if not seeds or any(type(s) is not int or s < 0 for s in seeds) or len(set(seeds)) < len(seeds):
            expected = "a tuple of whole numbers from 0, each only once"
            raise ProtocolError(f"Protocol.seeds: found {self.seeds!r}, expected {expected}.")
        object.__setattr__(self, "seeds", seeds)
        if self.selection == "test_fold" and not self.name.startswith("published "):
            raise ProtocolError(
                "Protocol.selection='test_fold' picks the checkpoint on the classes it is scored on. It exists only in "
                "Protocol.published(...); use 'val_classes' or 'last'."
            )

    def replace(self, **changes) -> Protocol:
        """A copy with some choices changed. Raises ProtocolError for unknown names."""
        known = [item.name for item in fields(self)]
        if unknown := changes.keys() - set(known):
            raise ProtocolError(f"Protocol has no {', '.join(sorted(unknown))}; it has {', '.join(known)}.")
        return replace(self, **changes)

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**asdict(self), "seeds": list(self.seeds)}

    def card(self) -> str:
        """The protocol as lines of text: choice, value and what it means."""
        choices = asdict(self) | {"train_size": self.train_size or self.input_size}
        values = {k: ", ".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in choices.items()}
        meaning = {item.name: item.metadata.get("meaning") for item in fields(self)}
        rows = [f"  {name:<13} {values[name]:<18} {meaning[name]}" for name in _CARD.split() if values[name]]
        return "\n".join([f"Protocol {self.name}", *rows])

    @classmethod
    def shapes5i(cls, **changes) -> Protocol:
        """The embedded data set: 97 px, 1,000 episodes."""
        return cls().replace(**changes)

    @classmethod
    def pascal5i(cls, **changes) -> Protocol:
        """PASCAL-5i without the field's shortcuts: labels scored at original size, three episode lists."""
        base = {"name": "pascal5i", "fold_scheme": "VOC order, 5 a fold", "input_size": 417, "label_size": "original"}
        return cls(**base, seeds=(0, 1, 2)).replace(**changes)

    @classmethod
    def coco20i(cls, **changes) -> Protocol:
        """COCO-20i with interleaved folds; 20 classes a fold need more episodes for the same interval."""
        base = cls.pascal5i(name="coco20i", fold_scheme="interleaved: i, i+4, …", input_size=473, episodes=4000)
        return base.replace(**changes)

    @classmethod
    def published(cls, method: str, **changes) -> Protocol:
        """The habits behind a paper's PASCAL-5i numbers, as its authors' code has them (not a recommendation).
        What `changes` replaces is named in `source`."""
        voc = {"fold_scheme": "VOC order, 5 a fold"}
        pfenet = {**voc, "area_filter": 2048, "input_size": 473, "selection": "test_fold", "queries": "every_image"}
        pfenet |= {"seeds": (321,), "bn": "batch"}
        small = "; there, training queries may also show a class below the area filter"
        habits = {
            "panet": {
                **voc, "void": "background", "input_size": 417, "counting": "present",
                "seeds": (1234, 1235, 1236, 1237, 1238), "k_merge": "mean of prototypes",
                "source": "PANet code: test on trainaug images, last snapshot",
            },
            "asgnet": {
                **pfenet, "train_size": 473, "augmentation": "pfenet", "resize": "pad", "label_size": "original",
                "k_merge": "union of prototypes",
                "source": f"ASGNet code: best checkpoint on the test classes{small}; the padding is black, the image "
                "inside has sides of whole eights, and an evaluation has one episode more",
            },
            "sdaanet": {
                **pfenet, "train_size": 321, "augmentation": "sdaanet",
                "k_merge": "mean of re-weighted prototypes and priors", "source": f"SD-AANet code{small}",
            },
            "hdmnet": {
                **pfenet, "label_size": "original", "novel_pixels": "drop", "bn": "frozen",
                "k_merge": "concatenated keys", "seeds": (510, 365, 382, 322, 988, 98, 742, 17, 595, 106),
                "train_size": 473, "augmentation": "hdmnet",
                "source": f"HDMNet code: images with novel classes dropped, best on test classes{small}; the "
                "checkpoint is chosen on episodes of another seed, 321",
            },
        }  # fmt: skip
        if method not in habits:
            raise ProtocolError(f"no published protocol for {method!r}; known: {', '.join(habits)}.")
        paper = cls(**{"name": f"published {method}", **habits[method]})
        changed = paper.replace(**changes)
        choices = [item.name for item in fields(cls) if item.name not in ("name", "list_hash", "backbone", "source")]
        other = [name for name in choices if getattr(changed, name) != getattr(paper, name)]
        return changed.replace(source=f"{changed.source}; not as there: {', '.join(other)}") if other else changed
