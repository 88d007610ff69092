"""nbval's kernels inherit this process's variables: the same as when the notebooks were built."""

import os
import tempfile

from tools import build

os.environ.update(build.environment())
# A checked notebook may not touch the repository's figures.
os.environ["FSSLIB_FIGURES"] = tempfile.mkdtemp(prefix="figures-")
