"""What arguments name: each structure once, each label with its source."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from fff.base.errors import InputFileError, StructureError
from fff.data.labels import LabelStore
from fff.steps.settings import load_settings
from fff.steps.sources import structures_to_label, with_sources


def config(sources):
    flags = {"structures": ("STRUCTURES", sources), "reference.kind": ("--reference", "xtb")}
    return load_settings(None, [], flags).config


def test_structures_of_several_sources_are_taken_once(tmp_path):
    frames = [molecule("H2O"), molecule("NH3"), molecule("H2O")]
    frames[2].rattle(0.1, seed=1)
    write(tmp_path / "a.xyz", frames, fmt="%.17g", format="xyz")
    path = str(tmp_path / "a.xyz")
    asked = structures_to_label([path, "molecule:NH3", f"{path}@2"], config([path]))
    assert [each.name for each in asked][:2] == [path, f"{path} (1)"]
    assert len(asked) == 3
    assert {each.source for each in asked} == {"a.xyz"}
    assert {each.segment for each in asked} == {"a-0"}


def test_a_single_structure_is_no_segment():
    (asked,) = structures_to_label(["molecule:H2O"], config(["molecule:H2O"]))
    assert (asked.source, asked.segment) == ("molecule:H2O", "")


def test_a_structure_that_the_method_cannot_treat_is_refused(tmp_path):
    write(tmp_path / "a.xyz", Atoms("HX", positions=[[0, 0, 0], [0, 0, 2]]))
    with pytest.raises(StructureError, match="atoms of no element"):
        structures_to_label([str(tmp_path / "a.xyz")], config(["molecule:H2O"]))


def test_sources_are_file_names_or_keys_of_the_database(water_file, water_labels, tmp_path):
    (tmp_path / "run").mkdir()
    with LabelStore(tmp_path / "run" / "labels.db") as store:
        store.add("label-a", water_labels[0], source="audit", method="x")
    named = with_sources([f"{water_file}@:2", str(tmp_path / "run")])
    assert named.sources == ["water.xyz", "water.xyz", "audit"]
    assert np.allclose(named.labels[2].forces_eV_per_A, water_labels[0].forces_eV_per_A)


def test_a_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(InputFileError, match=r"holds no labels\.db"):
        with_sources([str(tmp_path)])
