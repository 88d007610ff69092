"""Which episode an explorer looks at: data set, fold, class, supports and query as controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..data import load_dataset
from ..data.base import SegmentationDataset
from ..data.transforms import Resize, normalise
from ..episode import Episode
from ..errors import DatasetError
from .explained_models import Memo
from .explorer import dropdown, slider

FOLDS = range(4)
ALL = ("data", "fold", "cls", "shots", "support", "query")


class EpisodeControls:
    """Controls by name in `controls`, and from their values an episode of one class.

    Args:
        dataset: a data set; or label -> data set, or function fold -> data set, to choose from; None: the embedded
            Shapes-5i with its four folds.
        size: pixels a side of the images, or a function that tells them when an episode is made.
        shots, most: supports at first, and at most.
        show: which controls there are, of `ALL`; the others keep their first values. `data` and `fold` also stay away
            where there is nothing to choose.
    Raises DatasetError: no data set, or none with a class of two images.
    """

    def __init__(
        self,
        dataset: SegmentationDataset | Mapping[str, object] | None = None,
        *,
        size: int | Callable[[], int] = 97,
        shots: int = 1,
        most: int = 5,
        fold: int = 0,
        show: Sequence[str] = ALL,
    ):
        if dataset is None:
            dataset = {"Shapes-5i": lambda fold: load_dataset("shapes", fold=fold, split="test")}
        self._given = dict(dataset) if isinstance(dataset, Mapping) else {dataset.name: dataset}
        if not self._given:
            raise DatasetError("there is no data set to choose from: give one, or label -> data set.")
        self.size, self._sets, self._episodes = size, {}, Memo()
        every = {
            "data": dropdown("Data", list(self._given)),
            "fold": dropdown("Fold", FOLDS, fold, layout={"width": "8em"}),
            "cls": dropdown("Class", [("", 0)], layout={"width": "15em"}),
            "shots": slider("Supports K", shots, 1, most),
            "support": slider("Support", 0, 0, 0),
            "query": slider("Query", 0, 0, 0),
        }
        self._every = every
        self.prepare(None)
        idle = {"data"} if len(self._given) == 1 else set()
        idle |= set() if any(callable(one) for one in self._given.values()) else {"fold"}
        self.controls = {name: widget for name, widget in every.items() if name in show and name not in idle}

    @property
    def fold(self) -> int:
        """The fold that is chosen."""
        return self._every["fold"].value

    @property
    def dataset(self) -> SegmentationDataset:
        """The data set that is chosen."""
        label = self._every["data"].value
        given = self._given[label]
        if not callable(given) or isinstance(given, SegmentationDataset):
            return given
        if (label, self.fold) not in self._sets:
            self._sets[label, self.fold] = given(self.fold)
        return self._sets[label, self.fold]

    def prepare(self, changed: str | None) -> None:
        """Bring the choices in line after control `changed`."""
        every, data = self._every, self.dataset
        if changed in (None, "data", "fold"):
            usable = [cls for cls in data.classes if len(data.images_of(cls)) > 1]
            if not usable:
                raise DatasetError(f"{data.name} fold {data.fold}: no class has two images, a support and a query.")
            every["fold"].disabled = isinstance(self._given[every["data"].value], SegmentationDataset)
            every["cls"].options = [(data.names.get(cls, f"class {cls}"), cls) for cls in usable]
        if changed in (None, "data", "fold", "cls"):
            count = len(data.images_of(every["cls"].value))
            for name in ("support", "query"):
                every[name].max = count - 1
            every["shots"].max = max(1, min(every["shots"].max, count - 1))
            if every["support"].value == every["query"].value:
                every["query"].value = (every["support"].value + every["shots"].max) % count

    @property
    def cls(self) -> int:
        """The class that is chosen, its id."""
        return self._every["cls"].value

    @property
    def name(self) -> str:
        """The class that is chosen, in words."""
        return self._every["cls"].label

    def indices(self) -> tuple[list[int], int]:
        """The K supports' and the query's place among the data set's images. Supports follow each other from the
        chosen one on; the query is never among them."""
        images = self.dataset.images_of(self._every["cls"].value)
        query = self._every["query"].value
        order = [(self._every["support"].value + step) % len(images) for step in range(len(images))]
        supports = [at for at in order if at != query][: self._every["shots"].value]
        return [images[at] for at in supports], images[query]

    @property
    def key(self) -> tuple:
        """What identifies the episode, as a key for remembering results."""
        size = self.size() if callable(self.size) else self.size
        chosen = (self._every[name].value for name in ALL)
        return (*chosen, size)

    def episode(self) -> Episode:
        """The chosen episode, one way, with query mask; other classes are background."""
        return self._episodes(self.key, self._make)

    def _make(self) -> Episode:
        data, cls, shape = self.dataset, self._every["cls"].value, Resize(self.key[-1])
        supports, query = self.indices()
        pairs = [shape(*data[index]) for index in [*supports, query]]
        images = normalise(torch.stack([image for image, _ in pairs]))
        masks = torch.stack([torch.where(m == 255, 255, (m == cls).to(m.dtype)) for _, m in pairs]).long()
        return Episode(images[-1:], masks[-1:], images[None, None, :-1], masks[None, None, :-1], torch.tensor([[cls]]))
