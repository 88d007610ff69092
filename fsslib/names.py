"""The library's version, names that are imported when they are first used, and modules under their former names."""

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


def on_demand(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports each name when it is first used (PEP 562).

    Args: package: its `__name__`. homes: module below the package -> the names that it holds, separated by spaces.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def hand_out(name: str) -> Any:
        space = vars(sys.modules[package])
        if name in home_of:
            try:
                space[name] = getattr(import_module(f"{package}.{home_of[name]}"), name)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith("fsslib"):
                    raise
                who = package.rpartition(".")[2]
                raise ImportError(f"{who} need {error.name}: pip install -e '.[notebooks]' in the clone.") from error
            return space[name]
        if f"{package}.{name}" in _HOMES or name in (module.name for module in iter_modules(space["__path__"])):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        space = vars(sys.modules[package])
        return sorted({*space, *home_of, *(module.name for module in iter_modules(space["__path__"]))})

    return hand_out, listed, list(home_of)


# Where things live -> the former modules that held them; a module whose contents were divided stands in several rows.
_FORMER = {
    "names": "version", "files": "paths", "training": "schedule selection interrupts",
    "arguments": "experiments.model_conflicts",
    "analysis.baselines": "baselines", "analysis.costs": "costs",
    "analysis.intervals": "plots_prototypes plots_protocol plots_comparison plots_ablation plots_superpixels",
    "plots.common": "plots_prototypes plots_comparison plots_superpixels plots_attention", "plots.display": "figure",
    "plots.pooling": "plots_prototypes", "plots.distillation": "plots_distillation",
    "plots.attention": "plots_attention", "plots.sdaanet_flow": "plots_flow", "plots.superpixels": "plots_superpixels",
    "plots.correlation": "plots_correlation", "plots.ablation": "plots_ablation",
    "plots.comparison": "plots_comparison", "plots.protocol": "plots_protocol", "plots.pixels": "figure",
    "experiments.recipe": "recipe", "experiments.pages": "pages experiments.gallery",
    "experiments.__main__": "experiments.commands",
    "experiments.conflicts": "experiments.model_conflicts", "experiments.parameters": "experiments.files",
    "experiments.runs": "experiments.workplace", "experiments.execute_notebook": "experiments.runner",
    "labs.answers": "labs.compare", "labs.check": "labs.limits labs.result labs.shell",
    "labs.class_table": "labs.table", "labs.exercise": "labs.essay", "labs.hidden_state": "labs.order",
    "labs.in_kernel": "labs.guard labs.verdicts", "labs.exercises.stage_01": "labs.stage_01 labs.stage_01_masks",
    **{f"labs.exercises.stage_0{n}": f"labs.stage_0{n}" for n in (0, 2, 3, 4, 5, 6, 7)},
    "models.base": "models.one_way", "models.shot_by_shot": "merging", "models.sdaanet": "nn.saam nn.sdpm",
    "models.asgnet": "nn.seeds nn.superpixels",
    "models.hdmnet": "nn.transformer nn.matching nn.ensemble models.hdmnet_names",
    "nn.context": "nn.psp nn.aspp nn.enrichment", "nn.backbones.resnet": "nn.resnet nn.tiny",
    "nn.backbones.vgg": "nn.vgg", "nn.backbones.weights": "nn.weights",
    "nn.backbones.cached": "nn.feature_cache nn.feature_store",
    "data.shapes.plan": "data.shapes_plan data.shapes_classes", "data.shapes.knobs": "data.shapes_knobs",
    "data.shapes.drawing": "data.shapes_draw data.shapes_canvas data.shapes_render",
    "data.photographs.pascal": "data.pascal data.voc_files data.voc_lists data.folder_lists",
    "data.photographs.label_index": "data.index", "data.photographs.coco": "data.coco",
    "data.photographs.coco_label_maps": "data.coco_masks data.coco_shapes", "data.photographs.fss1000": "data.fss1000",
    "data.folder.check": "data.folder_checks", "data.folder.coco": "data.folder_coco",
    "data.folder.problems": "data.folder_cures data.folder_report",
    "data.folder.layouts": "data.folder_json data.folder_layouts", "data.folder": "data.folder_layouts",
    "data.folder.names_and_lists": "data.folder_names data.folder_lists", "data.folder.pairs": "data.folder_pairs",
    "data.download.sources": "data.sources", "data.download.locks": "data.disk",
    "data.download.fetch": "data.transfer", "data.download.unpack": "data.unpack", "data.pictures": "data.masks",
    "data.transforms": "data.augmentation", "data.weak_annotations": "data.weak data.stroke",
    "widgets.explained_models": "widgets.bench", "widgets.episode_controls": "widgets.picks",
    "widgets.strokes": "widgets.raster", "widgets.explorers.methods": "widgets.compare widgets.upload",
    "widgets.explorers.episode": "widgets.episodes", "widgets.snapshot": "widgets.still",
    **{f"widgets.explorers.{name}": f"widgets.{name}" for name in
       ("attention", "correlation", "distillation", "prototypes", "superpixels")},
}  # fmt: skip
_RENAMED = {
    "data": "data_folder", "notebooks": "notebooks_folder", "repository": "repository_folder", "cache": "cache_folder",
    "Bench": "ExplainedModel", "Benches": "ModelChoice", "Picks": "EpisodeControls", "RECIPES": "IMAGE_LISTS",
    "shares": "weighted_losses", "METHOD_COLOURS": "LINES", "FILLS": "HUES",
    "KINDS": "AUGMENTATIONS ANNOTATIONS PROBLEM_KINDS", "Found": "Pairing",
}  # fmt: skip
_HOMES: dict[str, list[str]] = {}
for _home, _names in _FORMER.items():
    for _name in _names.split():
        _HOMES.setdefault(f"fsslib.{_name}", []).append(f"fsslib.{_home}")


class _FormerNames(MetaPathFinder, Loader):
    """Finds what no other finder knows: a module that hands on, name by name, what now lives elsewhere."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _HOMES else None

    def exec_module(self, module: ModuleType) -> None:
        homes = _HOMES[module.__name__]
        module.__doc__ = f"Now {' and '.join(homes)}."
        warnings.warn(f"{module.__name__} is now {' and '.join(homes)}", DeprecationWarning, stacklevel=2)

        def hand_on(name: str) -> Any:
            for home in homes:
                for known in (name, *_RENAMED.get(name, "").split()):
                    if known in vars(found := import_module(home)):
                        return vars(found)[known]
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = hand_on


def install_former_names() -> None:
    """Let modules be imported under their former names; called once, by `import fsslib`."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(_FormerNames())
