"""A real campaign whose larger structures have both workers to themselves: NWChem under Open MPI."""

from __future__ import annotations

import itertools
import re
import shutil

import pytest

from fff.campaigns.running import open_campaign
from fff.config import load_config
from fff.data.events import read_events
from fff.data.run_directory import RunDirectory
from fff.steering.replay import replay

# Half a minute on a free machine; a busy one may take minutes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (shutil.which("nwchem") and shutil.which("ompi_info")), reason="needs nwchem and Open MPI"
    ),
]

N_WORKERS = 2
# Open MPI counts cores, of which a small machine may have fewer than ranks; containers run tests as root.
LAUNCH = "mpiexec --allow-run-as-root --oversubscribe -n {ranks}"
OVERRIDES = [
    "structures=[molecule:H2O, molecule:H2]",
    "reference={kind: ase, calculator: nwchem, keep_files: true}",
    "reference.parameters={command: nwchem PREFIX.nwi > PREFIX.nwo, theory: scf, basis: sto-3g}",
    "calculation={size_by: atoms, nodes_by_size: [[0, 1], [3, 2]]}",
    f"site={{kind: laptop, n_workers: {N_WORKERS}, mpi_launch: '{LAUNCH}'}}",
    "model={n_features: 8, n_layers: 1, n_radial: 8}",
    "committee.size=2",
    "start.n_labels=4",
    "training={retrain_every: 4, max_epochs: 1}",
    "test.n_frames=0",
    "stop.max_labels=4",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    path = tmp_path_factory.mktemp("large") / "run"
    with open_campaign(load_config(None, [*OVERRIDES, f"run_dir={path}"])) as campaign:
        outcome = campaign.carry_out()
    assert outcome.state == "finished", outcome.message
    return RunDirectory(path)


def test_a_large_structure_is_calculated_by_a_rank_on_each_of_its_slots(run):
    found = replay(read_events(run.events), run.events)
    ranks = {}
    for name, (request, _) in found.done.items():
        if request.kind == "calculate":
            (output,) = run.path.glob(f"tasks/{name}-1/nwchem.nwo")
            told = re.search(r"nproc\s+=\s+(\d+)", output.read_text())
            ranks[name] = (request.slots, int(told.group(1)) if told else None)
    # Water and hydrogen in turns.
    assert ranks == dict(
        zip([f"label-{number:05d}" for number in range(4)], itertools.cycle([(2, 2), (1, 1)]), strict=False)
    )


def test_never_are_more_slots_in_use_than_there_are(run):
    found = replay(read_events(run.events), run.events)
    changes = []
    for request, event in found.done.values():
        changes += [(event.times["started"], request.slots), (event.times["ended"], -request.slots)]
    # Where one begins in the moment in which another ends, the end comes first.
    in_use = itertools.accumulate(slots for _, slots in sorted(changes))
    assert max(in_use) == N_WORKERS
