"""What is checked before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import fff.campaigns.inputs
from fff.base.errors import ConfigError
from fff.base.ids import sha256_bytes
from fff.campaigns.inputs import load_inputs
from fff.campaigns.opening import initial_frames
from fff.config import load_config

LEAST = ["structures=[molecule:H2O]", "reference={kind: xtb}"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Whether the reference runs here is asked in a process of its own.
    monkeypatch.setattr(fff.campaigns.inputs, "probe_reference", lambda section, structures: "GFN2-xTB")


def member(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True)
    weights = b"not read here"
    description = {
        "schema_version": 1,
        "kind": "schnetpack",
        "representation": "schnet",
        "n_features": 16,
        "n_layers": 2,
        "cutoff_A": 4.0,
        "n_radial": 12,
        "elements": [1, 8],
        "weights_sha256": sha256_bytes(weights),
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(description))
    (folder / "weights.safetensors").write_bytes(weights)
    return folder


def labelled(path: str, structures: list[Atoms]) -> None:
    for atoms in structures:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[0.0, 0.0, 0.0]] * len(atoms))
    write(path, structures)


def waters(n: int, seed: int = 1) -> list[Atoms]:
    frames = [molecule("H2O") for _ in range(n)]
    for i, atoms in enumerate(frames):
        atoms.rattle(0.02, seed=seed + i)
    return frames


def refused(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_inputs(load_config(None, [*LEAST, *overrides]), relax=False)
    assert caught.value.hint
    return caught.value


def test_the_architecture_comes_from_the_given_model(tmp_path):
    member(tmp_path / "model")
    inputs = load_inputs(load_config(None, [*LEAST, "model.start=model", "model.n_features=16"]))
    section = inputs.loaded.config.model
    assert (section.representation, section.n_features, section.n_layers) == ("schnet", 16, 2)
    assert (section.cutoff_A, section.n_radial) == (4.0, 12)
    assert inputs.loaded.sources["model.n_layers"] == "model.start"
    assert inputs.loaded.sources["model.n_features"] == "-o"
    assert inputs.start_members == [tmp_path / "model"]


def test_the_resolved_config_of_a_fine_tuning_runs_again(tmp_path):
    from fff.config import config_to_yaml

    member(tmp_path / "model")
    first = load_inputs(load_config(None, [*LEAST, "model.start=model"]))
    Path("again.yaml").write_text(config_to_yaml(first.loaded.config))
    assert load_inputs(load_config(Path("again.yaml"))).loaded.config == first.loaded.config


def test_without_a_given_model_the_config_stays_as_it_is():
    loaded = load_config(None, LEAST)
    assert load_inputs(loaded).loaded is loaded


@pytest.mark.parametrize(
    "override", ["n_features=32", "n_layers=3", "cutoff_A=5", "n_radial=20", "representation=painn"]
)
def test_an_architecture_that_the_given_model_does_not_have_is_refused(tmp_path, override):
    member(tmp_path / "model")
    name, _, value = override.partition("=")
    error = refused("model.start=model", f"model.{override}")
    assert error.context["key"] == f"model.{name}"
    assert value in error.message
    assert f"Leave `model.{name}` out" in error.hint


def test_a_model_that_no_config_can_describe_is_refused(tmp_path):
    member(tmp_path / "model", n_layers=9)
    error = refused("model.start=model")
    assert error.context["key"] == "model.start"
    assert "at most 8" in error.message


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("model.json", b"{}", "schema version"),
        ("model.json", b'{"schema_version": 1', "not JSON"),
        ("model.json", b"[]", "schema version"),
        ("weights.safetensors", b"other", "damaged"),
        ("weights.safetensors", None, "no weights.safetensors"),
    ],
)
def test_a_damaged_member_is_refused_with_its_folder(tmp_path, file, content, part):
    member(tmp_path / "model" / "member-0")
    folder = member(tmp_path / "model" / "member-1")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    error = refused("model.start=model")
    assert error.context["key"] == "model.start"
    assert error.message.startswith("`model.start`: ")
    assert part in error.message
    assert "member-1" in error.message


def test_a_description_without_elements_is_refused(tmp_path):
    member(tmp_path / "model", elements=None)
    assert "describes no model" in refused("model.start=model").message


def test_a_run_whose_committee_is_gone_is_refused(tmp_path):
    folder = member(tmp_path / "run" / "models" / "round-001" / "member-0")
    (tmp_path / "run" / "models" / "committee.json").write_text('{"members": ["round-002/member-0"]}')
    error = refused("model.start=run")
    assert folder.is_dir()
    assert error.context["key"] == "model.start"
    assert "round-002" in error.message


def test_members_of_different_architectures_are_refused(tmp_path):
    member(tmp_path / "model" / "member-0")
    member(tmp_path / "model" / "member-1", n_features=32)
    error = refused("model.start=model")
    assert "n_features is 16" in error.message
    assert "32" in error.message


def test_a_model_that_lacks_an_element_is_refused(tmp_path):
    member(tmp_path / "model", elements=[1, 8])
    labelled("carbon.xyz", [molecule("CH4"), molecule("C2H6")])
    for key, override in (
        ("structures", "structures=[molecule:CH4]"),
        ("labels", "labels=[carbon.xyz]"),
        ("test.labels", "test.labels=carbon.xyz"),
    ):
        error = refused("model.start=model", override)
        assert error.context["key"] == "model.start"
        assert f"`{key}` holds C, which `model.start` lacks" in error.message


def test_structures_with_elements_of_no_label_are_refused():
    labelled("labels.xyz", waters(2))
    error = refused("structures=[molecule:CH4]", "labels=[labels.xyz]")
    assert error.context["key"] == "labels"
    assert "C, which `labels` lacks" in error.message


def test_a_start_structure_in_the_test_set_is_refused():
    labelled("test.xyz", [molecule("H2O"), *waters(3)])
    write("start.extxyz", molecule("H2O"))
    error = refused("structures=[start.extxyz]", "test.labels=test.xyz")
    assert error.context["key"] == "test.labels"
    assert "`test.labels` shares 1 structure with `structures`" in error.message


def test_a_test_set_with_the_displacements_that_are_labelled_first_is_refused(tmp_path):
    loaded = load_config(None, LEAST)
    frames = initial_frames(loaded.config, load_inputs(loaded).structures)
    from ase.db import connect

    with connect(tmp_path / "test.db") as database:
        for frame in frames[3:5]:
            atoms = frame.atoms.copy()
            atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[0.0, 0.0, 0.0]] * 3)
            database.write(atoms)
    assert "shares 2 structures with `structures`" in refused("test.labels=test.db").message
    # Another seed labels others.
    load_inputs(load_config(None, [*LEAST, "test.labels=test.db", "seed=1"]))


@pytest.mark.slow
def test_packed_clusters_are_relaxed_in_one_process_which_ends(monkeypatch):
    import psutil

    from fff.reference import ReferenceProcess

    pids = set()
    calculate = ReferenceProcess.calculate

    def watched(process, atoms):
        label = calculate(process, atoms)
        pids.add(process.pid)
        return label

    monkeypatch.setattr(ReferenceProcess, "calculate", watched)
    overrides = ["structures=[cluster:H2O:2, cluster:H2O:3]", "reference={kind: xtb}"]
    assert len(load_inputs(load_config(None, overrides)).structures) == 2
    assert len(pids) == 1
    assert not any(psutil.pid_exists(pid) for pid in pids)


ACROSS = (
    "{kind: slurm, mpi_launch: '{nodes} {ranks}', nodes: {rest: {}, "
    "far: {nodes_per_block: 4, across_nodes: true, tasks: [calculation]}}}"
)


@pytest.mark.parametrize(
    ("site", "n_slots"),
    [
        ("{kind: laptop, n_workers: 2, mpi_launch: 'mpiexec {ranks}'}", 2),
        ("{kind: workstation, n_gpu_workers: 9, n_cpu_workers: 3, mpi_launch: 'mpiexec {ranks}'}", 3),
        (ACROSS, 4),
        ("{kind: slurm, mpi_launch: '{ranks}', nodes: {cpu: {workers_per_node: 2}}}", 2),
    ],
)
def test_a_calculation_may_take_as_many_slots_as_its_site_has_and_no_more(site, n_slots):
    overrides = ["reference={kind: ase, calculator: nwchem}", f"site={site}"]
    error = refused(*overrides, f"calculation.nodes_by_size=[[0, 1], [40, {n_slots + 1}]]")
    assert error.context["key"] == "calculation.nodes_by_size"
    assert f"gives {n_slots + 1} slots to one calculation, above the {n_slots} that" in error.message
    assert f"from size 40 on to at most {n_slots}" in error.hint
    loaded = load_config(None, [*LEAST, *overrides, f"calculation.nodes_by_size=[[0, {n_slots}]]"])
    assert load_inputs(loaded, relax=False).structures


@pytest.mark.parametrize("more", ["nodes_per_block: 2", "max_blocks: 3"])
def test_a_calculation_of_several_slots_needs_them_on_one_node_or_a_code_that_runs_across_nodes(more):
    site = f"{{kind: slurm, mpi_launch: '{{ranks}}', nodes: {{cpu: {{workers_per_node: 4, {more}}}}}}}"
    given = ["reference={kind: ase, calculator: nwchem}", f"site={site}"]
    error = refused(*given, "calculation.nodes_by_size=[[0, 1], [40, 2]]")
    assert error.context["key"] == "calculation.nodes_by_size"
    assert "gives 2 slots to one calculation, but those of the pool 'cpu' lie on" in error.message
    assert f"site.nodes.cpu.{more.replace(':', '` is')}" in error.message
    assert "across_nodes: true" in error.hint
    assert load_inputs(load_config(None, [*LEAST, *given]), relax=False).structures


@pytest.mark.parametrize("reference", ["{kind: xtb}", "{kind: ase, calculator: orca}"])
def test_a_method_that_no_launch_line_starts_does_not_run_across_nodes(reference):
    error = refused(f"reference={reference}", f"site={ACROSS}")
    assert error.context["key"] == "site.nodes.far.across_nodes"
