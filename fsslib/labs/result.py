"""What a student reads after a check, on the page and in a terminal."""

import html
import re
from dataclasses import dataclass

# status -> (mark, words, colour of the bar beside it); the words say it without the colour.
_LOOKS = {
    "right": ("✓", "right", "#009e73"),
    "wrong": ("✗", "not yet", "#d55e00"),
    "stopped": ("✗", "stopped with an error", "#d55e00"),
    "slow": ("✗", "took too long", "#d55e00"),
    "unknown": ("?", "not an exercise", "#d55e00"),
    "missing": ("?", "not found", "#d55e00"),
    "unsolved": ("…", "not solved yet", "#0072b2"),
}


@dataclass(frozen=True)
class Result:
    """The outcome of one check; true if the answer is right, so that `assert check(answer)` grades in pytest.

    Attributes:
        name: of the exercise, which is the function's.
        status: "right", "wrong", "stopped" (an exception), "slow", "unsolved" (the stub), "missing" (the notebook has
            no such function) or "unknown" (no such exercise).
        message: for the student; names the missing idea.
        slip: short name of the misconception for the class table, or "".
    """

    name: str
    status: str
    message: str
    slip: str = ""

    def __bool__(self) -> bool:
        return self.status == "right"

    def __repr__(self) -> str:
        mark, words, _ = _LOOKS[self.status]
        return f"{mark} {self.name}: {words}. {self.message}".rstrip()

    def _repr_html_(self) -> str | None:
        if self and not self.message:  # a short line needs no box, and stored notebooks stay small
            return None
        mark, words, colour = _LOOKS[self.status]
        said = "".join(f"<br>{_marked(line)}" for line in self.message.splitlines())
        return (
            f'<div role="status" style="border-left:4px solid {colour};padding:2px 10px">'
            f"<b>{mark} <code>{html.escape(self.name)}</code>: {words}.</b>{said}</div>"
        )


def _marked(text: str) -> str:
    """`code` and *emphasis* as HTML; everything else as it is."""
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"(?<![\w*])\*(\w[^*]*?)\*(?![\w*])", r"<em>\1</em>", safe)
