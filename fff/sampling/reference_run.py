"""Molecular dynamics driven by the reference method itself: structures for a test set, with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.base.errors import NotConvergedError
from fff.base.ids import settings_hash, structure_hash
from fff.data.records import Label
from fff.sampling.integrators import draw_momenta, integrator_arrays, make_integrator, restore_integrator
from fff.stages import StageBuilder, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from ase.md.langevinbaoab import LangevinBAOAB

    from fff.stages import Lifetime

__all__ = ["reference_dynamics"]

# A relaxed structure gives half of its fresh kinetic energy away; at this friction the thermostat returns it
# within 20 fs. Such friction would slow the exploration that follows, which has a tenth of it.
_EQUILIBRATION_FRICTION_PER_fs = 0.05
_FRICTION_PER_fs = 0.005
# Part of a checkpoint's identity: to be raised when the loop below makes other numbers of the same state.
_LOOP_VERSION = 1


def reference_dynamics(  # noqa: PLR0913 - what the dynamics depend on, all of it
    start: Atoms,
    calculator: BaseCalculator,
    *,
    temperature_K: float,
    n_frames: int,
    interval_steps: int,
    timestep_fs: float,
    equilibration_steps: int,
    seed: int,
    lifetime: Lifetime | None = None,
) -> list[Label] | None:
    """Return frames of Langevin dynamics with the reference, each with its energy and forces as a label.

    No frame costs a calculation of its own: the labels are the numbers that drove the dynamics. The run owes
    nothing to `start` but the geometry, since fresh momenta are drawn and the first steps are thrown away.

    Args:
        start: Where to begin; momenta it may have are ignored.
        calculator: The reference method, with energy and forces (eV, eV/Å).
        temperature_K: Temperature of the thermostat.
        n_frames: Labels to return.
        interval_steps: Steps between two of them.
        timestep_fs: Time step.
        equilibration_steps: Steps before the first interval begins.
        seed: Same seed, same labels.
        lifetime: Lets the run outlive its process. A method that begins each step from the solution of the
            step before goes on with numbers that agree to its convergence. None for no files.

    Returns:
        The labels in the order of time, without a segment: the caller knows what else it labels. None when
        stopped on request; its checkpoint is written.

    Raises:
        OSError: If it was to stop and the checkpoint could not be written.
        NotConvergedError: If an energy or force is not finite.
        Exception: Whatever the calculator raises is passed on.
    """
    if n_frames < 1:
        return []
    identity = settings_hash(
        {
            "loop_version": _LOOP_VERSION,
            "start": structure_hash(start),
            "numbers": [temperature_K, interval_steps, timestep_fs, equilibration_steps, seed],
        }
    )
    rng = np.random.default_rng(seed)
    atoms = start.copy()
    atoms.arrays.pop("momenta", None)
    draw_momenta(atoms, temperature_K, rng)
    atoms.calc = calculator
    run = _Run(atoms, rng, temperature_K, timestep_fs, (equilibration_steps, interval_steps, n_frames))
    result = (
        StageBuilder()
        .named("The run of dynamics with the reference")
        .identified_by(identity)
        .steps(run.steps)
        .state(save=run.save, restore=run.restore)
        .lives(lifetime)
        .build()
        .run()
    )
    return run.labels if result.status == "finished" else None


class _Run:
    """The state of a run: the moving structure, and the labels so far."""

    def __init__(
        self,
        atoms: Atoms,
        rng: np.random.Generator,
        temperature_K: float,
        timestep_fs: float,
        plan: tuple[int, int, int],
    ) -> None:
        self.labels: list[Label] = []
        self._atoms = atoms
        self._rng = rng
        self._temperature_K = temperature_K
        self._timestep_fs = timestep_fs
        self._equilibration_steps, self._interval_steps, self._n_frames = plan
        self._step = 0
        self._integrator: LangevinBAOAB | None = None

    def steps(self) -> Iterator[int]:
        """Make steps until the last label is there; see `Stage`."""
        first = self._equilibration_steps
        for step in range(self._step + 1, first + self._n_frames * self._interval_steps + 1):
            if self._integrator is None or step == first + 1:
                self._integrator = self._make_integrator(step)
            self._integrator.step()
            if step > first and (step - first) % self._interval_steps == 0:
                self.labels.append(_label(self._atoms))
            self._step = step
            yield step

    def save(self) -> State:
        """Return all that the steps to come depend on, and the labels so far."""
        atoms = self._atoms
        arrays = {
            "positions": atoms.arrays["positions"],
            "momenta": atoms.arrays["momenta"],
            "labels.positions": _stack([label.atoms.positions for label in self.labels], len(atoms)),
            "labels.forces": _stack([label.forces_eV_per_A for label in self.labels], len(atoms)),
            "labels.energies": np.array([label.energy_eV for label in self.labels]),
        }
        if self._integrator is not None:
            arrays |= {f"integrator.{k}": v for k, v in integrator_arrays(self._integrator).items()}
        return State(arrays, {"step": self._step, "random": self._rng.bit_generator.state})

    def restore(self, state: State) -> None:
        """Go on from a state that another sitting saved."""
        atoms, arrays = self._atoms, state.arrays
        self._step = state.values["step"]
        self.labels = []
        for positions, energy, forces in zip(
            arrays["labels.positions"], arrays["labels.energies"], arrays["labels.forces"], strict=True
        ):
            geometry = _bare(atoms)
            geometry.positions = positions
            self.labels.append(Label(geometry, float(energy), forces.copy()))
        atoms.arrays["positions"][:] = arrays["positions"]
        atoms.arrays["momenta"][:] = arrays["momenta"]
        self._integrator = self._make_integrator(self._step)
        carried = {k.removeprefix("integrator."): v for k, v in arrays.items() if k.startswith("integrator.")}
        restore_integrator(self._integrator, carried)
        self._rng.bit_generator.state = state.values["random"]

    def _make_integrator(self, step: int) -> LangevinBAOAB:
        is_equilibration = step <= self._equilibration_steps
        return make_integrator(
            self._atoms,
            "langevin",
            temperature_K=self._temperature_K,
            timestep_fs=self._timestep_fs,
            friction_per_fs=_EQUILIBRATION_FRICTION_PER_fs if is_equilibration else _FRICTION_PER_fs,
            pressure_GPa=0.0,
            rng=self._rng,
        )


def _stack(parts: list[np.ndarray], n_atoms: int) -> np.ndarray:
    return np.array(parts).reshape(len(parts), n_atoms, 3)


def _bare(atoms: Atoms) -> Atoms:
    geometry = atoms.copy()
    geometry.arrays.pop("momenta", None)
    return geometry


def _label(atoms: Atoms) -> Label:
    energy = float(atoms.get_potential_energy())
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        msg = f"The reference gave numbers that are not finite while it drove dynamics of {atoms.symbols}."
        raise NotConvergedError(msg, hint="Lower test.timestep_fs or test.temperatures_K.")
    return Label(_bare(atoms), energy, forces)
