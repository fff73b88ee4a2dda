"""Conversions to the units used everywhere inside: eV, Å, fs, K, eV/Å.

Values: CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010, doi:10.1103/RevModPhys.93.025010).
"""

from __future__ import annotations

__all__ = ["BOHR_A", "HARTREE_PER_BOHR_eV_PER_A", "HARTREE_eV", "kB_eV_PER_K"]

HARTREE_eV = 27.211386245988
BOHR_A = 0.529177210903
HARTREE_PER_BOHR_eV_PER_A = HARTREE_eV / BOHR_A
kB_eV_PER_K = 8.617333262e-5
