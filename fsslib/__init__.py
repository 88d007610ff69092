"""fsslib: few-shot semantic segmentation, four methods on one thin library.

`import fsslib` takes nothing from the network and no time: every name below, and every module of the package, is
imported when it is first used. Building a model and scoring it on Shapes-5i needs torch and numpy only.
"""

# ruff: noqa: F401

from typing import TYPE_CHECKING

from .names import __version__, install_former_names, on_demand

if TYPE_CHECKING:  # for editors; below is what runs
    from .checkpoints import load_model, load_official, save_model
    from .data import load_dataset
    from .data.episodes import EpisodeSampler
    from .episode import Episode, Prediction
    from .errors import FsslibError
    from .evaluation import evaluate
    from .experiments.sharing import load_pretrained, push_to_hub, save_pretrained
    from .inference import segment
    from .models import build_model, register
    from .protocol import Protocol

install_former_names()
__getattr__, __dir__, __all__ = on_demand(__name__, {
    "checkpoints": "load_model load_official save_model", "data": "load_dataset", "data.episodes": "EpisodeSampler",
    "episode": "Episode Prediction", "errors": "FsslibError", "evaluation": "evaluate",
    "experiments.sharing": "load_pretrained push_to_hub save_pretrained", "inference": "segment",
    "models": "build_model register", "protocol": "Protocol",
})  # fmt: skip
