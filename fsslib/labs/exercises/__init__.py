"""The exercises of the notebooks, a file for each: reference answers, cases, and the usual slips explained.

An exercise may be added at will; a reference must differ in wording from the solution in the notebook.
"""
