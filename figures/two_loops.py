"""Draw the two loops and the four agents.

`python figures/two_loops.py` writes `two_loops.png` and `two_loops.svg` beside itself.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # no display needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK = "#22303c"
QUIET = "#566674"
CPU = "#1d5f86"
ACCELERATOR = "#a4501f"
SAMPLING = "#e9f1f7"
TRAINING = "#fbf0e6"
QUEUE = "#c7d3dd"

# One unit is an inch at the drawn size.
WIDTH, HEIGHT = 12.6, 7.3
LEFT, RIGHT = 2.7, 9.9  # the inner edges of Sampler and Calculator
MIDDLE = (LEFT + RIGHT) / 2
HALF = 1.2  # half the width of Selector and Trainer
AUDIT, VERDICT, FRAMES, LABELS = 5.8, 4.8, 2.92, 1.25  # heights of the four lanes


def rounded(axes: Axes, corner: tuple[float, float], size: tuple[float, float], colour: str) -> None:
    """Draw a filled box with rounded corners."""
    box = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.15", fc=colour, ec="none")
    axes.add_patch(box)


def panel(axes: Axes, y: float, height: float, colour: str, title: str) -> None:
    """Draw the ground of one loop; `title` is its name and, after a line break, what it is for."""
    # It reaches below the tall agents, whose corners are round.
    rounded(axes, (LEFT - 0.5, y), (RIGHT - LEFT + 1.0, height), colour)
    name, line = title.split("\n")
    axes.text(LEFT + 0.28, y + height - 0.32, name, size=14, weight="bold", color=INK, va="center")
    axes.text(RIGHT - 0.28, y + height - 0.32, line, size=11, color=QUIET, va="center", ha="right")


def agent(
    axes: Axes, centre: tuple[float, float], size: tuple[float, float], colour: str, lines: list[str]
) -> None:
    """Draw an agent: the first of `lines` is its name, the others say what it does."""
    (x, y), (width, height) = centre, size
    rounded(axes, (x - width / 2, y - height / 2), size, colour)
    top = y + 0.145 * len(lines) - 0.13
    axes.text(x, top, lines[0], size=16, weight="bold", color="white", ha="center", va="center")
    for i, line in enumerate(lines[1:]):
        axes.text(x, top - 0.37 - 0.27 * i, line, size=11, color="white", ha="center", va="center")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a straight arrow."""
    style = "-|>,head_length=7,head_width=3.6"
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, lw=1.9, color=INK, shrinkA=0, shrinkB=0))


def lane_with_queue(axes: Axes, y: float, start: float, end: float, names: tuple[str, str]) -> None:
    """Draw an arrow from `start` to `end` with a waiting list in it; `names`: above it and below it."""
    side, gap, n = 0.26, 0.07, 4
    width = n * side + (n - 1) * gap
    x = (start + end) / 2
    arrow(axes, (start, y), (x - width / 2 - 0.1, y))
    arrow(axes, (x + width / 2 + 0.1, y), (end, y))
    for i in range(n):
        corner = (x - width / 2 + i * (side + gap), y - side / 2)
        axes.add_patch(Rectangle(corner, side, side, fc=QUEUE, ec=INK, lw=1.1))
    note(axes, x, y + 0.36, names[0])
    axes.text(x, y - 0.36, names[1], size=11, color=INK, ha="center", va="center", style="italic")


def note(axes: Axes, x: float, y: float, text: str, ha: str = "center") -> None:
    """Write what travels along an arrow."""
    axes.text(x, y, text, size=11, color=INK, ha=ha, va="center")


def sampling_loop(axes: Axes) -> None:
    """Draw the upper loop: dynamics, audit, verdict, and on."""
    panel(axes, 4.2, 2.75, SAMPLING, "Sampling loop\ngoes as far as the model can be trusted")
    lane_with_queue(axes, AUDIT, LEFT, RIGHT, ("last sound frame of a trajectory", "audit list"))
    arrow(axes, (RIGHT, VERDICT), (LEFT, VERDICT))
    note(axes, MIDDLE, VERDICT + 0.24, "verdict: the model against the reference")
    note(axes, MIDDLE, VERDICT - 0.27, "passed: the trajectory goes on   ·   not passed: back to its start")


def training_loop(axes: Axes) -> None:
    """Draw the lower loop: score, choose, label, retrain."""
    panel(axes, 0.45, 3.6, TRAINING, "Training loop\nlabels what the committee knows least")
    lane_with_queue(axes, FRAMES, LEFT, MIDDLE - HALF, ("other frames", "frame pool"))
    lane_with_queue(axes, FRAMES, MIDDLE + HALF, RIGHT, ("most informative", "selection list"))
    box = (2 * HALF, 1.15)
    agent(axes, (MIDDLE, FRAMES), box, ACCELERATOR, ["Selector", "the committee scores,", "a rule chooses"])
    agent(
        axes, (MIDDLE, LABELS), box, ACCELERATOR, ["Trainer", "each member on its own", "draw of the labels"]
    )
    arrow(axes, (RIGHT, LABELS), (MIDDLE + HALF, LABELS))
    note(axes, (RIGHT + MIDDLE + HALF) / 2, LABELS + 0.24, "labels")
    note(axes, (RIGHT + MIDDLE + HALF) / 2, LABELS - 0.27, "energies and forces")
    arrow(axes, (MIDDLE - HALF, LABELS), (LEFT, LABELS))
    note(axes, (LEFT + MIDDLE - HALF) / 2, LABELS + 0.24, "first new member")
    note(axes, (LEFT + MIDDLE - HALF) / 2, LABELS - 0.27, "drives the dynamics")
    arrow(axes, (MIDDLE, LABELS + box[1] / 2), (MIDDLE, FRAMES - box[1] / 2))
    note(axes, MIDDLE + 0.18, (LABELS + FRAMES) / 2, "new committee", ha="left")


def legend(axes: Axes) -> None:
    """Say which workers do what."""
    for x, colour, text in ((LEFT + 0.28, CPU, "CPU workers"), (LEFT + 2.1, ACCELERATOR, "accelerators")):
        axes.add_patch(Rectangle((x, 0.09), 0.3, 0.18, fc=colour, ec="none"))
        axes.text(x + 0.42, 0.18, text, size=10.5, color=QUIET, va="center")
    axes.text(
        RIGHT - 0.28,
        0.18,
        "a laptop shares one pool of workers",
        size=10.5,
        color=QUIET,
        va="center",
        ha="right",
    )


def draw() -> Figure:
    """Return the whole figure."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    figure.subplots_adjust(0, 0, 1, 1)
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT - 0.1), aspect="equal")
    axes.axis("off")
    sampling_loop(axes)
    training_loop(axes)
    tall, y = (2.35, 6.7), 3.7
    sampler = ["Sampler", "molecular dynamics", "with the current model", "", "ends early where the"]
    agent(axes, (LEFT - tall[0] / 2, y), tall, CPU, [*sampler, "committee disagrees"])
    calculator = ["Calculator", "the reference method:", "xTB, PySCF or any", "ASE calculator", ""]
    agent(axes, (RIGHT + tall[0] / 2, y), tall, CPU, [*calculator, "draws at random", "from both lists"])
    legend(axes)
    return figure


def main() -> None:
    """Write the figure as PNG for the README and as SVG for slides."""
    mpl.rcParams["svg.hashsalt"] = "fff"  # the same drawing gives the same file
    figure = draw()
    target = Path(__file__).with_suffix(".png")
    figure.savefig(target, dpi=150)
    figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
