"""The frame of every explorer: controls, a board that follows them, and a rule for slow models."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ipywidgets
import traitlets

from ..errors import FsslibError
from .board import Bars, Board, Panel
from .live import live_view
from .snapshot import SIDE, bundle, still

# Seconds without a message from the page before an answer is computed; behind a slow one more, because the page sends
# its next value only when the kernel has taken the last one.
QUIET, LONGER = 0.02, 0.15
PATIENCE = 0.1  # seconds that a stream of messages may hold up a quick answer
LABELLED = {"description_width": "initial"}
WIDE = {"layout": {"width": "19em"}, "style": LABELLED}


@dataclass(frozen=True)
class Scene:
    """One state of an explorer: panels, what they say in a sentence, and the numbers behind it for tests and text."""

    panels: Sequence[Panel | Bars]
    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Explorer(ipywidgets.VBox):
    """Controls above a board of pictures.

    Values set from Python show at once: when `explorer.set(...)` or `explorer.controls["shots"].value = 5` returns, the
    pictures are new. Moves on the page wait until no further one has come for a moment, and what arrives while a model
    runs is answered once, with the last values: results nobody waits for any more are never computed.

    Args:
        controls: name -> widget with a `value`. Those without a place of their own stand in one row above the board.
        draw: from the values of all controls, and `point` where the board was pointed at, by name, to a `Scene`.
        prepare: called with the name of the control that has changed (None at first) before drawing, to adjust others.
        label: the explorer's name for screen readers.
        above: widgets that stand above the controls. beside: the same, at their left where there is room.
        hidden: names of controls that are among those, or need no place in the row.
    Attributes:
        controls, board, scene: see above; `scene.facts` are the numbers on display. runs: how often it has drawn.
    """

    def __init__(
        self, controls: Mapping[str, ipywidgets.Widget], draw: Callable[..., Scene], *, label: str,
        prepare: Callable[[str | None], None] | None = None, above: Sequence[ipywidgets.Widget] = (),
        beside: Sequence[ipywidgets.Widget] = (), hidden: Sequence[str] = (),
    ):  # fmt: skip
        self.controls = dict(controls)
        self.board, self.scene, self.runs = Board(label=label), Scene((), ""), 0
        self._draw, self._prepare = draw, prepare
        self._still, self._timer, self._deadline, self._took = 0, None, 0.0, 0.0
        self._pending: dict[str, None] = {}  # controls that the page has moved, in order
        row = ipywidgets.Box([widget for name, widget in self.controls.items() if name not in hidden])
        row.add_class("fss-controls")
        parts = [row, self.board]
        if beside:
            parts = [ipywidgets.Box([*beside, ipywidgets.VBox(parts)])]
            parts[0].add_class("fss-beside")
        super().__init__([*above, *parts])
        self.add_class("fss-explorer")
        for name, widget in self.controls.items():
            widget.add_class(f"fss-control-{name}")  # for style sheets, and for whoever drives the page
            widget.observe(lambda _, name=name: self._changed(name), "value")
        self.follow(self.board, "point")
        self._renew(None)

    def set(self, **values: Any) -> "Explorer":
        """Change several controls, and `point`, and draw once. Raises FsslibError for an unknown control or value."""
        targets = {name: (widget, "value") for name, widget in self.controls.items()} | {"point": (self.board, "point")}
        for name, value in values.items():
            if name not in targets:
                raise FsslibError(f"{self.board.label} has no control {name!r}; there are: {', '.join(targets)}.")
            with self._held():
                try:
                    setattr(*targets[name], value)
                except traitlets.TraitError as error:
                    raise FsslibError(f"{self.board.label}: {name}={value!r}: {error}") from error
                if self._prepare:
                    self._prepare(name)
        self.refresh()
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The controls' values and the point, by name."""
        return {**{name: widget.value for name, widget in self.controls.items()}, "point": self.board.point}

    def follow(self, widget: traitlets.HasTraits, trait: str) -> None:
        """Draw again when `trait` of another widget changes, by the rule for controls."""
        widget.observe(lambda _: self._changed(trait), trait)

    def refresh(self) -> None:
        """Draw again, now. Raises what drawing raises; the page shows it, too, and keeps the last pictures."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        start = time.monotonic()
        with self._told():
            self.runs += 1
            scene = self._draw(**self.values)
            with self.board.hold_sync():
                self.board.panels = [panel.message() for panel in scene.panels]
                self.board.words, self.board.trouble = scene.words, ""
            self.scene = scene
        self._took = time.monotonic() - start

    @contextmanager
    def _told(self):
        """The page says that work is going on, and what has gone wrong."""
        self.board.busy = True
        try:
            yield
        except Exception as error:
            name = "" if isinstance(error, FsslibError) else f"{type(error).__name__}: "
            self.board.trouble = f"{name}{error}"
            raise
        finally:
            self.board.busy = False

    @contextmanager
    def _held(self):
        """Changes of controls inside the block draw nothing."""
        self._still += 1
        try:
            yield
        finally:
            self._still -= 1

    def _changed(self, name: str) -> None:
        if self._still:
            return
        if not from_page():
            return self._renew(name)
        self._pending.pop(name, None)
        self._pending[name] = None
        loop = asyncio.get_running_loop()
        quiet = min(max(QUIET, LONGER * self._took), LONGER)
        if self._timer is None:
            self._deadline = loop.time() + max(PATIENCE, 2 * quiet)
        else:
            self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + quiet, self._deadline), self._late)

    def _late(self) -> None:
        self._timer = None
        names, self._pending = self._pending, {}
        with suppress(FsslibError):  # on the page already
            self._renew(*names)

    def _renew(self, *names: str | None) -> None:
        if self._prepare:
            with self._told(), self._held():
                for name in names:
                    self._prepare(name)
        self.refresh()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The live view, and for everything that cannot show one a picture of the state as it is now, with words."""
        live, notes = live_view(super()._repr_mimebundle_(**kwargs))
        seen = "; ".join(panel.caption for panel in self.scene.panels)
        alt = f"{self.board.label}: {seen}. {self.scene.words}"
        data, metadata = bundle(still(self.scene.panels), alt, SIDE, quality=52, colours=56)
        return {**live, **data}, {**notes, **metadata}


def from_page() -> bool:
    """Whether the kernel is answering a message of the page, and not running somebody's code."""
    try:
        from IPython import get_ipython
    except ModuleNotFoundError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent() if kernel is not None else {}
    return (parent or {}).get("header", {}).get("msg_type", "").startswith("comm_")


def dropdown(label: str, options: Any, value: Any = None, **how: Any) -> ipywidgets.Dropdown:
    """A choice with a label that fits beside it."""
    options = list(options.items()) if isinstance(options, Mapping) else list(options)
    how |= {} if value is None else {"value": value}
    return ipywidgets.Dropdown(options=options, description=label, style=LABELLED, **how)


def slider(label: str, value: float, low: float, high: float, step: float = 1) -> ipywidgets.IntSlider:
    """A slider of whole numbers, or of others where `value` is none; it follows the hand."""
    kind = ipywidgets.IntSlider if isinstance(value, int) else ipywidgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=label, **WIDE)


def steps(label: str, values: Sequence[float], value: float) -> ipywidgets.SelectionSlider:
    """A slider of unevenly spaced numbers, the one at first among them."""
    options = [(f"{number:g}", number) for number in sorted({*values, float(value)})]
    return ipywidgets.SelectionSlider(options=options, value=float(value), description=label, **WIDE)


def switch(label: str, value: bool) -> ipywidgets.Checkbox:
    """A box to tick."""
    return ipywidgets.Checkbox(value=value, description=label, indent=False, layout={"width": "auto"})
