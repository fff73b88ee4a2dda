"""Figures and the numbers beside them: every picture is written as PNG, with its CSV of the same name."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fff.base.files import write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "QUIET", "Column", "Drawing", "columns_to_csv", "drawing", "write_drawing"]

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey by their brightness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""What curves and groups are drawn in, in this order."""

INK = "#22303c"
"""Text and axes."""

QUIET = "#8a97a3"
"""What stands behind the data: grids, diagonals, thresholds."""

DPI = 150

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.figsize": (6.4, 4.0),
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.color": QUIET,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": DPI,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Column:
    """A column of the numbers that a figure shows.

    Attributes:
        name: Its heading, a name that programs can use: `force_mae`.
        unit: Its unit; empty for counts and names.
        values: One per row; None where there is none.
    """

    name: str
    unit: str
    values: Sequence[Any]


@dataclass(frozen=True)
class Drawing:
    """A figure with its numbers.

    Attributes:
        name: File name without ending: `learning_curve`.
        title: What it shows, in a few words.
        figure: The picture.
        columns: The numbers it was drawn from, columns of one length.
        caption: What a reader should see in it, in a sentence or two.
    """

    name: str
    title: str
    figure: Figure
    columns: Sequence[Column] = field(repr=False)
    caption: str = ""

    def png(self) -> bytes:
        """Return the picture."""
        buffer = io.BytesIO()
        with drawing():
            # Without the version of matplotlib in it: the same numbers give the same bytes.
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    def csv(self) -> str:
        """Return the numbers: a row of names, a row of units, data."""
        return columns_to_csv(self.columns)


def columns_to_csv(columns: Sequence[Column]) -> str:
    """Return columns of one length as a table: a row of names, a row of units, data."""
    rows = zip(*(column.values for column in columns), strict=True)
    lines = [
        ",".join(_cell(column.name) for column in columns),
        ",".join(_cell(column.unit) for column in columns),
        *(",".join(_cell(value) for value in row) for row in rows),
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Have figures drawn in the project's style until the block ends; no display is needed.

    Make figures with `matplotlib.figure.Figure()` in the block, not with pyplot, which keeps them for ever.
    """
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context():
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["axes.prop_cycle"] = cycler(color=COLOURS)
        yield


def write_drawing(drawn: Drawing, folder: Path) -> Path:
    """Write `<name>.png` and `<name>.csv` to a folder and return the former's path.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    path = folder / f"{drawn.name}.png"
    write_text(folder / f"{drawn.name}.csv", drawn.csv())
    write_bytes(path, drawn.png())
    return path


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN, of whatever kind
        return ""
    text = f"{value:.8g}" if isinstance(value, float) else str(value)
    if any(mark in text for mark in ',"\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text
