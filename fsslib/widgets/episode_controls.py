"""Which episode an explorer looks at: data set, fold, class, supports and query as controls."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..data import load_dataset
from ..data.base import SegmentationDataset
from ..data.transforms import Resize, normalise, vanished
from ..episode import Episode
from ..errors import DatasetError
from ..inference import SIZES
from .explained_models import ExplainedModel, Memo
from .explorer import dropdown, slider, steps

Datasets = SegmentationDataset | Mapping[str, object] | None
FOLDS, MOST = range(4), 5  # supports at most
ALL = ("data", "fold", "cls", "shots", "support", "query")


class EpisodeControls:
    """Controls by name in `controls`, and from their values an episode of one class.

    Args:
        dataset: a data set; or label -> data set, or function fold -> data set, to choose from; None: the embedded
            Shapes-5i with its four folds.
        model_of: the model that looks at a fold. size: pixels a side of the images; None: what suits the model.
        shots, fold: values at first.
        steps_of: what the data sets are steps of, where their labels are numbers: a slider in place of a menu.
        show: which controls there are, of `ALL`; the others keep their first values. `data` and `fold` also stay away
            where there is nothing to choose.
    Raises DatasetError: no data set, or none with a class of two images.
    """

    def __init__(
        self, dataset: Datasets = None, model_of: Callable[[int], ExplainedModel] | None = None, *,
        size: int | None = None, shots: int = 1, fold: int = 0, show: Sequence[str] = ALL, steps_of: str = "",
    ):  # fmt: skip
        if dataset is None:
            dataset = {"Shapes-5i": lambda fold: load_dataset("shapes", fold=fold, split="test")}
        self._given = dict(dataset) if isinstance(dataset, Mapping) else {dataset.name: dataset}
        if not self._given:
            raise DatasetError("there is no data set to choose from: give one, or label -> data set.")
        self._model_of, self._size, self._sets, self._episodes = model_of, size, Memo(), Memo()
        self._every = every = {
            "data": steps(steps_of, self._given, min(self._given)) if steps_of else dropdown("Data", list(self._given)),
            "fold": dropdown("Fold", FOLDS, fold, layout={"width": "8em"}),
            "cls": dropdown("Class", [("", 0)], layout={"width": "15em"}),
            "shots": slider("Supports K", shots, 1, MOST), "support": slider("Support", 0, 0, 0),
            "query": slider("Query", 0, 0, 0),
        }  # fmt: skip
        self.prepare(None)
        useful = {"data": len(self._given) > 1, "fold": any(callable(given) for given in self._given.values())}
        self.controls = {name: widget for name, widget in every.items() if name in show and useful.get(name, True)}

    @property
    def fold(self) -> int:
        """The fold that is chosen."""
        return self._every["fold"].value

    @property
    def model(self) -> ExplainedModel:
        """The model that looks at this fold."""
        return self._model_of(self.fold)

    @property
    def dataset(self) -> SegmentationDataset:
        """The data set that is chosen."""
        label = self._every["data"].value
        given = self._given[label]
        if not callable(given) or isinstance(given, SegmentationDataset):
            return given
        return self._sets((label, self.fold), lambda: given(self.fold))

    def prepare(self, changed: str | None) -> None:
        """Bring the choices in line after control `changed`."""
        every, data = self._every, self.dataset
        if changed in (None, "data", "fold"):
            usable = [cls for cls in data.classes if len(data.different(data.images_of(cls))) > 1]
            if not usable:
                raise DatasetError(f"{data.name} fold {data.fold}: no class has two images, a support and a query.")
            every["fold"].disabled = isinstance(self._given[every["data"].value], SegmentationDataset)
            every["cls"].options = [(data.names.get(cls, f"class {cls}"), cls) for cls in usable]
        if changed in (None, "data", "fold", "cls"):
            for name, images in zip(("support", "query"), self._pools()):
                every[name].max = len(images) - 1
            count = every["query"].max + 1
            every["shots"].max = max(1, min(every["shots"].max, every["support"].max))
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
        supports, queries = self._pools()
        first, shots, query = (self._every[name].value for name in ("support", "shots", "query"))
        order = [*supports[first:], *supports[:first]]
        return [index for index in order if index != queries[query]][:shots], queries[query]

    def _pools(self) -> tuple[Sequence[int], Sequence[int]]:
        """Images of the chosen class that serve as supports, and as queries."""
        data, cls = self.dataset, self.cls
        return data.different(data.supports_of(cls) or data.images_of(cls)), data.different(data.queries_of(cls))

    @property
    def key(self) -> tuple:
        """What identifies the episode, as a key for remembering results."""
        size = self._size or (self.model.size if self._model_of else SIZES["tiny"])
        return (*(self._every[name].value for name in ALL), size)

    def episode(self) -> Episode:
        """The chosen episode, one way, with query mask; other classes are background."""
        return self._episodes(self.key, self._make)

    def object_in(self, mask: Tensor) -> Tensor:
        """A mask of class ids (H, W) uint8 as one of the chosen class: 1 object, 0 background, 255 neither."""
        return torch.where(mask == 255, 255, (mask == self.cls).to(mask.dtype))

    def _make(self) -> Episode:
        supports, query = self.indices()
        pairs = [Resize(self.key[-1])(*self.dataset[index]) for index in [*supports, query]]
        for index, (_, small) in zip(supports, pairs):
            marked = self.dataset[index][1] == self.cls
            if marked.any() and not (small == self.cls).any():
                name = f"{self.dataset.name}: image {index} as a support of {self.name}"
                warnings.warn(vanished(name, marked, Resize(self.key[-1])), stacklevel=4)
        images = normalise(torch.stack([image for image, _ in pairs]))
        masks = torch.stack([self.object_in(mask) for _, mask in pairs]).long()
        cls = torch.tensor([[self.cls]])
        return Episode(images[-1:], masks[-1:], images[None, None, :-1], masks[None, None, :-1], cls)
