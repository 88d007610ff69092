"""Open questions: the answer is a text. Its form is checked, its content is for the instructor."""

import re
from collections.abc import Sequence

from .exercise import Exercise, Wrong, add


def essay(stage: str, name: str, terms: Sequence[str], words: int = 25, figure: bool = True) -> Exercise:
    """An exercise whose function takes nothing and returns the answer as a text.

    Args:
        stage: the notebook's name.
        name: of the function.
        terms: words of the field, at least one of which a relevant answer contains (any case, parts of words count).
        words: the least number of words.
        figure: whether a number that was measured in the notebook has to be quoted.
    """

    def reference() -> str:
        return ""

    def judge(answer) -> None:
        given = answer()
        if not isinstance(given, str):
            raise Wrong("no text", 'Return your answer as a text: return "...". A printed text is lost.')
        found = re.findall(r"[^\W\d_]+", given.lower())
        if len(found) < words:
            raise Wrong("too short", f"{len(found)} words: say in at least {words} words what happens, and why.")
        if len(set(found)) < words // 2:
            raise Wrong("repeats itself", "Most words are the same: say what happens, and why, in sentences.")
        if not any(term.lower() in given.lower() for term in terms):
            raise Wrong("beside the point", f"Use the idea of this notebook that explains it: {' or '.join(terms)}.")
        if figure and not re.search(r"\d", given):
            raise Wrong("no measurement", "Quote at least one number that you measured in this notebook.")

    reference.__name__ = name
    return add(Exercise(stage, reference, lambda: {}, tests=(judge,), written=True))
