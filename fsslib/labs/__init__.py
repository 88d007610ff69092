"""Exercises of the notebooks: `check(my_function)` says within a second whether an answer is right, and what it lacks.

`python -m fsslib.labs` runs a finished notebook in a fresh kernel (`submit`) and tabulates a class (`collect`).
Messages may be improved at will; a name of an exercise or of a slip is what stored results are read by.
"""

from .check import Result, check

__all__ = ["Result", "check"]
