"""What several figures have in common: colours of sources, axes of time and of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fff.report.drawing import COLOURS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axis import Axis

__all__ = ["colour_of", "logarithmic", "time_unit"]

_SOURCES = {
    "imported": COLOURS[6],
    "initial": COLOURS[5],
    "audit": COLOURS[1],
    "active": COLOURS[0],
    "control": COLOURS[2],
}


def colour_of(source: str) -> str:
    """Return the colour of labels from a source."""
    return _SOURCES.get(source, COLOURS[7])


def time_unit(longest_s: float) -> tuple[float, str]:
    """Return the seconds and the name of a unit in which a time is a handy number."""
    for seconds, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if longest_s >= 2 * seconds:
            return seconds, name
    return 1.0, "s"


def logarithmic(axis: Axis, values: Iterable[float]) -> None:
    """Make an axis logarithmic, with numbers a reader can read also where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    positive = [value for value in values if value > 0]
    if not positive:
        return
    low, high = min(positive), max(positive)
    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": "log"})
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.axes.set(**{f"{name}lim": (low / 1.35, high * 1.35)})
