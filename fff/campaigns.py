"""The only place where a config becomes objects: what a campaign needs is opened, run and closed here."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from ase.optimize import BFGS

from fff.base.draws import seed_for
from fff.base.errors import CampaignError, RunDirectoryError
from fff.base.files import write_bytes, write_json, write_text
from fff.base.ids import sha256_file
from fff.compute.queues import LocalQueues
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.compute.stores import ModelShelf, open_store
from fff.compute.tasks import FUNCTIONS
from fff.config import XtbReference, config_to_yaml
from fff.data.events import Event, EventLog
from fff.data.labels import LabelStore
from fff.data.packing import labels_to_bytes
from fff.data.provenance import collect_provenance
from fff.data.records import Frame
from fff.data.run_directory import RunDirectory
from fff.data.structures import check_structures, load_labels, load_structures, source_files
from fff.reference import ReferenceCalculator, ReferenceProcess, make_reference
from fff.report.summary import write_summary
from fff.steering.active_learning import ActiveLearning
from fff.steering.active_learning.policy import POLICY_VERSION
from fff.steering.cargo import Cargo
from fff.steering.records import Agent
from fff.steering.status import StatusWriter
from fff.steering.thinker import CampaignThinker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from ase import Atoms

    from fff.compute.sites import Site
    from fff.config import ActiveLearningConfig, LoadedConfig
    from fff.data.records import Label

__all__ = ["Inputs", "Outcome", "load_inputs", "run_campaign"]

logger = logging.getLogger(__name__)

GRACE_S = 5.0
RELAXED_eV_PER_A = 0.1
MAX_RELAXATION_STEPS = 200
EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 3}


@dataclass(frozen=True)
class Outcome:
    """How a campaign ended.

    Attributes:
        state: finished, stopped or failed.
        message: The last line for people.
        table: The summary table, for people.
    """

    state: Literal["finished", "stopped", "failed"]
    message: str
    table: str = ""

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES[self.state]


@dataclass(frozen=True)
class Inputs:
    """Everything a campaign reads from outside, loaded and checked.

    Attributes:
        structures: Where trajectories start.
        labels: Labels to train on from the first.
        test: Labels of a given test set; empty when the campaign makes its own.
        start_model: Folder of the model to fine-tune, or None.
        files: Every file that was read.
    """

    structures: list[Atoms]
    labels: list[Label] = field(default_factory=list)
    test: list[Label] = field(default_factory=list)
    start_model: Path | None = None
    files: list[Path] = field(default_factory=list)


def load_inputs(config: ActiveLearningConfig) -> Inputs:
    """Load and check all that the config names; nothing is written.

    Raises:
        ConfigError: If keys do not fit the structures.
        InputFileError: If a file is missing or unreadable.
        StructureError: If a structure cannot be used.
        ModelFileError: If `model.start` holds no model.
    """
    labels = load_labels(config.labels)
    with _relaxation() as relax:
        structures = load_structures(config.structures, relax=relax, seed=seed_for(config.seed, "structures"))
    if not structures:
        # Labels alone: trajectories start from labelled structures, spread evenly over them.
        structures = [label.atoms for label in _spread(labels, config.sampling.n_trajectories)]
    check_structures(structures, config.reference, thermostat=config.sampling.thermostat)
    test = load_labels([config.test.labels]) if config.test.labels else []
    if config.test.n_frames is not None:
        test = _spread(test, config.test.n_frames)
    start_model = None
    if config.model.start:
        from fff.models.files import find_members

        start_model = Path(config.model.start)
        find_members(start_model)
    named = [*config.structures, *config.labels, *([config.test.labels] if config.test.labels else [])]
    return Inputs(structures, labels, test, start_model, source_files(named))


def run_campaign(loaded: LoadedConfig, run_dir: Path, *, say: Callable[[str], None] = print) -> Outcome:
    """Run a campaign to its end in a new run directory.

    Args:
        loaded: The config and where its values came from.
        run_dir: The run directory; must not hold a campaign yet.
        say: Prints a line for people.

    Raises:
        FffError: If the inputs or the run directory cannot be used; nothing has been run then.
    """
    run = RunDirectory(run_dir.resolve())
    if run.events.exists():
        msg = f"The run directory {run.path} holds a campaign already."
        hint = "Nothing is overwritten: choose another with --run-dir, or move that one away."
        raise RunDirectoryError(msg, hint=hint, path=str(run.path))
    inputs = load_inputs(loaded.config)
    run.take()
    try:
        with _logging_to(run.log):
            opened = _open_run(run, loaded.config, inputs)
            return _run(run, loaded.config, opened, say)
    finally:
        run.give_back()


def _run(
    run: RunDirectory, config: ActiveLearningConfig, opened: dict[str, Any], say: Callable[[str], None]
) -> Outcome:
    site = make_site(config.site)
    opened |= {
        "capacity": site.pools,
        "pool_of": {kind: site.pool_of(kind) for kind in FUNCTIONS},
        "policy_version": POLICY_VERSION,
    }
    event = Event(0, "opened", values=opened, times={"started": time.time()})
    policy = ActiveLearning(event)
    status = StatusWriter(run, say)
    with _thinker(run, config, site, policy, event, status) as (thinker, server):
        with _stop_on_signals(thinker):
            thinker.begin(policy.start())
            thinker.run()
        snapshot = thinker.snapshot()
        server_died = not server.is_alive()
    state, reason = _judge(thinker, policy, server_died=server_died)
    status.write(snapshot, state=state, reason=reason, resumable=False)
    table = write_summary(run, snapshot)
    return Outcome(state, _last_line(run, state, reason), table)


@contextlib.contextmanager
def _thinker(
    run: RunDirectory,
    config: ActiveLearningConfig,
    site: Site,
    policy: ActiveLearning,
    opened: Event,
    status: StatusWriter,
) -> Iterator[tuple[CampaignThinker, Any]]:
    """Open all that a thinker works with, and close it whatever happens: no process, no object is left."""
    queues = LocalQueues(topics=get_args(Agent))
    with contextlib.ExitStack() as stack:
        server = start_server(FUNCTIONS, queues, site, run.path)
        # Closed after the server has gone: a worker that is late would make the store's folder anew.
        resources = stack.enter_context(contextlib.ExitStack())
        stack.callback(queues.close)
        stack.callback(stop_server, server, queues, GRACE_S)
        run.store.mkdir(parents=True, exist_ok=True)
        shelf = resources.enter_context(ModelShelf(open_store(run.store, f"fff-{run.path}")))
        labels = resources.enter_context(LabelStore(run.labels))
        log = resources.enter_context(EventLog(run.events))
        log.append(opened)
        method = make_reference(config.reference).name
        cargo = Cargo(run, config, shelf, labels, policy, method)

        def watch(thinker: CampaignThinker) -> None:
            if not server.is_alive():
                msg = "The task server died."
                raise CampaignError(msg, hint=f"See {run.path / 'parsl' / 'server.log'}.")
            if run.stop_file.exists():
                thinker.stop("the file STOP was found")
            status.update(thinker.snapshot)

        yield CampaignThinker(queues, policy, log, opened.seq + 1, cargo, site.pools, watch), server


def _judge(
    thinker: CampaignThinker, policy: ActiveLearning, *, server_died: bool
) -> tuple[Literal["finished", "stopped", "failed"], str]:
    if thinker.error is not None:
        return "failed", f"{type(thinker.error).__name__}: {thinker.error}"
    if policy.verdict is not None:
        return policy.verdict.state, policy.verdict.reason
    if server_died:
        return "failed", "the task server died"
    return "stopped", thinker.stop_reason or "asked to stop"


def _last_line(run: RunDirectory, state: str, reason: str) -> str:
    if state == "finished":
        return f"Finished: {reason}. Results in {run.path}"
    if state == "stopped":
        return f"Stopped: {reason}. All labels made so far are in {run.labels}"
    return f"Failed: {reason.rstrip('.')}. See {run.log}"


# --- opening a run directory ----------------------------------------------------------------------------


def _open_run(run: RunDirectory, config: ActiveLearningConfig, inputs: Inputs) -> dict[str, Any]:
    """Write all that the campaign starts from, and return the values of its first event."""
    write_text(run.config, config_to_yaml(config))
    write_json(run.provenance, collect_provenance(seed=config.seed, inputs=inputs.files))
    _copy_inputs(run, inputs)
    starts = [Frame(atoms) for atoms in inputs.structures]
    start_ids = run.frames.write("start", starts)
    initial = _initial_frames(config, inputs.structures)
    initial_ids = run.frames.write("initial", initial)
    return {
        "config": config.model_dump(mode="json"),
        "start_frames": _named(start_ids, starts),
        "initial_frames": _named(initial_ids, initial),
        "imported": _import_labels(run, inputs.labels),
        "start_model": inputs.start_model is not None,
        "test_files": _write_test_set(run, inputs.test),
    }


def _named(ids: Sequence[str], frames: Sequence[Frame]) -> list[dict[str, str]]:
    return [{"id": name, "hash": frame.hash} for name, frame in zip(ids, frames, strict=True)]


def _initial_frames(config: ActiveLearningConfig, structures: Sequence[Atoms]) -> list[Frame]:
    """Return the structures to label first: those given, then small random displacements of them."""
    n = config.start.n_labels
    frames = [Frame(atoms) for atoms in structures[:n]]
    for index in range(len(frames), n):
        atoms = structures[index % len(structures)].copy()
        rng = np.random.default_rng(seed_for(config.seed, "displacement", index))
        atoms.positions += rng.normal(scale=config.start.displacement_A, size=atoms.positions.shape)
        frames.append(Frame(atoms))
    return frames


def _import_labels(run: RunDirectory, labels: Sequence[Label]) -> list[dict[str, str]]:
    imported: list[dict[str, str]] = []
    seen: set[str] = set()
    with LabelStore(run.labels) as store:
        for label in labels:
            if label.hash in seen:
                continue
            seen.add(label.hash)
            request = f"imported-{len(imported):05d}"
            store.add(request, label, source="imported", method="imported", segment=label.segment)
            imported.append({"request": request, "hash": label.hash})
    return imported


def _write_test_set(run: RunDirectory, labels: Sequence[Label]) -> list[str]:
    if not labels:
        return []
    file = run.test / "given.npz"
    write_bytes(file, labels_to_bytes(labels))
    return [str(file.relative_to(run.path))]


def _copy_inputs(run: RunDirectory, inputs: Inputs) -> None:
    run.inputs.mkdir(exist_ok=True)
    for file in inputs.files:
        # Two inputs may have one name; their content tells them apart.
        shutil.copyfile(file, run.inputs / f"{sha256_file(file)[:8]}-{file.name}")
    if inputs.start_model is None:
        return
    from fff.models.files import find_members

    for index, folder in enumerate(find_members(inputs.start_model)):
        target = run.models / "start" / f"member-{index}"
        target.mkdir(parents=True)
        for name in ("model.json", "weights.safetensors"):
            shutil.copyfile(folder / name, target / name)


@contextlib.contextmanager
def _relaxation() -> Iterator[Callable[[Atoms], Atoms]]:
    """Give a function that relaxes packed clusters with GFN2-xTB, in a process of its own when needed."""
    with contextlib.ExitStack() as stack:

        def relax(atoms: Atoms) -> Atoms:
            section = XtbReference(kind="xtb").model_dump(mode="json")
            process = stack.enter_context(contextlib.closing(ReferenceProcess(section, time_limit_s=600)))
            relaxed = atoms.copy()
            relaxed.calc = ReferenceCalculator(process.calculate)
            # A minimum is not needed, only a structure without strain that dynamics can start from.
            BFGS(relaxed, logfile=None).run(fmax=RELAXED_eV_PER_A, steps=MAX_RELAXATION_STEPS)
            relaxed.calc = None
            return relaxed

        yield relax


def _spread(labels: Sequence[Label], n: int) -> list[Label]:
    if len(labels) <= n:
        return list(labels)
    return [labels[int(i)] for i in np.linspace(0, len(labels) - 1, n).round()]


@contextlib.contextmanager
def _stop_on_signals(thinker: CampaignThinker) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the campaign; the second one gets what Python does by default."""

    def stop(number: int, _frame: FrameType | None) -> None:
        thinker.stop(f"{signal.Signals(number).name} was received")
        signal.signal(number, previous[number])

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous: dict[int, Any] = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write the package's log to a file for people."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("fff")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
