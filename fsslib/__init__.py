"""fsslib: few-shot semantic segmentation, four methods on one thin library.

`import fsslib` takes nothing from the network and no time: every name below, and every module of the package, is
imported when it is first used. Building a model and scoring it on Shapes-5i needs torch and numpy only.
"""

# ruff: noqa: F401

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:  # for editors; below is what runs
    from .checkpoints import load_model, load_official, save_model
    from .data import load_dataset
    from .data.episodes import EpisodeSampler
    from .episode import Episode, Prediction
    from .errors import FsslibError
    from .evaluation import evaluate
    from .inference import segment
    from .models import build_model, register
    from .protocol import Protocol

_HOMES = {
    "Episode": "episode",
    "EpisodeSampler": "data.episodes",
    "FsslibError": "errors",
    "Prediction": "episode",
    "Protocol": "protocol",
    "build_model": "models",
    "evaluate": "evaluation",
    "load_dataset": "data",
    "load_model": "checkpoints",
    "load_official": "checkpoints",
    "register": "models",
    "save_model": "checkpoints",
    "segment": "inference",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value
    if name in __dir__():
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(module.name for module in iter_modules(__path__)), "__version__"]
