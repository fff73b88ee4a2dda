"""A reference program for tests: Lennard-Jones energies and gradients, asked for as the program xtb is.

It stands alone, on the standard library, and is as unreliable as its arguments say. Whether a structure
fails, and how, follows from the hash of its input file: the same structure fails in the same way each time.
Every calculation leaves a line in the audit file when it begins and one when it ends, each written in one
piece, so that the calculations that were really made can be counted whatever was killed meanwhile.

Source: J. E. Jones, Proc. R. Soc. Lond. A 106, 463 (1924), doi:10.1098/rspa.1924.0082.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import os
import signal
import sys
import time
from pathlib import Path

DEPTH_HARTREE = 0.011
"""Depth of the well, 0.3 eV."""

DIAMETER_BOHR = 4.346
"""Distance of no energy, 2.30 Å: neighbours like to be 2.58 Å apart, which copper atoms do."""

HANGS_S = 600.0


def main() -> int:
    """Calculate what lies in the current folder, or fail at it; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--audit", type=Path, required=True, help="file that calculations leave lines in")
    for name in ("raises", "hangs", "nan", "dies-once"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="part of the structures that do it")
    parser.add_argument("--broken-by", type=Path, help="while this file exists every calculation fails")
    parser.add_argument("--pace", type=Path, help="file with the seconds that a calculation takes")
    parser.add_argument("--version", action="store_true")
    options, _ = parser.parse_known_args()
    if options.version:
        sys.stdout.write("xtb version 0.0 (Lennard-Jones)\n")
        return 0
    coord = Path("coord").read_text(encoding="utf-8")
    name = hashlib.sha256(coord.encode()).hexdigest()[:16]
    tries = note(options.audit, "begin", name)
    if options.pace and options.pace.exists():
        time.sleep(float(options.pace.read_text(encoding="utf-8")))
    kind = kind_of(name, options)
    if options.broken_by and options.broken_by.exists():
        return complain("the parameter file is broken")
    if kind == "raises":
        return complain("this structure is not to its liking")
    if kind == "hangs":
        time.sleep(HANGS_S)
    if kind == "dies-once" and tries == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    positions, symbols = read(coord)
    energy, gradient = lennard_jones(positions)
    if kind == "nan":
        energy = math.nan
    Path("gradient").write_text(written(energy, positions, symbols, gradient), encoding="utf-8")
    note(options.audit, "end", name)
    return 0


def kind_of(name: str, options: argparse.Namespace) -> str:
    """Return how a structure fails, or an empty text."""
    draw = int(name, 16) / 16 ** len(name)
    for kind in ("raises", "hangs", "nan", "dies-once"):
        draw -= getattr(options, kind.replace("-", "_"))
        if draw < 0:
            return kind
    return ""


def complain(why: str) -> int:
    """Say in xtb's way what went wrong, and return the exit code."""
    sys.stdout.write(f"[ERROR] Program stopped due to fatal error\n-1- lennard_jones: {why}\n")
    return 1


def note(audit: Path, what: str, name: str) -> int:
    """Append a line to the audit file and return how often it holds that line."""
    line = f"{what} {name} {time.time():.3f}\n"
    handle = os.open(audit, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, line.encode())
    os.close(handle)
    return audit.read_text(encoding="utf-8").count(f"{what} {name} ")


def read(coord: str) -> tuple[list[tuple[float, float, float]], list[str]]:
    """Return positions (Bohr) and symbols of Turbomole's format."""
    rows = [line.split() for line in coord.splitlines() if not line.startswith("$")]
    return [(float(x), float(y), float(z)) for x, y, z, _ in rows], [row[3] for row in rows]


def lennard_jones(positions: list[tuple[float, float, float]]) -> tuple[float, list[list[float]]]:
    """Return energy (Hartree) and gradient (Hartree/Bohr)."""
    energy = 0.0
    gradient = [[0.0, 0.0, 0.0] for _ in positions]
    for i, j in itertools.combinations(range(len(positions)), 2):
        difference = [a - b for a, b in zip(positions[i], positions[j], strict=True)]
        squared = sum(component**2 for component in difference)
        ratio = (DIAMETER_BOHR**2 / squared) ** 3
        energy += 4 * DEPTH_HARTREE * (ratio**2 - ratio)
        slope = -24 * DEPTH_HARTREE * (2 * ratio**2 - ratio) / squared
        for axis, component in enumerate(difference):
            gradient[i][axis] += slope * component
            gradient[j][axis] -= slope * component
    return energy, gradient


def written(
    energy: float,
    positions: list[tuple[float, float, float]],
    symbols: list[str],
    gradient: list[list[float]],
) -> str:
    """Return a file of energy and gradient in Turbomole's format."""
    rows = [f"{x:.14f} {y:.14f} {z:.14f}" for x, y, z in positions]
    rows = [f"{row} {symbol}" for row, symbol in zip(rows, symbols, strict=True)]
    rows += [" ".join(f"{component:.14e}" for component in row) for row in gradient]
    head = f"  cycle = 1    SCF energy = {energy:.14f}   |dE/dxyz| = 0.0"
    return "\n".join(["$grad", head, *rows, "$end", ""])


if __name__ == "__main__":
    sys.exit(main())
