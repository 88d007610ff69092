"""Strict, restartable runs of the notebooks: one place to import them from, and the command line.

python -m fsslib.experiments run -p method=panet -p fold=1
python -m fsslib.experiments sweep --file grid.json --jobs 2
python -m fsslib.experiments collect
"""

from .comparison import compare, over_seeds
from .conflicts import check_parameters
from .gallery import write_index
from .parameters import ExperimentParameters, parameters_help
from .results import collect, read_result, write_result
from .runs import run, run_name, run_notebook, status
from .sweeps import sweep

__all__ = [
    "ExperimentParameters",
    "check_parameters",
    "collect",
    "compare",
    "over_seeds",
    "parameters_help",
    "read_result",
    "run",
    "run_name",
    "run_notebook",
    "status",
    "sweep",
    "write_index",
    "write_result",
]
