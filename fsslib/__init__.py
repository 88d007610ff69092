"""fsslib: few-shot semantic segmentation, four methods on one thin library.

`import fsslib` needs torch, torchvision and numpy only, and takes nothing from the network.
"""

__version__ = "0.1.0"

from .checkpoints import load_model, load_official, save_model
from .data import load_dataset
from .data.episodes import EpisodeSampler
from .episode import Episode, Prediction
from .errors import FsslibError
from .evaluation import evaluate
from .inference import segment
from .models import build_model, register
from .protocol import Protocol

__all__ = [
    "Episode",
    "EpisodeSampler",
    "FsslibError",
    "Prediction",
    "Protocol",
    "build_model",
    "evaluate",
    "load_dataset",
    "load_model",
    "load_official",
    "register",
    "save_model",
    "segment",
]
