"""What a campaign starts from, as its first event tells it."""

from __future__ import annotations

from ase.build import molecule

from fff.campaigns.inputs import Inputs
from fff.campaigns.opening import open_run
from fff.config import load_config
from fff.data.run_directory import RunDirectory


def test_the_first_event_tells_the_size_of_every_structure(tmp_path):
    names = ("H2O", "C6H6")
    loaded = load_config(
        None,
        [f"structures=[{', '.join(f'molecule:{name}' for name in names)}]", "reference={kind: xtb}"],
    )
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    values = open_run(run, loaded.config, Inputs(loaded, [molecule(name) for name in names], [], [], "any"))
    starts = [(one["id"], one["n_atoms"], one["n_electrons"]) for one in values["start_frames"]]
    assert starts == [("start:0", 3, 10), ("start:1", 12, 42)]
    # Displaced copies of the structures, one after the other.
    initial = [(one["n_atoms"], one["n_electrons"]) for one in values["initial_frames"]]
    assert initial == [(3, 10), (12, 42)] * (loaded.config.start.n_labels // 2)
