"""Molecular dynamics with a trained model, watched by its committee, outside a campaign."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.draws import seed_for
from fff.base.errors import ConfigError, FffError, RunDirectoryError, StructureError
from fff.base.files import read_json, write_bytes, write_json
from fff.base.ids import sha256_bytes, sha256_file, structure_hash
from fff.config import load_config
from fff.data.deviation import force_deviation
from fff.data.provenance import collect_provenance
from fff.data.reading import bare, read_frames, split_index
from fff.data.records import Frame
from fff.data.structures import load_structures
from fff.models.files import WEIGHTS, find_members
from fff.reference.relaxing import relaxation
from fff.report.drawing import Drawing
from fff.report.motion import draw_motion, drift, read_motion
from fff.sampling import DynamicsSettings, run_dynamics
from fff.stages import Lifetime, Table
from fff.steps.outputs import taken
from fff.steps.predicting import open_committee
from fff.steps.sharing import threads_for
from fff.steps.training import COMMITTEE, TRAINED
from fff.steps.trajectory import TrajectoryFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from fff.config import LoadedConfig
    from fff.models import Committee
    from fff.sampling import DynamicsResult
    from fff.stages import Growing
    from fff.steps.interruption import Interruption

__all__ = ["Course", "Moved", "Threshold", "move"]

_KEY = "sampling.stop_deviation_eV_per_A"
_GROUND = 2.0
"""Deviation that ends a run, in units of what hardly any label of the training has."""

_LEVELS_TO_RUN = 4
_COLUMNS = {
    "frame": "",
    "step": "",
    "time": "fs",
    "temperature": "K",
    "potential_energy": "eV",
    "total_energy": "eV",
    "deviation": "eV/Å",
}
_DIGITS = 12
_WHY = {
    "temperature": "it became hotter than sampling.max_temperature_factor allows",
    "force": "a force exceeded sampling.max_force_eV_per_A",
    "distance": "two atoms came closer than sampling.min_distance_factor allows",
    "non-finite": "its numbers were not finite any more",
    "time-limit": "sampling.time_limit_s was over",
}


@dataclass(frozen=True)
class Threshold:
    """The deviation at which a run ends.

    Attributes:
        value_eV_per_A: The deviation; None where a single model drives, which has none.
        source: Where the value comes from, for people.
    """

    value_eV_per_A: float | None
    source: str


@dataclass(frozen=True)
class Moved:
    """What a run of dynamics gave.

    Attributes:
        state: `finished`: all steps were made; `ended-early`; or `stopped`, on request.
        reason: What ended it, see `DynamicsResult`; `deviation` before the first step too.
        sentence: The same for people, with the step.
        steps: Steps made until the last frame that is sound.
        n_steps: Steps that were asked for.
        threshold: The deviation at which it was to end.
        max_deviation_eV_per_A: The largest deviation of all frames; None where there is none.
        drift_eV_per_atom_ps: Change of the total energy, by a straight line; None but for NVE, and of fewer
            than three frames.
        scatter_eV_per_atom: Of the total energy about that line; None where the drift is.
        files: What was written.
    """

    state: str
    reason: str
    sentence: str
    steps: int
    n_steps: int
    threshold: Threshold
    max_deviation_eV_per_A: float | None
    drift_eV_per_atom_ps: float | None
    scatter_eV_per_atom: float | None
    files: list[str]


@dataclass(frozen=True)
class Course:
    """What is asked of a run.

    Attributes:
        n_steps: Steps to make.
        every: Steps between two frames, which are looked at and written.
        driver: `mean`: the mean force of all members; `first`: the first member alone, as in a campaign,
            while the committee is asked about the frames.
    """

    n_steps: int
    every: int
    driver: str


def move(
    model: Path,
    source: str,
    loaded: LoadedConfig,
    output: Path,
    *,
    course: Course,
    tell: Callable[[int, int, str], None],
    interruption: Interruption,
) -> Moved:
    """Run dynamics with a model; write frames and a table as it goes, a figure and a summary at the end.

    Args:
        model: A run directory, a round's or a member's folder, or that of a training.
        source: The structure: a file (with momenta they are kept), or a name.
        loaded: The config; its section `sampling` and its seed count.
        output: The trajectory; table, figure and summary lie beside it under its name.
        course: How far, and driven by what.
        tell: Told of the steps made, of how many, and of the last frame.
        interruption: Asked whether to stop.

    Raises:
        FffError: If model, structure or settings cannot be used, or the output holds something else.
    """
    trajectory = TrajectoryFile(output)
    atoms = _structure(source, loaded.config.seed)
    members = find_members(model)
    threshold = _threshold(members, loaded)
    settings = _settings(loaded, course, threshold)
    told = _told(_start(source, atoms), settings, threshold, members, course.driver, loaded.config.seed)
    with taken(output):
        before = _before(output, told)
        if before is not None:
            return before
        committee = open_committee(model)
        moving = _moving(committee, course.driver, float(loaded.config.sampling.skin_A), atoms)
        provenance = collect_provenance(seed=loaded.config.seed, inputs=[])
        summary = {"schema_version": 1, "settings": told, "provenance": provenance}
        write_json(_beside(output, ".json"), summary)
        recorder = _Recorder(moving, trajectory, output, course, settings.timestep_fs, tell)
        interruption.wait_for = ": a checkpoint is written"
        checkpoints = _beside(output, ".checkpoints")
        lifetime = Lifetime(checkpoints, stop=interruption.is_asked, identity=" ".join(told["members"]))
        try:
            with threads_for(len(atoms)):
                result = _run(atoms, settings, moving, recorder, lifetime, loaded.config.seed)
        finally:
            trajectory.close()
        if result is None:
            return _stopped(recorder, course, threshold, output)
        moved = _conclude(result, recorder, settings, threshold, output)
        write_json(_beside(output, ".json"), {**summary, "result": asdict(moved)})
        shutil.rmtree(checkpoints, ignore_errors=True)
    return moved


def _structure(source: str, seed: int) -> Atoms:
    """Return the one structure that a source names, with the momenta that a file gives it."""
    if split_index(source)[0].is_file():
        frames = read_frames(source)
    else:
        with relaxation() as relax:
            frames = load_structures([source], relax=relax, seed=seed_for(seed, "structures"))
    if len(frames) != 1:
        msg = f"`{source}` holds {len(frames)} structures; dynamics starts from one."
        raise StructureError(msg, hint=f"Choose one, for example {source.partition('@')[0]}@0.")
    atoms = bare(frames[0])
    if frames[0].has("momenta"):
        atoms.set_momenta(frames[0].get_momenta())
    return atoms


def _start(source: str, atoms: Atoms) -> list[str]:
    """Return what tells one start from another: the name, or what a file or folder holds.

    Names stand for the same with the same seed; but sums of several threads differ in the last digits, and
    so do the atoms of a cluster that was packed and relaxed twice.
    """
    if not split_index(source)[0].exists():
        return [source]
    return [structure_hash(atoms), sha256_bytes(atoms.get_momenta().tobytes())]


def _threshold(members: Sequence[Path], loaded: LoadedConfig) -> Threshold:
    """Return the deviation that ends a run: as asked for, the campaign's, the training's, or the default."""
    default: float = loaded.config.sampling.stop_deviation_eV_per_A
    source = loaded.sources[_KEY]
    if len(members) == 1:
        return Threshold(None, "one model has no deviation")
    if source != "default":
        return Threshold(default, f"{_KEY} from {source}")
    for folder in list(members[0].resolve().parents)[:_LEVELS_TO_RUN]:
        try:
            if (folder / "events.jsonl").is_file():
                config = load_config(folder / "config.yaml").config
                return Threshold(config.sampling.stop_deviation_eV_per_A, f"{_KEY} of the campaign")
            if (folder / TRAINED).is_file():
                p99 = float(read_json(folder / COMMITTEE)["deviation_on_labels_eV_per_A"]["p99"])
                told = f"{_GROUND:g} times what 99 % of its training labels stay below"
                return Threshold(_GROUND * p99, told)
        except (OSError, ValueError, KeyError, TypeError, FffError):
            break
    return Threshold(default, f"the default of {_KEY}")


def _settings(loaded: LoadedConfig, course: Course, threshold: Threshold) -> DynamicsSettings:
    sampling = loaded.config.sampling.model_dump(mode="json")
    if len(sampling["temperature_K"]) != 1:
        msg = f"`sampling.temperature_K` names {len(sampling['temperature_K'])} temperatures; a run has one."
        hint = "Give one with --temperature."
        raise ConfigError(msg, hint=hint, key="sampling.temperature_K", value=sampling["temperature_K"])
    if loaded.sources["sampling.time_limit_s"] == "default":
        # That of a campaign's short runs; whoever asks for a long one wants it to its end.
        sampling["time_limit_s"] = math.inf
    settings = DynamicsSettings.from_section(
        sampling, n_steps=course.n_steps, temperature_K=float(sampling["temperature_K"][0])
    )
    limit = threshold.value_eV_per_A
    return replace(
        settings,
        check_every=course.every,
        n_frames=0,
        stop_deviation_eV_per_A=math.inf if limit is None else limit,
    )


def _told(
    start: list[str],
    settings: DynamicsSettings,
    threshold: Threshold,
    members: Sequence[Path],
    driver: str,
    seed: int,
) -> dict[str, Any]:
    """Return what decides the numbers of a run, as JSON keeps it."""
    return {
        **{key: value for key, value in asdict(settings).items() if key != "time_limit_s"},
        "stop_deviation_eV_per_A": threshold.value_eV_per_A,
        "structure": start,
        "members": [sha256_file(member / WEIGHTS) for member in members],
        "driver": driver,
        "seed": seed,
    }


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(output.stem + ending)


def _before(output: Path, told: Mapping[str, Any]) -> Moved | None:
    """Return what a run gave that is over; None if it is to begin or to go on.

    Raises:
        RunDirectoryError: If there is another run, or anything else.
    """
    path = _beside(output, ".json")
    if not path.is_file():
        there = [
            each for each in (output, *(_beside(output, end) for end in (".csv", ".png"))) if each.exists()
        ]
        if there:
            msg = f"{there[0]} is there already; nothing is ever overwritten."
            hint = "Choose another name with --output, or move it away."
            raise RunDirectoryError(msg, hint=hint, path=str(there[0]))
        return None
    try:
        found = read_json(path)
        other = [key for key, value in told.items() if found["settings"][key] != value]
        result = found.get("result")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is there already and belongs to no run of dynamics."
        hint = "Choose another name with --output, or move it away."
        raise RunDirectoryError(msg, hint=hint, path=str(path)) from error
    if other:
        msg = f"{output} belongs to another run, which differs in: {', '.join(other)}."
        hint = "Choose another name with --output, or ask for what it was begun with."
        raise RunDirectoryError(msg, hint=hint, path=str(output))
    return None if result is None else Moved(**{**result, "threshold": Threshold(**result["threshold"])})


@dataclass(frozen=True)
class _Moving:
    """What drives a run and what watches it.

    Attributes:
        calculator: Gives the forces.
        deviation: The largest force deviation on a structure (eV/Å); None for a single model.
        n_atoms: Atoms of the structure.
    """

    calculator: Calculator
    deviation: Callable[[Atoms], float] | None
    n_atoms: int


def _moving(committee: Committee, driver: str, skin_A: float, atoms: Atoms) -> _Moving:
    from fff.models import CommitteeCalculator
    from fff.models.batches import check_elements

    check_elements([atoms], committee.members[0].description["elements"])
    if driver == "mean" and len(committee) > 1:
        calculator = CommitteeCalculator(committee, skin_A=skin_A)

        def of_driver(atoms: Atoms) -> float:
            # It has just calculated this structure; asked again it would only compare the positions.
            calculator.get_property("energy", atoms)
            return float(calculator.results["deviation"])

        return _Moving(calculator, of_driver, len(atoms))

    def of_committee(atoms: Atoms) -> float:
        return float(force_deviation(committee.predict([atoms]).forces_eV_per_A[0]).max())

    first = committee.first.md_calculator(skin_A=skin_A)
    return _Moving(first, of_committee if len(committee) > 1 else None, len(atoms))


class _Recorder:
    """Writes the frames that a run shows it; see `fff.sampling.Observer`."""

    def __init__(
        self,
        moving: _Moving,
        trajectory: TrajectoryFile,
        output: Path,
        course: Course,
        timestep_fs: float,
        tell: Callable[[int, int, str], None],
    ) -> None:
        self._moving = moving
        self._trajectory = trajectory
        self._table = Table(f"{output.stem}.csv", _COLUMNS, digits=_DIGITS, folder=output.parent)
        self.tables: Sequence[Growing] = (trajectory, self._table)
        self._n_steps = course.n_steps
        self._timestep_fs = timestep_fs
        self._tell = tell
        self.step = 0
        self.n_atoms = moving.n_atoms

    def __call__(self, frame: Frame) -> None:
        atoms, deviation = frame.atoms, frame.deviation_eV_per_A
        if not math.isfinite(deviation) and self._moving.deviation is not None:
            deviation = self._moving.deviation(atoms)  # of the start
        self.step = frame.step
        time_fs = frame.step * self._timestep_fs
        told = {"step": frame.step, "time_fs": time_fs}
        if math.isfinite(deviation):
            told["deviation_eV_per_A"] = deviation
        self._trajectory.append(frame, told)
        temperature = float(atoms.get_temperature())
        self._table.append(
            self._table.last + 1,
            frame.step,
            time_fs,
            temperature,
            frame.energy_eV,
            frame.energy_eV + float(atoms.get_kinetic_energy()),
            deviation if math.isfinite(deviation) else None,
        )
        more = f", deviation {deviation:.3f} eV/Å" if math.isfinite(deviation) else ""
        self._tell(frame.step, self._n_steps, f"{temperature:.0f} K{more}")


def _run(
    atoms: Atoms,
    settings: DynamicsSettings,
    moving: _Moving,
    recorder: _Recorder,
    lifetime: Lifetime,
    seed: int,
) -> DynamicsResult | None:
    if moving.deviation is not None:
        found = moving.deviation(atoms)
        if not found <= settings.stop_deviation_eV_per_A:
            msg = (
                f"The committee's deviation on the start, {found:.3g} eV/Å, is above the "
                f"{settings.stop_deviation_eV_per_A:.3g} eV/Å that end a run: it does not know this."
            )
            raise StructureError(msg, hint=f"Train on such structures, or raise -o {_KEY}=…")
    return run_dynamics(
        Frame(atoms),
        settings,
        moving.calculator,
        seed=seed_for(seed, "md"),
        deviation=moving.deviation,
        lifetime=lifetime,
        observer=recorder,
    )


def _stopped(recorder: _Recorder, course: Course, threshold: Threshold, output: Path) -> Moved:
    sentence = f"The last frame written is that of step {recorder.step} of {course.n_steps}."
    files = [str(output), str(_beside(output, ".csv"))]
    return Moved(
        "stopped", "stopped", sentence, recorder.step, course.n_steps, threshold, None, None, None, files
    )


def _conclude(
    result: DynamicsResult,
    recorder: _Recorder,
    settings: DynamicsSettings,
    threshold: Threshold,
    output: Path,
) -> Moved:
    table, figure = _beside(output, ".csv"), _beside(output, ".png")
    columns = read_motion(table)
    deviations = columns["deviation"][np.isfinite(columns["deviation"])]
    picture = draw_motion(columns, threshold.value_eV_per_A)
    write_bytes(figure, Drawing(output.stem, "Dynamics", picture, []).png())
    energy_per_atom = columns["total_energy"] / recorder.n_atoms
    is_nve = settings.thermostat == "nve"
    slope, scatter = drift(columns["time"], energy_per_atom) if is_nve else (None, None)
    # A start that is broken is no frame.
    files = [each for each in (output, table, figure) if each.exists()]
    return Moved(
        state="finished" if result.reason == "completed" else "ended-early",
        reason=result.reason,
        sentence=_sentence(result, recorder.step, settings.n_steps, threshold, deviations),
        steps=result.steps,
        n_steps=settings.n_steps,
        threshold=threshold,
        max_deviation_eV_per_A=float(deviations.max()) if len(deviations) else None,
        drift_eV_per_atom_ps=slope,
        scatter_eV_per_atom=scatter,
        files=[str(each) for each in (*files, _beside(output, ".json"))],
    )


def _sentence(
    result: DynamicsResult, last: int, n_steps: int, threshold: Threshold, deviations: np.ndarray
) -> str:
    if result.reason == "completed":
        return f"All {n_steps} steps were made."
    if result.reason == "deviation":
        return (
            f"It ended at step {last} of {n_steps}, since the committee's deviation, "
            f"{deviations[-1]:.3g} eV/Å, is above {threshold.value_eV_per_A:.3g} eV/Å: "
            "the model does not know this structure."
        )
    return f"It ended after step {last} of {n_steps}, since {_WHY[result.reason]}."
