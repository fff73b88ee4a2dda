"""Nothing that is read executes: no such call in the source, and every hostile file we can think of is tried.

A bomb makes a folder when it is unpickled or evaluated. Each test of a file looks whether it is there.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.io.formats import ioformats
from proxystore.serialize import SerializationError

import fff
from fff.base.errors import (
    ConfigError,
    FffError,
    InputFileError,
    ModelFileError,
    ReferenceSetupError,
    RunDirectoryError,
)
from fff.base.ids import sha256_bytes
from fff.campaigns.opening import _copy_inputs
from fff.campaigns.running import open_campaign
from fff.campaigns.sitting import _logging_to
from fff.compute.queues import LocalQueues
from fff.compute.server import start_server
from fff.compute.stores import ModelShelf, open_store
from fff.compute.tasks import Call, _failure
from fff.config import config_from_dict, load_config
from fff.data.frames import FrameStore
from fff.data.labels import LabelStore
from fff.data.packing import frames_to_bytes, labels_from_bytes
from fff.data.reading import FORMATS, load_labels, read_frames
from fff.data.records import Frame, Label
from fff.data.run_directory import RunDirectory
from fff.data.structures import load_structures
from fff.models.files import find_members
from fff.reference import make_reference
from fff.reference.probing import probe_reference
from fff.steering.cargo import Cargo, read_models

SOURCE = Path(fff.__file__).parent
WATER = Label(molecule("H2O"), -14.0, np.zeros((3, 3)), segment="start-0")
CONFIG = {"structures": ["molecule:H2O"], "reference": {"kind": "xtb"}}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """What must not be there after a test."""
    path = tmp_path / "it-exploded"
    yield path
    assert not path.exists(), "something that was read was executed"


@pytest.fixture
def bomb(marker):
    """A pickle that makes the marker."""
    return pickle.dumps(Bomb(marker))


def is_sentence(error):
    return error.message.endswith(".") and "\n" not in error.message


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))  # the tests below could not fail otherwise

    assert (tmp_path / "marker").is_dir()


# --- the source ----------------------------------------------------------------------------------------

UNPICKLING = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve", "_pickle"}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "runpy.run_module"),
    *("torch.load", "torch.jit.load", "torch.package.PackageImporter", "np.fromfile", "numpy.fromfile"),
    *("pandas.read_pickle", "pd.read_pickle", "importlib.import_module", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "ase.db.connect"),
}
# The home of the lazily imported names of a package: the modules are written in the source.
MAY_IMPORT_BY_NAME = {"models/__init__.py"}
WORDS_ALLOWED = {"shell": False, "allow_pickle": False, "weights_only": True, "trust_remote_code": False}


def find_dangers(source, path="module.py"):
    """Return what in a source could execute what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {name}" for name in names if name.partition(".")[0] in UNPICKLING]
        elif isinstance(node, ast.Call):
            found += dangers_of_call(node, path)
    return found


def dangers_of_call(node, path):
    name = ast.unparse(node.func)
    words = {word.arg: word.value for word in node.keywords if word.arg}
    dangers = []
    if name in FORBIDDEN and not (name == "importlib.import_module" and path in MAY_IMPORT_BY_NAME):
        dangers.append(name)
    for word, allowed in WORDS_ALLOWED.items():
        if word in words and not (isinstance(words[word], ast.Constant) and words[word].value is allowed):
            dangers.append(f"{name}({word}={ast.unparse(words[word])})")
    if name in ("np.load", "numpy.load") and "allow_pickle" not in words:
        dangers.append(f"{name} without allow_pickle=False")
    if name in ("ase.io.read", "ase.io.iread") and "format" not in words:
        dangers.append(f"{name} of any format")
    if name == "YAML" and ast.unparse(words.get("typ", ast.Constant(None))) not in ("'safe'", "'rt'"):
        dangers.append("YAML that makes objects")
    return dangers


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_module_could_execute_what_it_reads(path):
    assert find_dangers(path.read_text(encoding="utf-8"), path.relative_to(SOURCE).as_posix()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "import cloudpickle.compat",
        "def f(text):\n    return eval(text)",
        "exec(open('x').read())",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "subprocess.run(command, shell=True)",
        "subprocess.Popen(command, shell=1)",
        "os.system(command)",
        "YAML()",
        "YAML(typ='unsafe')",
        "yaml.load(text, Loader)",
        "ase.io.read(path)",
        "ase.db.connect(path)",
        "importlib.import_module(name)",
    ],
)
def test_what_could_execute_is_found_in_a_source(source):
    assert find_dangers(source)


def test_what_cannot_execute_is_not_found():
    lines = [
        "import json",
        "np.load(p, allow_pickle=False)",
        "network.eval()",
        "YAML(typ='safe')",
        "re.compile('x')",
    ]
    assert find_dangers("\n".join(lines)) == []


# --- structures and labels that a user was given --------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(
            "old.traj",
            "a.pckl",
            "a.pickle",
            "a.pkl",
            "a.npy",
            "a.npz",
            "a.gpw",
            "a.nc",
            "a.db",
            "a.json",
            "a.py",
        ),
        *(
            "a.xyz",
            "a.extxyz",
            "a.cif",
            "POSCAR",
            "OUTCAR",
            "vasprun.xml",
            "a.pdb",
            "a.cfg",
            "a.bundle",
            "a.cjson",
        ),
        *("a.postgresql", "a.mysql", "a.aselmdb", "a.ulm", "a.unknown", "nothing"),
    ],
)
def test_a_pickle_under_the_name_of_a_structure_is_refused(tmp_path, bomb, marker, name):
    (tmp_path / name).write_bytes(bomb)

    with pytest.raises(InputFileError) as caught:
        read_frames(str(tmp_path / name))

    assert is_sentence(caught.value)


@pytest.mark.parametrize("magic", [b"PickleTrajectory", b"- of UlmASE-Trajectory", b"AFFormatASE-Trajectory"])
def test_a_pickle_behind_the_mark_of_a_trajectory_is_refused(tmp_path, bomb, marker, magic):
    (tmp_path / "a.traj").write_bytes(magic + bomb)

    with pytest.raises(InputFileError) as caught:
        read_frames(str(tmp_path / "a.traj"))

    assert is_sentence(caught.value)


def test_a_script_is_no_structure(tmp_path, marker):
    (tmp_path / "a.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")

    with pytest.raises(InputFileError, match="no type that ASE reads"):
        read_frames(str(tmp_path / "a.py"))


def test_a_bundle_with_pickled_frames_is_refused(tmp_path, bomb, marker):
    bundle = tmp_path / "a.bundle"
    (bundle / "F0").mkdir(parents=True)
    (bundle / "metadata.json").write_text(json.dumps({"format": "BundleTrajectory", "backend": "pickle"}))
    (bundle / "frames").write_text("1")
    (bundle / "state").write_bytes(bomb)
    (bundle / "F0" / "smalldata.pickle").write_bytes(bomb)

    with pytest.raises(InputFileError) as caught:
        load_structures([str(bundle)], relax=lambda atoms: atoms, seed=0)

    assert is_sentence(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.cell", "%BLOCK LATTICE_CART\n5 0 0\n0 5 0\n0 0 5\n%ENDBLOCK LATTICE_CART\n"),
        ("inp", "XYZCoordinates = 'a.pckl'\n"),
        ("a.postgresql", "nothing"),
        ("a.nomad-json", "{}"),
    ],
)
def test_a_format_whose_reader_does_more_than_to_read_is_refused_with_the_repair(tmp_path, name, text):
    (tmp_path / name).write_text(text)

    with pytest.raises(InputFileError) as caught:
        read_frames(str(tmp_path / name))

    assert caught.value.message.startswith(f"The file {tmp_path / name} has the format ")
    assert "ase convert -i " in caught.value.hint


def test_a_file_whose_name_begins_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mysql-run.xyz", "postgres.xyz"):
        ase.io.write(tmp_path / name, molecule("H2O"))

        assert len(read_frames(name)) == 1


@pytest.mark.parametrize(
    "source", ["postgresql://me:hunter2@localhost/db", "mysql://me:hunter2@localhost/db"]
)
def test_the_address_of_a_server_is_no_file(source):
    with pytest.raises(InputFileError, match="There is no file"):
        load_labels([source])


def test_the_formats_are_some_that_ase_reads():
    readable = {name for name, kind in ioformats.items() if name == "netcdftrajectory" or kind.can_read}
    assert readable >= FORMATS
    assert FORMATS.isdisjoint({"castep-cell", "octopus-in", "mysql", "postgresql", "bundletrajectory", "py"})


AUDIT = """
import sys, warnings
from pathlib import Path
import ase.io
from ase.build import bulk
from ase.io.formats import ioformats
from fff.data.reading import FORMATS, read_frames
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
names = {"vasp": "POSCAR", "vasp-xdatcar": "XDATCAR", "dlp4": "a.config", "turbomole": "coord"}
written = {}
for name in sorted(FORMATS):
    path = folder / name / names.get(name, f"a.{(ioformats[name].extensions or [name])[0]}")
    path.parent.mkdir()
    try:
        ase.io.write(path, atoms, format=name)
    except Exception:
        continue
    written[name] = path
read_frames(str(written["extxyz"]))  # what the first reading imports
BAD = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename",
       "socket.connect", "socket.bind", "socket.getaddrinfo", "pickle.find_class", "urllib.Request")
seen = []
def look(event, args):
    if event in BAD or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
        seen.append((event, str(args[:2])[:200]))
sys.addaudithook(look)
done = []
for name, path in written.items():
    try:
        read_frames(str(path))
    except OSError:
        continue
    done.append(name)
sys.stdout.write(repr((seen, done)))
"""


@pytest.mark.slow
def test_reading_a_format_starts_nothing_connects_to_nothing_and_writes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AUDIT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )

    seen, formats = ast.literal_eval(done.stdout)
    assert seen == []
    assert len(formats) >= 15, formats


# --- databases ------------------------------------------------------------------------------------------

HOSTILE_JSON = [
    '{"py/reduce": [{"py/type": "os.mkdir"}, {"py/tuple": ["MARKER"]}]}',
    '{"__ase_objtype__": "os.mkdir", "path": "MARKER"}',
    '{"__ase_objtype__": "atoms", "numbers": 1, "positions": [], "cell": [], "pbc": "os.mkdir(\'MARKER\')"}',
    '{"__ndarray__": [[1], "O", ["os.mkdir(\'MARKER\')"]]}',
    '{"__ndarray__": [[-1], "f8", []]}',
    '[{"name": "os.mkdir", "kwargs": {"path": "MARKER"}}]',
    '[{"name": "ase.calculators.calculator.os.mkdir", "kwargs": {"path": "MARKER"}}]',
    "os.mkdir('MARKER')",
    "[" * 100_000,
]


@pytest.mark.parametrize("column", ["key_value_pairs", "constraints", "data", "calculator_parameters"])
@pytest.mark.parametrize("text", HOSTILE_JSON, ids=range(len(HOSTILE_JSON)))
def test_a_database_with_hostile_json_executes_nothing(tmp_path, marker, column, text):
    path = tmp_path / "labels.db"
    with LabelStore(path) as store:
        store.add("label-0", WATER, source="initial", method="GFN2-xTB")
    change(path, column, text.replace("MARKER", str(marker)))

    with LabelStore(path) as store:
        expect_sentence_or_result(lambda: store.read(["label-0"]))
    expect_sentence_or_result(lambda: read_frames(str(path)))


@pytest.mark.parametrize(
    "column", ["numbers", "positions", "forces", "data", "key_value_pairs", "constraints"]
)
def test_a_database_with_pickles_executes_nothing(tmp_path, bomb, marker, column):
    path = tmp_path / "labels.db"
    with LabelStore(path) as store:
        store.add("label-0", WATER, source="initial", method="GFN2-xTB")
    change(path, column, bomb)

    with LabelStore(path) as store, pytest.raises(RunDirectoryError) as caught:
        store.read(["label-0"])
    assert is_sentence(caught.value)
    expect_sentence_or_result(lambda: read_frames(str(path)))


def change(path, column, value):
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE systems SET {column} = ?", (value,))
    connection.commit()
    connection.close()


def expect_sentence_or_result(act):
    """Hostile text may be taken for text."""
    error = None
    try:
        act()
    except FffError as caught:
        error = caught
    assert error is None or is_sentence(error)


@pytest.mark.parametrize("text", HOSTILE_JSON, ids=range(len(HOSTILE_JSON)))
def test_a_json_database_executes_nothing(tmp_path, marker, text):
    row = text.replace("MARKER", str(marker))
    (tmp_path / "a.json").write_text(f'{{"1": {row}, "ids": [1], "nextid": 2}}')

    with pytest.raises(InputFileError) as caught:
        read_frames(str(tmp_path / "a.json"))

    assert is_sentence(caught.value)


def test_reading_a_database_does_not_change_it(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    with pytest.raises(InputFileError, match="none of ASE"):
        read_frames(str(path))

    assert path.read_bytes() == before


def test_a_trigger_in_the_labels_is_passed_over(tmp_path):
    path = tmp_path / "labels.db"
    with LabelStore(path) as store:
        store.add("label-0", WATER, source="initial", method="GFN2-xTB")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON systems BEGIN DELETE FROM systems; END")
    connection.commit()
    connection.close()

    with LabelStore(path) as store:
        store.add("label-1", WATER, source="initial", method="GFN2-xTB")

        assert len(store.read()) == 2


# --- a run directory that somebody else made ------------------------------------------------------------


def object_arrays(thing):
    """Return an npz file whose arrays are pickles."""
    buffer = io.BytesIO()
    objects = np.empty(1, dtype=object)
    objects[0] = thing
    np.savez(buffer, schema_version=np.array(1), n_atoms=objects, numbers=objects, positions_A=objects)
    return buffer.getvalue()


def npz_with(data):
    """Return a zip file with raw bytes where an array belongs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema_version.npy", data)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [pickle.dumps, object_arrays, lambda t: npz_with(pickle.dumps(t))])
def test_frames_that_are_pickles_are_refused(tmp_path, marker, pack):
    (tmp_path / "start.npz").write_bytes(pack(Bomb(marker)))

    with pytest.raises(RunDirectoryError) as caught:
        FrameStore(tmp_path).read("start:0")

    assert is_sentence(caught.value)
    assert str(tmp_path / "start.npz") in caught.value.message


@pytest.mark.parametrize("data", [b"", b"PK\3\4", npz_with(b"\x93NUMPY\1\0"), npz_with(b"")], ids=range(4))
def test_frames_that_are_damaged_are_refused(tmp_path, data):
    (tmp_path / "start.npz").write_bytes(data)

    with pytest.raises(RunDirectoryError) as caught:
        FrameStore(tmp_path).read("start:0")

    assert is_sentence(caught.value)


@pytest.mark.parametrize("pack", [pickle.dumps, object_arrays])
def test_labels_that_are_pickles_are_refused(marker, pack):
    with pytest.raises(ValueError, match=r"pickle|object|Object"):
        labels_from_bytes(pack(Bomb(marker)))


@pytest.mark.parametrize("frame_id", ["../start:0", "/etc/passwd:0", "a/../../start:0"])
def test_a_frame_id_cannot_lead_out_of_the_frames(tmp_path, frame_id):
    (tmp_path / "start.npz").write_bytes(frames_to_bytes([Frame(molecule("H2O"))]))

    with pytest.raises(RunDirectoryError, match="leads out"):
        FrameStore(tmp_path / "frames").read(frame_id)


@pytest.mark.parametrize(
    "parts", [("../secret",), ("tasks", "../../secret"), ("/etc/passwd",), ("models", "/etc")]
)
def test_what_a_task_is_told_cannot_lead_out_of_the_run_directory(tmp_path, parts):
    with pytest.raises(RunDirectoryError, match="leads out"):
        Call("request-1", str(tmp_path)).path(*parts)


@pytest.mark.parametrize("name", ["../victim.json", "tasks/../../victim.json"])
def test_a_result_cannot_have_a_file_elsewhere_read_or_removed(tmp_path, name):
    run = RunDirectory(tmp_path / "run")
    run.tasks.mkdir(parents=True)
    victim = tmp_path / "victim.json"
    victim.write_text('{"a": 1}')
    values = {"values_file": name, "sha256": sha256_bytes(victim.read_bytes())}

    with pytest.raises(RunDirectoryError, match="leads out"):
        Cargo.read_values(SimpleNamespace(run=run), {"values": values})

    assert victim.read_text() == '{"a": 1}'


def test_the_key_of_a_model_cannot_lead_out_of_the_models(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "weights.safetensors").write_bytes(b"")

    with pytest.raises(RunDirectoryError, match="leads out"):
        read_models(tmp_path / "models", ["../"])


@pytest.mark.parametrize("name", ["../member-0", "round-000/../../member-0", "ABSOLUTE"])
def test_the_committee_named_in_a_run_lies_in_its_models(tmp_path, name):
    outside = tmp_path / "member-0"
    outside.mkdir()
    (outside / "model.json").write_text("{}")
    models = tmp_path / "run" / "models"
    (models / "round-000").mkdir(parents=True)
    members = [str(outside) if name == "ABSOLUTE" else name]
    (models / "committee.json").write_text(json.dumps({"schema_version": 1, "members": members}))

    with pytest.raises(ModelFileError) as caught:
        find_members(tmp_path / "run")

    assert "leads out" in caught.value.message
    assert is_sentence(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_weights_that_are_a_pickle_are_refused_though_the_checksum_agrees(tmp_path, bomb, marker, kind):
    import torch

    from fff.models.force_field import create_force_field

    settings = {"representation": "painn", "n_features": 8, "n_layers": 1, "cutoff_A": 3.5, "n_radial": 6}
    made = create_force_field(settings, seed=0, elements=[1, 8], reference_energies={})
    data = bomb
    if kind == "torch":
        buffer = io.BytesIO()
        torch.save({"weights": Bomb(marker)}, buffer)
        data = buffer.getvalue()
    description = json.loads(made.to_files()["model.json"]) | {"weights_sha256": sha256_bytes(data)}
    (tmp_path / "weights.safetensors").write_bytes(data)
    (tmp_path / "model.json").write_text(json.dumps(description))

    with pytest.raises(ModelFileError, match="no safetensors file") as caught:
        fff.calculator(tmp_path)

    assert is_sentence(caught.value)


def test_a_pickle_in_the_store_is_no_parcel(tmp_path, bomb, marker):
    store = open_store(tmp_path / "store", "security-pickle")
    with ModelShelf(store) as shelf:
        key = store.put({"a": b"1"})
        (tmp_path / "store" / key.filename).write_bytes(bomb)

        with pytest.raises(SerializationError) as caught:
            shelf.store.get(key)

    assert "no parcel" in str(caught.value.__cause__)


# --- folders with secrets, and links ----------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path):
    """A folder of the user's, with a file, that must be as it was after the test."""
    folder = tmp_path / "documents"
    folder.mkdir(mode=0o755)
    (folder / "thesis.tex").write_text("precious")
    yield folder
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    assert (folder / "thesis.tex").read_text() == "precious"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_store_that_is_a_link_is_refused_and_nothing_is_removed(tmp_path, victim):
    (tmp_path / "store").symlink_to(victim)

    with pytest.raises(RunDirectoryError, match="is a symbolic link"):
        open_store(tmp_path / "store", "security-link")


def test_a_folder_of_parsl_that_is_a_link_is_refused(tmp_path, victim):
    (tmp_path / "parsl").symlink_to(victim)
    queues = LocalQueues(["train"])
    try:
        with pytest.raises(RunDirectoryError, match="is a symbolic link"):
            start_server({}, queues, None, tmp_path)
    finally:
        queues.close()


def test_a_log_of_the_server_that_is_a_link_is_refused(tmp_path, victim):
    (tmp_path / "parsl").mkdir()
    (tmp_path / "parsl" / "server.log").symlink_to(victim / "thesis.tex")
    queues = LocalQueues(["train"])
    try:
        with pytest.raises(RunDirectoryError, match="is a symbolic link"):
            start_server({}, queues, None, tmp_path)
    finally:
        queues.close()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_store_is_the_users_alone_whatever_the_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        with ModelShelf(open_store(tmp_path / "store", f"security-{umask}")):
            assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    finally:
        os.umask(previous)


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o644])
def test_the_copy_of_an_input_can_be_read_by_those_who_can_read_the_input(tmp_path, mode):
    file = tmp_path / "labels.xyz"
    file.write_text("1\n\nH 0 0 0\n")
    file.chmod(mode)
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()

    for _ in range(2):  # an interrupted opening is made anew
        _copy_inputs(run, SimpleNamespace(files=[file], start_members=[]))

    (copy,) = run.inputs.iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == mode
    assert copy.read_bytes() == file.read_bytes()


# --- configs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir ['MARKER']",
        "!!python/object/new:os.mkdir ['MARKER']",
        "!!python/name:os.mkdir",
        "!!python/module:os",
        "!python/object/apply:os.mkdir ['MARKER']",
        "!!map {? !!python/object/apply:os.mkdir ['MARKER'] : 1}",
    ],
)
def test_a_config_that_asks_for_python_objects_is_refused(tmp_path, marker, value):
    text = value.replace("MARKER", str(marker))
    path = tmp_path / "a.yaml"
    path.write_text(f"structures: [molecule:H2O]\nreference: {{kind: xtb}}\nsampling: {text}\n")
    for arguments in (
        (path, []),
        (None, ["structures=[molecule:H2O]", "reference.kind=xtb", f"sampling={text}"]),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(*arguments)

        assert is_sentence(caught.value)


@pytest.mark.parametrize(
    "basis",
    [
        "H    S\n    __import__('os').mkdir('MARKER') 1.0\n",
        "H    S\n    1.0 1.0\n",
        "./def2-svp.nw",
        "/tmp/def2-svp",
        "def2-SVP\n",
    ],
)
def test_a_basis_set_is_a_name_and_no_text_that_would_be_evaluated(basis):
    with pytest.raises(ConfigError, match="must be the name of a basis set"):
        config_from_dict({**CONFIG, "reference": {"kind": "pyscf", "basis": basis}})


@pytest.mark.parametrize(
    "basis", ["def2-SVP", "6-31++G(d,p)", "6-311g**", "cc-pV(T+d)Z", "aug-cc-pVDZ@3s2p", "Sapporo DZP 2012"]
)
def test_names_of_basis_sets_are_taken(basis):
    config = config_from_dict({**CONFIG, "reference": {"kind": "pyscf", "basis": basis}})

    assert config.reference.basis == basis


@pytest.mark.slow
def test_nothing_in_the_current_folder_is_executed_when_a_method_is_probed(tmp_path, marker, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = f"import os\nos.mkdir({str(marker)!r})\n"
    for name in (".pyscf_conf.py", "ase.py", "json.py", "numpy.py", "pyscf.py", "sitecustomize.py"):
        Path(name).write_text(bomb)

    assert probe_reference({"kind": "pyscf", "basis": "STO-3G"}, [molecule("H2")]) == "PBE/STO-3G"


@pytest.mark.slow
def test_a_file_with_the_name_of_a_basis_set_is_neither_evaluated_nor_taken_for_it(
    tmp_path, marker, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("STO-3G").write_text(f"H    S\n  __import__('os').mkdir({str(marker)!r}) 1.0\n")
    section = {"kind": "pyscf", "basis": "STO-3G"}

    assert probe_reference(section, [molecule("H2")]) == "PBE/STO-3G"
    with pytest.raises(ReferenceSetupError, match="of which there is a file in the current folder"):
        make_reference(section).check(molecule("H2"))


@pytest.mark.slow
def test_pyscf_evaluates_no_number(tmp_path, marker):
    program = (
        "from ase.build import molecule; from fff.reference import make_reference\n"
        "make_reference({'kind': 'pyscf', 'basis': 'STO-3G'}).check(molecule('H2'))\n"
        "from pyscf import gto\n"
        f"gto.basis.load('H    S\\n  __import__(\"os\").mkdir(\"{marker}\") 1.0\\n', 'H')\n"
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )

    assert "Failed to parse" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"structures": ["redis://me:hunter2@host/x"]},
        {"labels": ["postgresql://me:hunter2@host/x"]},
        {"reference": {"kind": "ase", "calculator": "emt", "parameters": {"api_key": "hunter2"}}},
        {"reference": {"kind": "ase", "calculator": "emt", "parameters": {"a": [{"PASSWORD": "hunter2"}]}}},
    ],
)
def test_a_config_with_a_password_is_refused_without_repeating_it(change):
    with pytest.raises(ConfigError, match="holds a password or token") as caught:
        config_from_dict({**CONFIG, **change})

    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.context}"


# --- what is written down ---------------------------------------------------------------------------------

ADDRESS = "licence server redis://me:hunter2@host refused the token=hunter2"


def test_a_failure_is_told_without_passwords(tmp_path):
    call = Call("calculate-1", str(tmp_path))

    values = _failure(call, RuntimeError(ADDRESS))

    assert values["message"] == "licence server redis://***@host refused the token=***"
    assert "hunter2" not in (tmp_path / values["trace"]).read_text()


def test_the_log_is_written_without_passwords(tmp_path):
    run = RunDirectory(tmp_path)
    with _logging_to(run):
        logging.getLogger("fff.campaigns").warning("It ended: %s", ADDRESS)
        try:
            raise OSError(ADDRESS)
        except OSError:
            logging.getLogger("fff.campaigns").exception("It ended.")

    text = run.log.read_text()
    assert "redis://***@host" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("name", ["run.log", "events.jsonl", "labels.db", "status.json"])
def test_a_run_directory_with_a_file_that_is_a_link_is_refused(tmp_path, victim, name):
    run = tmp_path / "run"
    run.mkdir()
    (run / "events.jsonl").write_text("{}\n")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim / "thesis.tex")
    loaded = load_config(None, ["structures=[molecule:H2O]", "reference.kind=xtb", f"run_dir={run}"])

    with pytest.raises(RunDirectoryError, match="is a symbolic link"), open_campaign(loaded):
        pass

    assert not (run / "lock").exists()
