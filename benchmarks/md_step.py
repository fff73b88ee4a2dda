"""Milliseconds for a step of dynamics: the fast calculator against SchNetPack's own way of doing it.

`python benchmarks/md_step.py`. The rival finds all pairs anew at each step, converts the structure and runs
SchNetPack's modules with gradients to positions, as its `SpkCalculator` does. CPU time, one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import MatScipyNeighborList

from fff.models import MDCalculator, SchNetPackForceField, create_force_field


class SchNetPackCalculator(Calculator):
    """SchNetPack's modules, neighbour list and converter, on the same parameters."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE has it

    def __init__(self, force_field: SchNetPackForceField) -> None:
        super().__init__()
        network = force_field.network
        readout = Atomwise(n_in=force_field.description["n_features"], output_key="energy")
        readout.outnet = network.readout.outnet
        self.model = NeuralNetworkPotential(
            representation=network.representation,
            input_modules=[PairwiseDistances()],
            output_modules=[readout, Forces(energy_key="energy", force_key="forces")],
        )
        self.converter = AtomsConverter(
            neighbor_list=MatScipyNeighborList(cutoff=force_field.cutoff_A), device="cpu", dtype=torch.float32
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: object = None,
        system_changes: object = tuple(all_changes),
    ) -> None:
        """Fill `results` the way SpkCalculator does."""
        super().calculate(atoms, properties, system_changes)
        found = self.model(self.converter(atoms))
        self.results = {
            "energy": float(found["energy"].detach()),
            "forces": found["forces"].detach().numpy().astype(float),
        }


def time_steps(atoms: Atoms, calculator: Calculator, n_steps: int) -> float:
    """Return the CPU milliseconds that a step of dynamics takes."""
    atoms = atoms.copy()
    atoms.calc = calculator
    spread = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=atoms.positions.shape))
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.run(5)
    began = time.process_time()
    dynamics.run(n_steps)
    return 1e3 * (time.process_time() - began) / n_steps


def main() -> None:
    """Print a table over models and structures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-steps", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(1)
    copper = bulk("Cu", cubic=True) * (3, 3, 3)
    copper.rattle(0.05, seed=1)
    structures = {"ethanol": molecule("CH3CH2OH"), "benzene": molecule("C6H6"), "copper 108": copper}
    print("model        structure    fast ms  SchNetPack ms")
    for representation, n_features, n_layers in [("painn", 32, 2), ("painn", 64, 3), ("schnet", 64, 3)]:
        settings = {
            "representation": representation,
            "n_features": n_features,
            "n_layers": n_layers,
            "cutoff_A": 5.0,
            "n_radial": 20,
        }
        for name, atoms in structures.items():
            force_field = create_force_field(
                settings, seed=0, elements=[1, 6, 8, 29], reference_energies={}, device="cpu"
            )
            fast = time_steps(atoms, MDCalculator(force_field), given.n_steps)
            rival = time_steps(atoms, SchNetPackCalculator(force_field), given.n_steps)
            label = f"{representation} {n_features}x{n_layers}"
            print(f"{label:12s} {name:12s} {fast:7.2f}  {rival:13.2f}", flush=True)


if __name__ == "__main__":
    main()
