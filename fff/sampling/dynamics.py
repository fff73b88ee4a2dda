"""One run of molecular dynamics with a model, watched by guards and by the committee."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args

import numpy as np

from fff.base.errors import StructureError
from fff.base.ids import settings_hash, sha256_bytes
from fff.data.records import Frame
from fff.sampling.guards import Guards
from fff.sampling.integrators import (
    Thermostat,
    draw_momenta,
    integrator_arrays,
    make_integrator,
    restore_integrator,
)
from fff.stages import Resumable, StageBuilder, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from ase.md.langevinbaoab import LangevinBAOAB
    from jaxtyping import Float

    from fff.stages import Growing, Lifetime

__all__ = ["DynamicsResult", "DynamicsSettings", "Observer", "Reason", "run_dynamics"]

# Part of a checkpoint's identity: to be raised when the loop below makes other numbers of the same state.
_LOOP_VERSION = 1

Reason = Literal["completed", "deviation", "temperature", "force", "distance", "non-finite", "time-limit"]


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings:
    """What a run is to do. The names, units and meanings are those of the config's section `sampling`.

    Attributes:
        n_steps: Steps to make.
        temperature_K: Target temperature, and that of fresh momenta.
        thermostat: `langevin` (NVT), `nve`, or `npt` (volume changes, shape of the cell does not).
        timestep_fs: Time step.
        friction_per_fs: Friction of the thermostat; without meaning for `nve`.
        pressure_GPa: Target pressure; without meaning but for `npt`.
        check_every: Steps between two looks at the structure and questions to the committee.
        stop_deviation_eV_per_A: The run ends where the committee's deviation is above this.
        max_temperature_factor: Times the target temperature; see `Guards`.
        max_force_eV_per_A: Longest sound force on an atom.
        min_distance_factor: Shortest sound distance, as part of the sum of the covalent radii.
        n_frames: Most frames to return besides the last one; with 0 a run of any length takes no memory.
        time_limit_s: Wall-clock time after which the run ends where it is, looked at every `check_every`
            steps.

    Raises:
        ValueError: If a number of steps, the temperature, the time step or the friction makes no sense.
    """

    n_steps: int
    temperature_K: float
    thermostat: Thermostat
    timestep_fs: float
    friction_per_fs: float
    pressure_GPa: float
    check_every: int
    stop_deviation_eV_per_A: float
    max_temperature_factor: float
    max_force_eV_per_A: float
    min_distance_factor: float
    n_frames: int
    time_limit_s: float

    def __post_init__(self) -> None:
        """Refuse what would otherwise fail with a riddle in the middle of a run."""
        if self.thermostat not in get_args(Thermostat):
            msg = f"The thermostat is one of {', '.join(get_args(Thermostat))}; it was {self.thermostat!r}."
            raise ValueError(msg)
        smallest = {"n_steps": 0, "n_frames": 0, "check_every": 1}
        for name, bound in smallest.items():
            if getattr(self, name) < bound:
                msg = f"{name} must be at least {bound}; it was {getattr(self, name)}."
                raise ValueError(msg)
        positive = ["temperature_K", "timestep_fs"]
        if self.thermostat != "nve":
            positive.append("friction_per_fs")
        for name in positive:
            if not getattr(self, name) > 0:
                msg = f"{name} must be above 0; it was {getattr(self, name)}."
                raise ValueError(msg)

    @classmethod
    def from_section(cls, section: Mapping[str, Any], *, n_steps: int, temperature_K: float) -> Self:
        """Return the settings of one run from the config's section `sampling`, whose other keys are left out.

        Args:
            section: The section as a dict.
            n_steps: Length of this run, which adapts to the audits.
            temperature_K: Temperature of this run, drawn from the section's list.
        """
        names = {field.name for field in fields(cls)} - {"n_steps", "temperature_K"}
        return cls(n_steps=n_steps, temperature_K=temperature_K, **{name: section[name] for name in names})


@dataclass(frozen=True)
class DynamicsResult:
    """What a run gave.

    Attributes:
        reason: Why it ended. `completed`: all steps were made. `deviation`: the committee disagreed.
            `time-limit`: it took too long. All others are violations of a guard.
        steps: Steps from the start to `last`.
        last: The last frame that every check passed, momenta included, with the energy and forces of the
            driving model: the frame to audit and to go on from. It is the start frame (step 0) if the run
            ended before any other passed; its energy is NaN then if the first evaluation was not finite.
        others: Frames of this run, evenly spread, in the order of their steps, physically sound; without
            start and last frame. Where a run ends early, the last of them is the one nearest to the end: that
            on which the committee disagreed, or that before the broken one. The deviation is NaN where the
            committee was not asked.
        max_deviation_eV_per_A: Largest deviation met; NaN if the committee was never asked.
    """

    reason: Reason
    steps: int
    last: Frame
    others: list[Frame]
    max_deviation_eV_per_A: float


class Observer(Protocol):
    """Shown the frames of a run as it goes, to write them somewhere.

    Attributes:
        tables: What it writes; cut with the run where that goes on from a checkpoint.
    """

    tables: Sequence[Growing]

    def __call__(self, frame: Frame) -> None:
        """Take the start frame, then each that was checked: also one on which the committee disagreed."""


def run_dynamics(
    start: Frame,
    settings: DynamicsSettings,
    calculator: BaseCalculator,
    *,
    seed: int,
    deviation: Callable[[Atoms], float] | None = None,
    lifetime: Lifetime | None = None,
    observer: Observer | None = None,
) -> DynamicsResult | None:
    """Run molecular dynamics from `start` until its end or until something is wrong.

    Forces and energy are looked at every step; temperature and distances, and the committee, every
    `check_every` steps and at the last step. Only a frame that passed all of them becomes `last`: what lies
    between the last passed check and the failed one is not trusted to be audited or gone on from, but may be
    worth a label, so sound frames of it are among the others.

    The start frame itself is not shown to the committee: either a user gave it or it passed a check.

    Args:
        start: Where to begin. A run that is continued goes on smoothly, with the momenta it has; where there
            are none they are drawn at the target temperature.
        settings: Length, thermostat and limits.
        calculator: The driving model, with energy and forces (eV, eV/Å), and stress for `npt`.
        seed: Same seed, same start, same calculator: same trajectory.
        deviation: Returns the committee's largest force deviation (eV/Å) on a structure; None if there is
            no committee yet.
        lifetime: Lets the run outlive its process: it goes on from its newest checkpoint with the numbers it
            would have had. Its time limit counts all sittings. Its `identity` should say which models
            `calculator` and `deviation` are. None for no files.
        observer: Shown the start and every checked frame, broken ones left out.

    Returns:
        What the run gave; None when stopped on request; its checkpoint is written.

    Raises:
        OSError: If it was to stop and the checkpoint could not be written.
        StructureError: If the start has numbers that are not finite, or `npt` is asked of a structure that is
            not periodic in all directions.
        Exception: Whatever the calculator or `deviation` raises is passed on.
    """
    if not (np.isfinite(start.atoms.positions).all() and np.isfinite(start.atoms.get_momenta()).all()):
        msg = f"Dynamics cannot start from {start.atoms.symbols}: a position or momentum is not finite."
        raise StructureError(msg)
    rng = np.random.default_rng(seed)
    atoms = start.atoms.copy()
    draw_momenta(atoms, settings.temperature_K, rng)
    # What blows up overflows on its way; it is looked for explicitly, so numpy need not warn.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        run = _Run(atoms, settings, calculator, deviation, rng)
        run.observer = observer
        result = (
            StageBuilder()
            .named("The run of dynamics")
            .identified_by(_identity(start, settings, seed) if lifetime else "")
            .steps(run.steps)
            .state(save=run.save, restore=run.restore)
            .writes(*(observer.tables if observer is not None else ()))
            .lives(lifetime)
            .build()
            .run()
        )
        return run.result() if result.status == "finished" else None


def _identity(start: Frame, settings: DynamicsSettings, seed: int) -> str:
    """Return a hash of what decides the numbers of a run, as far as it is known here.

    The time limit does not count: with a longer one a run may go on.
    """
    told = asdict(settings)
    del told["time_limit_s"]
    momenta, masses = start.atoms.get_momenta(), start.atoms.get_masses()
    return settings_hash(
        {
            "loop_version": _LOOP_VERSION,
            "start": [start.hash, sha256_bytes(momenta.tobytes()), sha256_bytes(masses.tobytes())],
            "settings": told,
            "seed": seed,
        }
    )


class _Run:
    """The state of a run: the moving structure, its numbers of one step ago, and those worth keeping.

    Frames are made at the end, of the few that are returned; copying `Atoms` costs as much as a dozen arrays.
    """

    def __init__(
        self,
        atoms: Atoms,
        settings: DynamicsSettings,
        calculator: BaseCalculator,
        deviation: Callable[[Atoms], float] | None,
        rng: np.random.Generator,
    ) -> None:
        self._atoms = atoms
        self._settings = settings
        self._rng = rng
        self._deviation = deviation
        self._guards = Guards(
            atoms,
            temperature_K=settings.temperature_K,
            max_temperature_factor=settings.max_temperature_factor,
            max_force_eV_per_A=settings.max_force_eV_per_A,
            min_distance_factor=settings.min_distance_factor,
        )
        self._template = atoms.copy()
        # What the committee is shown: what it does with it must not reach the structure that moves.
        self._shown = atoms.copy()
        self._stride = _capture_stride(settings.n_steps, settings.check_every, settings.n_frames)
        self._step = 0
        self._energy_eV = math.nan
        self._forces = np.zeros((len(atoms), 3))
        self._integrator: LangevinBAOAB | None = None
        self._previous = _Snapshot(len(atoms))
        self._last = _Snapshot(len(atoms))
        self._captured: list[_Snapshot] = []
        self._max_deviation = -math.inf
        self._reason: Reason = "completed"
        self.observer: Observer | None = None
        self._began = time.monotonic()
        atoms.calc = calculator

    def steps(self) -> Iterator[int]:
        """Make steps until the end or until something is wrong; see `Stage`."""
        settings = self._settings
        integrator = self._integrator or self._begin()
        if integrator is None:
            return
        for step in range(self._step + 1, settings.n_steps + 1):
            self._previous.store(self._atoms, self._energy_eV, self._forces, step - 1)
            integrator.step()
            self._energy_eV, self._forces = _evaluation(self._atoms)
            reason: Reason | None = self._guards.check_forces(self._energy_eV, self._forces)
            if reason is None and (step % self._stride == 0 or step == settings.n_steps):
                reason = self._inspect(self._energy_eV, self._forces, step)
            if reason is not None:
                self._end_early(reason)
                return
            self._step = step
            yield step

    def _begin(self) -> LangevinBAOAB | None:
        """Look at the start; return the integrator, or None if the start is broken."""
        self._atoms.get_forces()
        self._energy_eV, self._forces = _evaluation(self._atoms)
        self._last.store(self._atoms, self._energy_eV, self._forces, 0)
        violation = self._guards.check_forces(self._energy_eV, self._forces)
        if violation is not None:
            self._reason = violation
            return None
        self._show(self._last)
        self._integrator = self._make_integrator()
        return self._integrator

    def _make_integrator(self) -> LangevinBAOAB:
        settings = self._settings
        return make_integrator(
            self._atoms,
            settings.thermostat,
            temperature_K=settings.temperature_K,
            timestep_fs=settings.timestep_fs,
            friction_per_fs=settings.friction_per_fs,
            pressure_GPa=settings.pressure_GPa,
            rng=self._rng,
        )

    def save(self) -> State:
        """Return all that the steps to come depend on, and what is worth keeping of those made.

        What follows from the start and the settings alone, like the guards' limits, is not in it.
        """
        atoms, calculator = self._atoms, self._atoms.calc
        arrays = {
            "positions": atoms.arrays["positions"],
            "momenta": atoms.arrays["momenta"],
            "cell": atoms.cell.array,
            "forces": self._forces,
        }
        if self._integrator is not None:
            arrays |= _prefixed("integrator.", integrator_arrays(self._integrator))
        if isinstance(calculator, Resumable):
            arrays |= _prefixed("calculator.", calculator.resume_arrays())
        # The last good frame comes first; it is one of the captured ones but in the beginning.
        kept = [self._last, *(snapshot for snapshot in self._captured if snapshot is not self._last)]
        arrays |= _prefixed("kept.", _Snapshot.stacked(kept))
        values = {
            "step": self._step,
            "energy_eV": self._energy_eV,
            "last_is_captured": any(snapshot is self._last for snapshot in self._captured),
            "max_deviation": self._max_deviation if math.isfinite(self._max_deviation) else None,
            "random": self._rng.bit_generator.state,
            "wall_s": time.monotonic() - self._began,
        }
        return State(arrays, values)

    def restore(self, state: State) -> None:
        """Go on from a state that another sitting saved; what that one took counts."""
        atoms, arrays, values = self._atoms, state.arrays, state.values
        atoms.arrays["positions"][:] = arrays["positions"]
        atoms.arrays["momenta"][:] = arrays["momenta"]
        atoms.cell.array[:] = arrays["cell"]
        if isinstance(atoms.calc, Resumable):
            atoms.calc.resume_from(_unprefixed("calculator.", arrays))
        # It asks for the forces once more: the calculator has them at hand again after that.
        self._integrator = self._make_integrator()
        restore_integrator(self._integrator, _unprefixed("integrator.", arrays))
        self._rng.bit_generator.state = values["random"]
        self._step, self._energy_eV, self._forces = values["step"], values["energy_eV"], arrays["forces"]
        self._last, *others = _Snapshot.unstacked(_unprefixed("kept.", arrays))
        self._captured = [*others, self._last] if values["last_is_captured"] else others
        self._captured.sort(key=lambda snapshot: snapshot.step)
        self._max_deviation = -math.inf if values["max_deviation"] is None else values["max_deviation"]
        self._began -= values["wall_s"]

    def _inspect(self, energy: float, forces: np.ndarray, step: int) -> Reason | None:
        """Look at the structure, ask the committee where it is its turn, and keep what is sound."""
        violation = self._guards.check_structure(self._atoms)
        if violation is not None:
            return violation
        snapshot = _Snapshot(len(self._atoms))
        snapshot.store(self._atoms, energy, forces, step)
        is_check = step % self._settings.check_every == 0 or step == self._settings.n_steps
        if is_check and self._deviation is not None:
            snapshot.write_to(self._shown)
            snapshot.deviation = float(self._deviation(self._shown))
            if not math.isfinite(snapshot.deviation):
                return "non-finite"
            self._max_deviation = max(snapshot.deviation, self._max_deviation)
        if self._settings.n_frames:
            self._captured.append(snapshot)
        if is_check:
            self._show(snapshot)
        if snapshot.deviation > self._settings.stop_deviation_eV_per_A:
            return "deviation"
        if is_check:
            self._last = snapshot
            if time.monotonic() - self._began > self._settings.time_limit_s:
                return "time-limit"
        return None

    def _show(self, snapshot: _Snapshot) -> None:
        if self.observer is not None:
            self.observer(snapshot.frame(self._template))

    def _end_early(self, reason: Reason) -> None:
        """Keep the frame before a broken one too: the nearest to where the model's knowledge ends."""
        newest = self._captured[-1].step if self._captured else 0
        if self._previous.step > newest:
            self._previous.write_to(self._shown)
            if self._guards.check_structure(self._shown) is None:
                self._captured.append(self._previous)
        self._reason = reason

    def result(self) -> DynamicsResult:
        """Return what the run gave until now."""
        candidates = [snapshot for snapshot in self._captured if snapshot is not self._last]
        return DynamicsResult(
            reason=self._reason,
            steps=self._last.step,
            last=self._last.frame(self._template),
            others=[s.frame(self._template) for s in _evenly(candidates, self._settings.n_frames)],
            max_deviation_eV_per_A=self._max_deviation if math.isfinite(self._max_deviation) else math.nan,
        )


class _Snapshot:
    """A structure's numbers in arrays of its own, which may be written over: cheap enough for every step."""

    def __init__(self, n_atoms: int) -> None:
        self.step = 0
        self.deviation = math.nan
        self._energy_eV = math.nan
        self._positions = np.empty((n_atoms, 3))
        self._momenta = np.empty((n_atoms, 3))
        self._forces = np.empty((n_atoms, 3))
        self._cell = np.empty((3, 3))

    def store(self, atoms: Atoms, energy_eV: float, forces: np.ndarray, step: int) -> None:
        self._positions[:] = atoms.arrays["positions"]
        self._momenta[:] = atoms.arrays["momenta"]
        self._forces[:] = forces
        self._cell[:] = atoms.cell.array
        self._energy_eV = energy_eV
        self.step = step

    def write_to(self, atoms: Atoms) -> None:
        atoms.arrays["positions"][:] = self._positions
        atoms.arrays["momenta"][:] = self._momenta
        atoms.cell.array[:] = self._cell

    @staticmethod
    def stacked(snapshots: Sequence[_Snapshot]) -> dict[str, np.ndarray]:
        """Return the numbers of several snapshots of one structure as arrays of finite numbers."""
        deviations = np.array([snapshot.deviation for snapshot in snapshots])
        return {
            "step": np.array([snapshot.step for snapshot in snapshots]),
            "deviation": np.nan_to_num(deviations),
            "is_deviation_known": np.isfinite(deviations),
            "energy": np.array([snapshot._energy_eV for snapshot in snapshots]),
            "positions": np.stack([snapshot._positions for snapshot in snapshots]),
            "momenta": np.stack([snapshot._momenta for snapshot in snapshots]),
            "forces": np.stack([snapshot._forces for snapshot in snapshots]),
            "cell": np.stack([snapshot._cell for snapshot in snapshots]),
        }

    @classmethod
    def unstacked(cls, arrays: Mapping[str, np.ndarray]) -> list[_Snapshot]:
        """Return the snapshots that `stacked` took apart."""
        snapshots = []
        for i, step in enumerate(arrays["step"].tolist()):
            snapshot = cls(arrays["positions"].shape[1])
            snapshot.step = step
            if arrays["is_deviation_known"][i]:
                snapshot.deviation = float(arrays["deviation"][i])
            snapshot._energy_eV = float(arrays["energy"][i])
            snapshot._positions[:] = arrays["positions"][i]
            snapshot._momenta[:] = arrays["momenta"][i]
            snapshot._forces[:] = arrays["forces"][i]
            snapshot._cell[:] = arrays["cell"][i]
            snapshots.append(snapshot)
        return snapshots

    def frame(self, template: Atoms) -> Frame:
        """Return the frame; without energy and forces if they are not finite."""
        atoms = template.copy()
        self.write_to(atoms)
        if not (math.isfinite(self._energy_eV) and np.isfinite(self._forces).all()):
            return Frame(atoms, step=self.step)
        return Frame(atoms, self._energy_eV, self._forces.copy(), self.deviation, self.step)


def _evaluation(atoms: Atoms) -> tuple[float, Float[np.ndarray, "n_atoms 3"]]:
    """Return the energy and forces that the calculator holds for `atoms`, without asking it again.

    Asking through `atoms` compares all its arrays with the calculator's copy: half of the price of a step.
    """
    results = getattr(atoms.calc, "results", {})
    if "energy" in results and "forces" in results:
        return float(results["energy"]), results["forces"]
    return float(atoms.get_potential_energy()), atoms.get_forces(apply_constraint=False)


def _prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


def _unprefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _capture_stride(n_steps: int, check_every: int, n_frames: int) -> int:
    """Return how many steps lie between two captured frames.

    Frames are taken at checks, where the deviation is known, if that gives `n_frames` besides the last one;
    if not, at the widest division of the time between checks that does.
    """
    for stride in range(check_every, 1, -1):
        if check_every % stride == 0 and n_steps // stride > n_frames:
            return stride
    return 1


def _evenly(frames: Sequence[_Snapshot], n: int) -> list[_Snapshot]:
    """Return `n` of the frames, or all, at even distances; the last one is always among them."""
    if len(frames) <= n:
        return list(frames)
    return [frames[-(-(k + 1) * len(frames) // n) - 1] for k in range(n)]
