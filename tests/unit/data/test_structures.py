from __future__ import annotations

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from fff.base.errors import ConfigError, InputFileError, StructureError
from fff.config import AseReference, PyscfReference, XtbReference
from fff.data.named import pack_cluster
from fff.data.structures import check_structures, load_labels, load_structures, source_files

XTB = XtbReference(kind="xtb")
EMT_REFERENCE = AseReference(kind="ase", calculator="emt")


def unchanged(atoms):
    return atoms


def load(*sources, seed=0, relax=unchanged):
    return load_structures([str(source) for source in sources], relax=relax, seed=seed)


@pytest.fixture
def waters(tmp_path):
    """A file of twenty labelled structures."""
    frames = []
    for i in range(20):
        atoms = molecule("H2O")
        atoms.rattle(0.01, seed=i)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - i, forces=np.full((3, 3), float(i)))
        frames.append(atoms)
    path = tmp_path / "waters.xyz"
    write(path, frames)
    return path


def test_all_frames_of_a_file_are_read_or_those_of_an_index(waters):
    assert len(load(waters)) == 20
    assert len(load(f"{waters}@2:8:3")) == 2
    assert load(f"{waters}@-1")[0].info["source"] == f"{waters}@-1"


def test_a_file_may_have_an_at_sign_in_its_name(tmp_path):
    write(tmp_path / "a@3.xyz", molecule("H2O"))
    assert len(load(tmp_path / "a@3.xyz")) == 1


def test_structures_come_without_momenta_constraints_and_results(tmp_path):
    atoms = molecule("H2O")
    atoms.set_momenta(np.ones((3, 3)))
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    atoms.set_constraint(FixAtoms([0]))
    write(tmp_path / "x.traj", atoms)
    (read,) = load(tmp_path / "x.traj")
    assert read.calc is None
    assert not read.constraints
    assert not read.has("momenta")


def test_a_folder_gives_all_its_structures_and_leaves_notes_aside(tmp_path):
    write(tmp_path / "b.xyz", molecule("H2O"))
    write(tmp_path / "a.cif", bulk("Cu"))
    (tmp_path / "README.md").write_text("notes\n")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / ".hidden.xyz").write_text("rubbish")
    assert [atoms.get_chemical_formula() for atoms in load(tmp_path)] == ["Cu", "H2O"]


def test_a_folder_with_a_damaged_structure_is_refused(tmp_path):
    write(tmp_path / "a.xyz", molecule("H2O"))
    (tmp_path / "b.xyz").write_text("3\n\nH 0 0 0\n")
    with pytest.raises(InputFileError, match=r"b\.xyz cannot be read"):
        load(tmp_path)


def test_a_folder_without_structures_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("notes\n")
    with pytest.raises(InputFileError, match="no file with a structure"):
        load(tmp_path)


def test_molecules_dimers_and_crystals_have_names():
    ethanol, dimer, copper, magnesium = load(
        "molecule:CH3CH2OH", "s22:Water_dimer", "bulk:Cu", "bulk:Mg:1x2x1"
    )
    assert ethanol.get_chemical_formula() == "C2H6O"
    assert len(dimer) == 6
    assert len(copper) == 32
    assert copper.pbc.all()
    assert len(magnesium) == 8


def test_only_clusters_are_relaxed():
    relaxed = []

    def relax(atoms):
        relaxed.append(atoms.get_chemical_formula())
        return atoms

    load("cluster:H2O:2..4", "molecule:H2O", "bulk:Cu", relax=relax)
    assert relaxed == ["H4O2", "H6O3", "H8O4"]


@pytest.mark.parametrize("name", ["H2O", "CH3OH", "C6H6"])
@pytest.mark.parametrize("n", [1, 2, 6, 30])
def test_a_packed_cluster_is_whole_dense_and_without_clashes(name, n):
    monomer = molecule(name)
    size = len(monomer)
    cluster = pack_cluster(monomer, n, np.random.default_rng(n))
    assert cluster.get_chemical_symbols() == monomer.get_chemical_symbols() * n
    distances = cluster.get_all_distances()
    for i in range(n):
        part = slice(i * size, (i + 1) * size)
        np.testing.assert_allclose(distances[part, part], monomer.get_all_distances(), atol=1e-9)
        distances[part, part] = np.inf
    assert n == 1 or 1.6 < distances.min() < 3.5
    centres = np.array([cluster[i * size : (i + 1) * size].get_center_of_mass() for i in range(n)])
    volumes = {"H2O": 29.9, "CH3OH": 67.2, "C6H6": 148.0}  # Å³ per molecule of the liquids
    radius = (3 * n * volumes[name] / (4 * np.pi)) ** (1 / 3)
    assert np.linalg.norm(centres, axis=1).max() < 1.35 * radius


def test_rotations_of_packed_molecules_favour_no_direction():
    rng = np.random.default_rng(0)
    axes = []
    for _ in range(300):
        pair = pack_cluster(Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]]), 1, rng)
        axes.append(pair.positions[1] - pair.positions[0])
    # The mean of 300 evenly drawn unit vectors has components of standard deviation 1/sqrt(3 x 300).
    assert np.abs(np.mean(axes, axis=0)).max() < 4 / np.sqrt(900)
    # Their squares average to 1/3 with standard deviation sqrt(4/45/300).
    np.testing.assert_allclose(np.mean(np.square(axes), axis=0), 1 / 3, atol=4 * np.sqrt(4 / 45 / 300))


def test_a_seed_gives_one_packing_and_another_seed_another():
    first, again, other = (load("cluster:H2O:5", seed=s)[0].positions for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("molecule:C2H5OH", "`C2H5OH`", "CH3CH2OH, CH3OCH3"),
        ("molecule:CH3CH2OHH", "`CH3CH2OHH`", "`CH3CH2OH`"),
        ("molecul:H2O", "`molecul:`", "`molecule:H2O`"),
        ("nothing:H2O", "`nothing:`", "molecule:, s22:, cluster:, bulk:"),
        ("s22:water_dimer", "`water_dimer`", "`Water_dimer`"),
        ("cluster:H2O", "number of molecules", "cluster:H2O:6"),
        ("cluster:H2O:0", "`0`", "1 to 1000"),
        ("cluster:H2O:6..3", "`6..3`", "smaller number first"),
        ("cluster:OH2:3", "`OH2`", "H2O"),
        ("bulk:cu", "`cu`", "`bulk:Cu`"),
        ("bulk:X", "`X` is no element", "file"),
        ("bulk:O", "no simple crystal of O", "file"),
        ("bulk:Cu:2x2", "`2x2`", "bulk:Cu:3x3x3"),
        ("bulk:Cu:99x99x99", "atoms", "at most"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(source, message, hint):
    with pytest.raises(StructureError) as caught:
        load(source)
    assert source in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_wrong_files_are_answered_with_path_and_repair(tmp_path, waters):
    (tmp_path / "empty.xyz").touch()
    (tmp_path / "short.xyz").write_text("3\n\nH 0 0 0\n")
    (tmp_path / "element.xyz").write_text("1\n\nQq 0 0 0\n")
    (tmp_path / "data.json").write_text('{"a": 1}')
    (tmp_path / "notes.md").write_text("notes\n")
    for name, what in {
        "water.xyz": "no file",
        "empty.xyz": "is empty",
        "short.xyz": "cannot be read",
        "element.xyz": "'Qq', which is no element",
        "data.json": "no type that ASE reads",
        "notes.md": "no structure",
    }.items():
        with pytest.raises(InputFileError, match=what) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert caught.value.hint
    with pytest.raises(InputFileError) as caught:
        load(tmp_path / "water.xyz")
    assert "waters.xyz" in caught.value.hint
    with pytest.raises(StructureError, match="holds 20"):
        load(f"{waters}@30")


def test_the_files_of_sources_are_listed_once(waters, tmp_path):
    sources = [str(waters), f"{waters}@:3", str(tmp_path), "molecule:H2O", "cluster:H2O:3"]
    assert source_files(sources) == [waters]


def test_sound_structures_pass():
    check_structures(load("molecule:H2O", "cluster:H2O:3", "bulk:Cu"), XTB)
    check_structures(load("bulk:Cu"), EMT_REFERENCE, thermostat="npt")


def clashing():
    return Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.3]])


def clashing_across_the_border():
    return Atoms("H2", positions=[[0, 0, 0.05], [0, 0, 4.9]], cell=[5, 5, 5], pbc=True)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("X"), "no element"),
        (clashing(), "0.30 Å apart"),
        (clashing_across_the_border(), "0.15 Å apart"),
        (Atoms("H", positions=[[np.nan, 0, 0]]), "not finite"),
        (Atoms("H", pbc=True), "no volume"),
        (Atoms("U", positions=[[0, 0, 0]]), "U, which GFN2-xTB does not treat"),
    ],
)
def test_an_unusable_structure_is_refused_by_name(atoms, message):
    atoms.info["source"] = "the file"
    with pytest.raises(StructureError, match=message) as caught:
        check_structures([molecule("H2O"), atoms], XTB)
    assert "the file" in caught.value.message
    assert caught.value.hint


def test_no_structure_at_all_is_refused():
    with pytest.raises(StructureError, match="`structures` is empty"):
        check_structures([], XTB)


@pytest.mark.parametrize("kind", [XtbReference, PyscfReference])
@pytest.mark.parametrize(
    ("name", "charge", "multiplicity", "key"),
    [
        ("H2O", 0, 2, "reference.multiplicity"),
        ("H2O", 1, 1, "reference.multiplicity"),
        ("OH", 0, 1, "reference.multiplicity"),
        ("H2O", 0, 13, "reference.multiplicity"),
        ("H2O", 10, 1, "reference.charge"),
    ],
)
def test_a_spin_that_cannot_be_is_refused(kind, name, charge, multiplicity, key):
    section = kind(kind=kind.__name__[: -len("Reference")].lower(), charge=charge, multiplicity=multiplicity)
    with pytest.raises(ConfigError) as caught:
        check_structures([molecule(name)], section)
    assert caught.value.context["key"] == key
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "charge", "multiplicity"),
    [("H2O", 0, 1), ("H2O", 0, 3), ("H2O", 1, 2), ("OH", 0, 2), ("OH", -1, 1)],
)
def test_a_spin_that_can_be_passes(name, charge, multiplicity):
    check_structures([molecule(name)], XtbReference(kind="xtb", charge=charge, multiplicity=multiplicity))


def test_gfn_counts_three_electrons_on_a_lanthanide():
    # Cerium has 58 electrons, an even number; GFN2-xTB calculates with three.
    check_structures([Atoms("Ce")], XtbReference(kind="xtb", multiplicity=2))


def test_constant_pressure_needs_periodic_structures():
    with pytest.raises(ConfigError, match=r"sampling\.thermostat"):
        check_structures([molecule("H2O")], XTB, thermostat="npt")


def test_pyscf_needs_isolated_structures():
    with pytest.raises(ConfigError, match="isolated"):
        check_structures([bulk("Cu")], PyscfReference(kind="pyscf"))


def test_labels_carry_energy_forces_and_segments_of_ten(waters):
    labels = load_labels([str(waters)])
    assert [label.energy_eV for label in labels] == [-1.0 - i for i in range(20)]
    np.testing.assert_array_equal(labels[3].forces_eV_per_A, np.full((3, 3), 3.0))
    assert labels[3].stress_eV_per_A3 is None
    assert [label.segment for label in labels[8:12]] == ["waters-0"] * 2 + ["waters-1"] * 2
    assert labels[0].atoms.calc is None


def test_segments_and_trajectories_of_the_file_are_kept(tmp_path):
    frames = []
    for i in range(3):
        atoms = molecule("H2O")
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((3, 3)))
        atoms.info["segment" if i else "trajectory"] = f"part{i}"
        frames.append(atoms)
    write(tmp_path / "x.xyz", frames)
    labels = load_labels([str(tmp_path / "x.xyz")])
    assert [label.segment for label in labels] == ["part0", "part1", "part2"]


def test_labels_are_read_from_an_ase_database_with_their_keys(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    atoms.get_forces()
    atoms.get_stress()
    path = tmp_path / "labels.db"
    with ase.db.connect(path, use_lock_file=False) as database:
        database.write(atoms, segment="s-1", method="emt")
        database.write(atoms, method="emt")
    first, second = load_labels([str(path)])
    assert first.segment == "s-1"
    assert second.segment == "labels-0"
    assert first.energy_eV == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(first.stress_eV_per_A3, atoms.get_stress())
    assert len(load_labels([f"{path}@1:"])) == 1
    assert not list(tmp_path.glob("*.lock"))


def test_forces_of_constrained_atoms_are_kept(tmp_path):
    atoms = molecule("H2O")
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.ones((3, 3)))
    write(tmp_path / "x.traj", atoms)
    (label,) = load_labels([str(tmp_path / "x.traj")])
    np.testing.assert_array_equal(label.forces_eV_per_A, np.ones((3, 3)))


def test_the_energy_of_a_label_is_the_one_its_forces_belong_to(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.5, forces=np.zeros((3, 3)))
    write(tmp_path / "x.extxyz", atoms)
    atoms.calc = SinglePointCalculator(atoms, free_energy=-2.5, forces=np.zeros((3, 3)))
    write(tmp_path / "y.traj", atoms)
    labels = load_labels([str(tmp_path / "x.extxyz"), str(tmp_path / "y.traj")])
    assert [label.energy_eV for label in labels] == [-1.5, -2.5]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "no energy and no forces"),
        ({"energy": 1.0}, "no forces"),
        ({"forces": np.zeros((3, 3))}, "no energy"),
        ({"energy": 1.0, "free_energy": np.nan, "forces": np.zeros((3, 3))}, "not a finite number"),
        ({"energy": np.nan, "forces": np.zeros((3, 3))}, "not a finite number"),
        ({"energy": 1.0, "forces": np.full((3, 3), np.inf)}, "not a finite number"),
    ],
)
def test_labels_without_sound_energies_and_forces_are_refused(tmp_path, results, message):
    atoms = molecule("H2O")
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    path = tmp_path / "x.traj"
    write(path, atoms)
    with pytest.raises(StructureError, match=message) as caught:
        load_labels([str(path)])
    assert f"Structure 0 of {path}" in caught.value.message
    assert caught.value.hint


def test_the_hint_names_what_a_file_calls_its_numbers(tmp_path):
    atoms = molecule("H2O")
    atoms.info["dft_energy"] = -1.0
    write(tmp_path / "x.xyz", atoms)
    with pytest.raises(StructureError) as caught:
        load_labels([str(tmp_path / "x.xyz")])
    assert "dft_energy" in caught.value.hint


def test_published_ethanol_labels_are_read(data_dir):
    labels = load_labels([f"{data_dir}/ethanol-dft/train.xyz@:15"])
    assert len(labels) == 15
    assert labels[0].energy_eV == pytest.approx(-4209.4657843)
    assert labels[12].segment == "train-1"
    check_structures([label.atoms for label in labels], XTB)
