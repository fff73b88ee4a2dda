"""Configs that are wrong, and what the answer must name: one table, tried by `test_configs.py`.

`FILES` in a text stands for the folder that `make_files` fills.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from fff.config.keys import kinds_of, leaves, locate

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
LEAST = "structures: [molecule:H2O]\nreference: {kind: xtb}\n"


class Wrong(NamedTuple):
    """A config that is wrong.

    Attributes:
        text: The file's content; None for none.
        names: What the answer must name.
        arguments: What stands on the command line besides.
    """

    text: str | bytes | None
    names: tuple[str, ...]
    arguments: tuple[str, ...] = ()


def _wrong(text: str | bytes, *names: str) -> Wrong:
    return Wrong(text, names)


def _also(text: str, *names: str) -> Wrong:
    return Wrong(LEAST + text + "\n", names)


def _given(names: str | tuple[str, ...], *arguments: str) -> Wrong:
    return Wrong(LEAST, (names,) if isinstance(names, str) else names, arguments)


def _of_method(section: str, *names: str) -> Wrong:
    return Wrong(f"structures: [molecule:H2O]\nreference: {section}\n", names)


# --- every key ------------------------------------------------------------------------------------------


def _kind_with(section: str, key: str) -> str:
    kinds = kinds_of(locate([section]).field)
    return next(kind for kind, fields in kinds.items() if key in fields.model_fields)


def _base_for(key: str) -> str:
    """Return a config to which the key belongs."""
    section, _, name = key.partition(".")
    if section == "reference":
        kind = _kind_with(section, name)
        calculator = ", calculator: emt" if kind == "ase" else ""
        return f"structures: [molecule:H2O]\nreference: {{kind: {kind}{calculator}}}\n"
    return LEAST + (f"site: {{kind: {_kind_with(section, name)}}}\n" if section == "site" and name else "")


KEYS = list(dict.fromkeys(key for key, _ in leaves()))
NUMBERS = [
    key
    for key, field in leaves()
    if any(word in str(field.annotation) for word in ("int", "float")) and key != "schema_version"
]


def _every_key() -> dict[str, Wrong]:
    cases = {}
    for key in KEYS:
        # A mapping fits nowhere, but that the calculator must know the names of its parameters.
        value = "[[1], {a: 2}]" if key == "reference.parameters" else "{a: {b: 1}}"
        cases[f"{key} is a mapping"] = Wrong(_base_for(key), (f"`{key}",), ("-o", f"{key}={value}"))
    wrong = itertools.cycle([("with a unit", "300 K"), ("NaN", ".nan"), ("minus infinity", "-.inf")])
    for key, (name, value) in zip(dict.fromkeys(NUMBERS), wrong, strict=False):
        cases[f"{key} is {name}"] = Wrong(_base_for(key), (f"`{key}",), ("-o", f"{key}={value}"))
    return cases


# --- every preset ---------------------------------------------------------------------------------------


def _every_preset() -> dict[str, Wrong]:
    cases = {}
    for preset in PRESETS:
        text = preset.read_text(encoding="utf-8")
        for name, changed, names in (
            ("without reference", text.replace("\nreference:", "\nrefrence:"), ("`refrence`", "`reference`")),
            ("with a key misspelt", text.replace("structures:", "strucures:"), ("`strucures`",)),
            ("with a section twice", text + "reference:\n  kind: xtb\n", ("`reference`", "twice")),
            ("indented by tabs", text.replace("\n  ", "\n\t"), ("line", "cannot start any token")),
            ("with a NUL byte", text + "\0", ("some.yaml", "special characters")),
            ("cut within a quote", text + 'seed: "', ("some.yaml", "line")),
        ):
            cases[f"{preset.stem} {name}"] = _wrong(changed, *names)
    return cases


# --- YAML -----------------------------------------------------------------------------------------------

_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

YAML = {
    "an empty file": _wrong("", "some.yaml is empty"),
    "only comments": _wrong("# nothing\n\n", "some.yaml is empty"),
    "null": _wrong("null\n", "some.yaml is empty"),
    "a list": _wrong("- a\n- b\n", "some.yaml", "keys with values"),
    "a number": _wrong("42\n", "some.yaml", "keys with values"),
    "a text": _wrong("to be done\n", "some.yaml", "keys with values"),
    "an empty mapping": _wrong("{}\n", "`reference` is missing"),
    "random bytes": _wrong(bytes(range(128, 256)), "some.yaml", "UTF-8"),
    "UTF-16": _wrong(LEAST.encode("utf-16"), "some.yaml", "UTF-8"),
    "Latin-1": _wrong((LEAST + "name: Müller\n").encode("latin-1"), "some.yaml", "UTF-8"),
    "a NUL byte": _wrong(LEAST.encode() + b"seed: 1\0\n", "some.yaml", "special characters"),
    "an escape of the terminal": _wrong(LEAST.encode() + b"\x1b[31m: 1\n", "some.yaml", "special characters"),
    "half an image": _wrong(b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "some.yaml"),
    "two documents": _wrong("---\n" + LEAST + "---\n" + LEAST, "some.yaml", "another document"),
    "an open list": _also("seed: [", "some.yaml, line", "no YAML"),
    "an open mapping": _also("seed: {", "some.yaml, line", "no YAML"),
    "an open quote": _also("'seed: 1", "some.yaml, line", "no YAML"),
    "two colons": _also("seed: 1 : 2", "some.yaml, line 3", "no YAML"),
    "an at sign": _also("seed: @1", "some.yaml, line 3", "no YAML"),
    "a tab in front": _also("sampling:\n\tn_steps: 5", "some.yaml, line 4", "no YAML"),
    "an indented key": _also("  seed: 1", "some.yaml", "no YAML"),
    "a key twice": _also("seed: 1\nseed: 2", "line 4", "`seed`", "twice"),
    "a key twice in a section": _also("sampling: {n_steps: 50, n_steps: 60}", "`n_steps`", "twice"),
    "a list as key": _also("? [a, b]\n: c", "key that is no text"),
    "a mapping as key": _also("? {a: b}\n: c", "some.yaml", "no YAML"),
    "a number as key": _also("1: 2", "`1` is a key that is no text"),
    "true as key": _also("true: 2", "`True` is a key that is no text"),
    "null as key": _also("~: 2", "key that is no text"),
    "an alias of nothing": _also("seed: *seed", "undefined alias"),
    "a list that contains itself": _also("labels: &x [*x]", "`labels[0]` contains itself"),
    "a mapping that contains itself": _also("stop: &x {a: *x}", "`stop.a` contains itself"),
    "aliases of aliases": _also(_LAUGHS, "more than 100000 values"),
    "brackets without end": _wrong("[" * 3_000, "nested too deeply"),
    "sixty levels": _also("queue: " + "{a: " * 60 + "1" + "}" * 60, "`queue`", "50 levels"),
    "a merge of nothing": _also("<<: 5", "expected a mapping"),
    "another version of YAML": _also("seed: 1\n%YAML 1.1\n---\nseed: no", "some.yaml"),
    "an object of Python": _also("seed: !!python/object:os.system ls", "could not determine a constructor"),
    "a call of Python": _also("seed: !!python/object/apply:os.system [ls]", "could not determine"),
    "a tag of nobody": _also("seed: !mine 1", "could not determine a constructor"),
    "a boolean that is none": _also("seed: !!bool maybe", "some.yaml", "maybe"),
    "an integer that is none": _also("seed: !!int x", "some.yaml", "no YAML"),
    "a float that is none": _also("seed: !!float x", "some.yaml", "no YAML"),
    "a date that is none": _also("seed: !!timestamp x", "some.yaml", "no YAML"),
    "binary that is none": _also("seed: !!binary x", "some.yaml", "no YAML"),
    "binary": _also("name: !!binary gIGC", "`name`"),
    "a set": _also("structures: !!set {a, b}", "`structures`"),
    "a date": _also("name: 2026-01-01", "`name` is 2026-01-01; it must be text"),
    "a file of 5 MB": _wrong(b"#" * 5_000_000, "some.yaml is larger than 4 MB"),
    "half a character": _also('name: "\\uD800"', "`name`"),
    "a number of 5000 digits": _also("seed: " + "9" * 5000, "no YAML"),
    "a number of 5000 hexadecimal digits": _also("seed: 0x" + "f" * 5000, "`seed` is a number of more than"),
    "a charge of 5000 digits": _of_method("{kind: xtb, charge: 0x" + "f" * 5000 + "}", "`reference.charge`"),
    "a time step of 400 digits": _also(
        "sampling: {timestep_fs: " + "9" * 400 + "}", "`sampling.timestep_fs`"
    ),
    "infinity": _also("seed: 1e999", "`seed` is Infinity"),
}

# --- keys -----------------------------------------------------------------------------------------------

KEYS_AND_VALUES = {
    "an unknown key": _also("colour: red", "Unknown key `colour`"),
    "a section misspelt": _also("sampilng: {n_steps: 5}", "Unknown key `sampilng`", "`sampling`"),
    "a key in the wrong place": _also("n_steps: 5", "Unknown key `n_steps`", "`sampling.n_steps`"),
    "a key with a dot": _also("sampling.n_steps: 5", "Unknown key `sampling.n_steps`"),
    "a key of another kind": _of_method("{kind: xtb, basis: sto-3g}", "`reference.basis`", "`pyscf`"),
    "a section that is a number": _also("sampling: 5", "`sampling` is 5", "section"),
    "a section that is a list": _also("stop: [max_labels]", "`stop`", "section"),
    "no kind of reference": _wrong(
        "structures: [molecule:H2O]\nreference: {}\n", "`reference.kind` is missing"
    ),
    "an unknown kind of reference": _of_method("{kind: orca}", '`reference.kind` is "orca"'),
    "a reference that is a text": _of_method("xtb", '`reference` is "xtb"', "{kind: xtb}"),
    "a reference that is a list": _of_method("[xtb]", "`reference`"),
    "an unknown kind of site": _also("site: {kind: condor}", '`site.kind` is "condor"'),
    "a later version": _also("schema_version: 2", "`schema_version` is 2"),
    "another kind of campaign": _also("kind: vmc", "`kind`", "active-learning"),
    "a name with a slash": _also("name: a/b", '`name` is "a/b"'),
    "a name that is a dot": _also("name: ..", "`name`"),
    "a name of 101 letters": _also("name: " + "x" * 101, "`name`"),
    "a name of 400 bytes": _also("name: " + "🙂" * 100, "`name` takes 400 bytes"),
    "NO as a boolean": _also("test: {random_baseline: NO}", "`test.random_baseline`", "Write false"),
    "a committee of one": _also("committee: {size: 1}", "`committee.size` is 1", "at least 2"),
    "a committee of thousands": _also("committee: {size: 1000}", "`committee.size`", "at most 32"),
    "a hundred million labels": _also("stop: {max_labels: 100000000}", "`stop.max_labels`"),
    "a million first labels": _also(
        "start: {n_labels: 1000000}\nstop: {max_labels: 1000000}", "`start.n_labels`", "at most 100000"
    ),
    "a million trajectories": _also("sampling: {n_trajectories: 1000000}", "`sampling.n_trajectories`"),
    "a million workers": _also("site: {kind: laptop, n_workers: 1000000}", "`site.n_workers`"),
    "temperatures without end": _also(
        "sampling: {temperature_K: [" + "300, " * 101 + "300]}", "`sampling.temperature_K`", "100"
    ),
    "no temperature": _also("sampling: {temperature_K: []}", "`sampling.temperature_K"),
    "a temperature below zero": _also("sampling: {temperature_K: [300, -1]}", "`sampling.temperature_K[1]`"),
    "a time step of picoseconds": _also("sampling: {timestep_fs: 1 ps}", "`sampling.timestep_fs`", "fs"),
    "a password": _also("labels: ['postgres://me:secret@host/db']", "`labels[0]`", "password"),
    # Contradictions.
    "nothing to start from": _wrong("reference: {kind: xtb}\n", "`structures`", "`model.start`"),
    "more first labels than labels": _also("stop: {max_labels: 8}", "`start.n_labels` is 16"),
    "rounds longer than the campaign": _also("training: {retrain_every: 500}", "`training.retrain_every`"),
    "rounds that cannot be reached": _also("calculation: {max_ahead: 3}", "`calculation.max_ahead`"),
    "steps in the wrong order": _also("sampling: {min_steps: 500}", "`sampling.min_steps` is 500"),
    "more at once than altogether": _also("sampling: {n_parallel: 99}", "`sampling.n_parallel` is 99"),
    "a pool smaller than a chunk": _also("selection: {pool_size: 5}", "`selection.pool_size` is 5"),
    "a threshold of the wrong kind": _also(
        "selection: {rule: threshold, deviation: energy}", "`selection.deviation`"
    ),
    "a loss of nothing": _also("training: {energy_weight: 0, force_weight: 0}", "`training.force_weight`"),
    "a least rate above the first": _also(
        "training: {min_learning_rate: 0.1}", "`training.min_learning_rate` is 0.1"
    ),
    "all of no test set": _also("test: {n_frames: null}", "`test.n_frames`", "`test.labels`"),
    "a comparison on no test set": _also(
        "test: {n_frames: 0, random_baseline: true}", "`test.random_baseline`"
    ),
    "accelerators and another number": _also(
        "site: {kind: workstation, n_gpus: 3, accelerators: [0, 1]}", "`site.n_gpus` is 3"
    ),
    "an accelerator twice": _also("site: {kind: workstation, accelerators: [0, 0]}", "`site.accelerators`"),
    "pressure without a cell": _also("sampling: {thermostat: npt}", "`sampling.thermostat`", "periodic"),
    "charge and multiplicity": _of_method("{kind: xtb, charge: 1}", "`reference.multiplicity`"),
    "no electrons": _of_method("{kind: xtb, charge: 11}", "`reference.charge` is 11"),
    "more unpaired electrons than electrons": _of_method("{kind: xtb, multiplicity: 99}", "`reference.multi"),
    "a crystal for isolated structures": _wrong(
        "structures: ['bulk:Cu']\nreference: {kind: pyscf}\n", "`reference.kind` is pyscf", "periodic"
    ),
}

# --- methods --------------------------------------------------------------------------------------------


def _ase(calculator: str, parameters: str = "{}") -> str:
    return f"{{kind: ase, calculator: {calculator}, parameters: {parameters}}}"


def _command(command: str) -> str:
    return _ase("nwchem", f'{{command: "{command}"}}')


_SHELL = ("reference.parameters.command", "cannot be run")

METHODS = {
    "xtb is not installed": _of_method(
        "{kind: xtb-cli}", "executable xtb was not found", "reference.command"
    ),
    "no such executable": _of_method("{kind: xtb-cli, command: [/no/such]}", "/no/such was not found"),
    "a folder as executable": _of_method("{kind: xtb-cli, command: [FILES]}", "was not found"),
    "a file that nobody may run": _of_method("{kind: xtb-cli, command: [FILES/empty.xyz]}", "was not found"),
    "a shell line as executable": _of_method("{kind: xtb-cli, command: ['xtb; ls']}", "was not found"),
    "a NUL byte in a command": _of_method('{kind: xtb-cli, command: ["a\\0b"]}', "was not found"),
    "a command that is a text": _of_method("{kind: xtb-cli, command: xtb}", "`reference.command`", "list"),
    "an empty command": _of_method("{kind: xtb-cli, command: []}", "`reference.command`"),
    "an empty word": _of_method("{kind: xtb-cli, command: ['']}", "`reference.command[0]`"),
    "an unknown solvent": _of_method("{kind: xtb-cli, solvent: beer}", "`reference.solvent`"),
    "nwchem is not installed": _of_method(_ase("nwchem"), "executable nwchem was not found"),
    "no such command": _of_method(_command("/no/such PREFIX.nwi > PREFIX.nwo"), "/no/such was not found"),
    "two commands": _of_method(_command("nwchem PREFIX.nwi > PREFIX.nwo; rm -rf x"), *_SHELL),
    "a command in brackets": _of_method(_command("$(touch hacked)"), *_SHELL),
    "a command in backticks": _of_method(_command("`touch hacked`"), *_SHELL),
    "a pipeline": _of_method(_command("nwchem | tee x"), *_SHELL),
    "one command after the other": _of_method(_command("cd /tmp && nwchem"), *_SHELL),
    "a command in the background": _of_method(_command("nwchem &"), *_SHELL),
    "a command that is empty": _of_method(_command(""), "names no executable"),
    "a command without a file": _of_method(_command("nwchem PREFIX.nwi >"), "reference.parameters.command"),
    "a folder of its own": _of_method(_ase("nwchem", "{directory: /tmp}"), "reference.parameters.directory"),
    "an unknown calculator": _of_method(_ase("emmt"), "emmt", "Did you mean"),
    "a class as calculator": _of_method(_ase("os.system"), "os.system"),
    "a calculator in capitals": _of_method(_ase("EMT"), "EMT"),
    "an unknown parameter": _of_method(_ase("emt", "{asap_cutof: 1}"), "asap_cutof", "asap_cutoff"),
    "a calculator without its library": _of_method(_ase("psi4"), "psi4", "cannot be imported"),
    "a calculator without its settings": _of_method(_ase("kim"), "kim", "parameters do not fit"),
    "a calculator that ASE does not find": _of_method(_ase("orca"), "orca"),
    "an element that the method lacks": _wrong(
        "structures: [FILES/calcium.xyz]\nreference: {kind: ase, calculator: emt}\n", "emt", "Ca"
    ),
    "an element beyond the method": _wrong(
        "structures: [FILES/uranium.xyz]\nreference: {kind: xtb}\n", "holds U", "GFN2-xTB"
    ),
    "a parameter that is infinite": _of_method(
        _ase("lj", "{epsilon: .inf}"), "`reference.parameters.epsilon`", "finite"
    ),
    "a parameter that is NaN": _of_method(_ase("lj", "{a: [1, .nan]}"), "`reference.parameters.a[1]`"),
    "a parameter that is binary": _of_method(_ase("lj", "{a: !!binary gIGC}"), "`reference.parameters.a`"),
    "a parameter that is a date": _of_method(_ase("lj", "{a: 2026-01-01}"), "`reference.parameters.a`"),
    "a parameter that is a set": _of_method(_ase("lj", "{a: !!set {b}}"), "`reference.parameters.a`"),
    "a parameter that is half a character": _of_method(
        _ase("lj", '{a: "\\uD800"}'), "`reference.parameters.a"
    ),
    "a parameter whose name is a number": _of_method(_ase("lj", "{1: 2}"), "`reference.parameters.1`"),
    "parameters without end": _of_method(
        _ase("lj", "{a: " * 60 + "1" + "}" * 60), "`reference`", "50 levels"
    ),
}

# --- files ----------------------------------------------------------------------------------------------


def _structures(source: str, *names: str) -> Wrong:
    return Wrong(f"structures: [{source}]\nreference: {{kind: xtb}}\n", ("`structures", *names))


def _file(name: str, *names: str) -> Wrong:
    return _structures(f"FILES/{name}", Path(name.partition("@")[0]).name, *names)


def _labels(name: str, *names: str) -> Wrong:
    return Wrong(f"{LEAST}labels: [FILES/{name}]\n", ("`labels", *names))


def _test(name: str, *names: str) -> Wrong:
    return Wrong(f"{LEAST}test: {{labels: FILES/{name}}}\n", ("`test.labels", *names))


FILES = {
    "no such structure": _file("lables.xyz", "labels.xyz"),
    "an empty structure file": _file("empty.xyz", "is empty"),
    "a structure file that was cut": _file("cut.xyz", "cannot be read"),
    "a structure file of bytes": _file("bytes.xyz", "cannot be read"),
    "a structure file of zeros": _file("zeros.xyz", "cannot be read"),
    "a structure file of prose": _file("prose.xyz", "cannot be read"),
    "a structure of no atoms": _file("none.xyz", "no atoms"),
    "a structure of fewer than no atoms": _file("negative.xyz", "cannot be read"),
    "a structure of a billion atoms": _file("billion.xyz", "more numbers than it holds"),
    "a structure of a billion columns": _file("columns.extxyz", "more numbers than it holds"),
    "a structure at NaN": _file("nan.xyz", "finite"),
    "a structure at infinity": _file("inf.xyz", "finite"),
    "a structure of half a cell": _file("cell.extxyz", "cannot be read"),
    "a structure of dummies": _file("dummy.xyz", "no element (X)"),
    "a structure of nothing known": _file("element.xyz", "Qq", "no element"),
    "atoms on top of each other": _file("clash.xyz", "0.10 Å"),
    "a crystal that was cut": _file("cut.cif"),
    "half a POSCAR": _file("POSCAR", "cannot be read"),
    "half a trajectory": _file("cut.traj", "cannot be read"),
    "a pickle": _file("evil.pckl", "no type that ASE reads"),
    "a database that is none": _file("none.db", "cannot be read"),
    "a database that was cut": _file("cut.db"),
    "brackets as JSON": _file("brackets.json", "cannot be read"),
    "an empty object as JSON": _file("object.json", "no type that ASE reads"),
    "an empty folder": _structures("FILES/nothing", "nothing", "no file with a structure"),
    "a folder with a damaged file": _structures("FILES/damaged", "damaged", "cannot be read"),
    "a pipe": _structures("FILES/pipe.xyz", "pipe.xyz", "no regular file"),
    "a device": _structures("/dev/zero", "/dev/zero", "no regular file"),
    "a link to itself": _structures("FILES/loop.xyz", "loop.xyz", "Symlink loop"),
    "a link to nowhere": _structures("FILES/dangling.xyz", "There is no file"),
    "a frame that is not there": _file("labels.xyz@99", "the file holds 4"),
    "a range of no frames": _file("labels.xyz@3:1", "the file holds 4"),
    "every zeroth frame": _file("labels.xyz@::0", "the file holds 4"),
    "an index that is none": _file("labels.xyz@first", "There is no file"),
    "a NUL byte in a path": _structures('"a\\0b"', "cannot be used as a path"),
    "a path of 5000 letters": _structures("x" * 5000, "cannot be used as a path"),
    "nobody's home": _structures("~nobody-at-all/x.xyz", "cannot be used as a path"),
    "an address": _structures("'http://example.com/x.xyz'", "no kind `http:`"),
    "a number as path": _structures("1", "must be text"),
    "a blank path": _structures("'  '", "must not be empty"),
    "a list as path": _structures("[a]", "must be text"),
    "an unknown molecule": _structures("molecule:H2OO", "molecule:H2OO"),
    "a molecule of no name": _structures("'molecule:'", "knows no molecule"),
    "an unknown crystal": _structures("bulk:Xx", "no element"),
    "a crystal of no cells": _structures("bulk:Cu:0x1x1", "no number of cells"),
    "a crystal of a billion atoms": _structures("bulk:Cu:999x999x999", "3988011996 atoms"),
    "a cluster of no molecules": _structures("cluster:H2O:0", "no number of molecules"),
    "a cluster from many to few": _structures("cluster:H2O:9..2", "no number of molecules"),
    "half a million molecules": _structures("cluster:H2O:1..1000", "1501500 atoms"),
    "a radical": _wrong(
        "structures: [molecule:CH3]\nreference: {kind: xtb}\n", "`reference.multiplicity`", "9 electrons"
    ),
    "labels without forces": _labels("energies.xyz", "energies.xyz", "no forces"),
    "labels without energies": _labels("forces.xyz", "forces.xyz", "no energy"),
    "labels of NaN": _labels("nan-energy.xyz", "nan-energy.xyz", "not a finite number"),
    "labels of infinite forces": _labels("inf-forces.xyz", "inf-forces.xyz", "not a finite number"),
    "labels with two force components": _labels("two.xyz", "two.xyz", "shape"),
    "labels with three energies": _labels("three.xyz", "three.xyz", "no numbers"),
    "labels that were cut": _labels("cut-labels.xyz", "cut-labels.xyz", "cannot be read"),
    "a single label": _labels("one.xyz", "`labels` holds 1"),
    "no such labels": _labels("lables.xyz", "lables.xyz", "Did you mean"),
    "labels in a folder": _labels("damaged", "is a folder"),
    "labels in a pipe": _labels("pipe.xyz", "pipe.xyz", "no regular file"),
    "labels by a name": Wrong(LEAST + "labels: [molecule:H2O]\n", ("`labels`", "There is no file")),
    "a test set without forces": _test("energies.xyz", "energies.xyz", "no forces"),
    "a test set of NaN": _test("nan-energy.xyz", "nan-energy.xyz", "not a finite number"),
    "a test set that was cut": _test("cut-labels.xyz", "cannot be read"),
    "no such test set": _test("lables.xyz", "labels.xyz"),
    "a test set that is trained on": Wrong(
        LEAST + "labels: [FILES/labels.xyz]\ntest: {labels: FILES/labels.xyz}\n",
        ("`test.labels` shares 4 structures",),
    ),
    "elements that the labels lack": Wrong(
        "structures: [molecule:CH4]\nlabels: [FILES/labels.xyz]\nreference: {kind: xtb}\n",
        ("`structures` holds C", "`labels`"),
    ),
    "no such model": _also("model: {start: FILES/modle}", "`model.start`", "model"),
    "a model that is a file": _also("model: {start: FILES/labels.xyz}", "`model.start`"),
    "a model that is an empty folder": _also("model: {start: FILES/nothing}", "`model.start`"),
    "a model of no layout": _also("model: {start: FILES/model}", "`model.start`", "schema"),
    "a model that is a pipe": _also("model: {start: FILES/pipe.xyz}", "`model.start`"),
    "a run directory that is a file": _given(("is a file", "--run-dir"), "--run-dir", "FILES/labels.xyz"),
    "a run directory below a file": _given(("is a file", "--run-dir"), "--run-dir", "FILES/labels.xyz/below"),
    "a run directory that is a device": _given(("is a file",), "--run-dir", "/dev/null"),
    "a run directory in use": _given(("not empty", "nothing is ever over"), "--run-dir", "FILES"),
    "a run directory of others": _given(("not empty", "model.json"), "--run-dir", "FILES/model"),
    "a run directory that links to itself": _given("run_dir", "--run-dir", "FILES/loop.xyz"),
    "a run directory of 300 letters": _given("run_dir", "--run-dir", "x" * 300),
    "a run directory that is no text": _given("run_dir", "--run-dir", "\udcff"),
}

# --- the command line -----------------------------------------------------------------------------------

OVERRIDES = {
    f"-o {text[:30]}": _given(names, "-o", text)
    for text, names in {
        "": "`-o `",
        "=": "`-o =`",
        "=1": "`-o =1`",
        ".=1": "`-o .=1`",
        "a..b=1": "`-o a..b=1`",
        "seed": ("`-o seed`", "key=value"),
        "seed 5": ("`-o seed 5`", "key=value"),
        "seed=": "`seed` is null",
        "seed==1": "`seed`",
        "seed=1\n2": "`seed`",
        "seed=[": "-o seed=[",
        "seed=*x": "undefined alias",
        "seed=!!python/object:os.system x": "could not determine a constructor",
        "seed=!!bool maybe": "maybe",
        "seed=" + "[" * 2000: "nested too deeply",
        "seed=0x" + "f" * 5000: "`seed`",
        "seed=\udcff": "special characters",
        "\udcff=1": "Unknown key",
        "sed=1": ("`sed`", "`seed`"),
        "seed.x=1": "`seed`",
        "sampling=5": "`sampling` is 5",
        "structures.0=x": "`structures.0`",
        "structures[0]=x": "`structures[0]`",
        "reference=null": "`reference.kind` is missing",
        "reference.kind=": "`reference.kind`",
        "reference.parameters.x=1": "`reference.parameters.x`",
        "a.b.c.d.e=1": "`a.b.c.d.e`",
        "x" * 3000 + "=1": "Unknown key",
    }.items()
}

WALLTIMES = {
    f"--walltime {text[:20]!r}": _given(("--walltime",), "--walltime", text)
    for text in (
        *("", " ", "soon", "10", "-5m", "0s", "59s", "1e3s", "nan", "inf", "infs", "h", "1.5.5h", "1h30"),
        *("1h 30m", "1:2:3:4", "1-", "-1:00", "1:30pm", "0x10s", "1_000s", "½h", "²h", "3:²0"),
        *("9" * 5000 + ":00", "9" * 5000 + "d"),
    )
}

FLAGS = {
    "a seed that is a word": _given("`seed`", "--seed", "abc"),
    "a seed that is empty": _given("`seed`", "--seed", ""),
    "a seed below zero": _given("`seed` is -1", "--seed", "-1"),
    "a seed without end": _given("`seed` is Infinity", "--seed", "1e400"),
    "a seed of 5000 digits": _given("`seed`", "--seed", "9" * 5000),
    "a seed of 4000 digits": _given("`seed`", "--seed", "9" * 4000),
    "half a label": _given("`stop.max_labels` is 1.5", "--max-labels", "1.5"),
    "no label": _given("`stop.max_labels` is 0", "--max-labels", "0"),
    "no members": _given("`committee.size`", "--committee-size", "0"),
    "no reference": _given("`reference.kind`", "--reference", ""),
    "a reference without its settings": _given("`reference.calculator` is missing", "--reference", "ase"),
    "an unknown site": _given("`site.kind`", "--site", "condor"),
    "a flag and an override": _given(("`--seed`", "-o seed"), "--seed", "1", "-o", "seed=2"),
}

PLACES = {
    "no such config": ("there.yaml", "no config file there.yaml"),
    "a config that is a folder": ("FILES", "is a folder"),
    "a config that is a link to itself": ("FILES/loop.xyz", "cannot be read"),
    "a config that is a link to nowhere": ("FILES/dangling.xyz", "no config file"),
    "a config that is a device": ("/dev/null", "is empty"),
    "a config that is a flood": ("/dev/zero", "is larger than 4 MB"),
    "a config below a file": ("FILES/labels.xyz/some.yaml", "Not a directory"),
    "a config of 300 letters": ("x" * 300, "File name too long"),
    "a config whose name is no text": ("\udcff.yaml", "no config file"),
    "a config that is a structure": ("FILES/labels.xyz", "keys with values"),
}
"""Places of configs, and what the answer must name."""

CASES = {
    **_every_key(),
    **_every_preset(),
    **YAML,
    **KEYS_AND_VALUES,
    **METHODS,
    **FILES,
    **OVERRIDES,
    **WALLTIMES,
    **FLAGS,
}


def _labelled(path: Path, n: int = 4, **results: object) -> None:
    frames = []
    for i in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.01, seed=i)
        atoms.calc = SinglePointCalculator(atoms, **(results or {"energy": 0.0, "forces": np.zeros((3, 3))}))
        frames.append(atoms)
    write(path, frames)


_CONTENTS: dict[str, bytes] = {
    "empty.xyz": b"",
    "cut.xyz": b"3\n\nO 0 0 0\nH 0 0 1\n",
    "bytes.xyz": bytes(range(128, 256)),
    "zeros.xyz": b"\0" * 1000,
    "prose.xyz": b"My first molecule.\nIt is water.\n",
    "none.xyz": b"0\n\n",
    "negative.xyz": b"-3\n\nO 0 0 0\n",
    "billion.xyz": b"999999999999\n\nO 0 0 0\n",
    "columns.extxyz": b"1\nProperties=species:S:1:pos:R:9999999999\nH 0 0 0\n",
    "nan.xyz": b"2\n\nH nan 0 0\nH 0 0 1\n",
    "inf.xyz": b"2\n\nH inf 0 0\nH 0 0 1\n",
    "cell.extxyz": b'1\nLattice="1 0 0 0 1" Properties=species:S:1:pos:R:3\nH 0 0 0\n',
    "dummy.xyz": b"2\n\nX 0 0 0\nH 0 0 1\n",
    "element.xyz": b"1\n\nQq 0 0 0\n",
    "clash.xyz": b"2\n\nH 0 0 0\nH 0 0 0.1\n",
    "calcium.xyz": b"2\n\nCa 0 0 0\nO 0 0 1.8\n",
    "uranium.xyz": b"1\n\nU 0 0 0\n",
    "cut.cif": b"data_copper\n_cell_length_a 3.6\n",
    "POSCAR": b"copper\n1.0\n",
    "cut.traj": b"- of UlmASE-Trajectory" + b"\0" * 40,
    "evil.pckl": b"cos\nsystem\n(S'touch hacked'\ntR.",
    "none.db": b"no database at all",
    "cut.db": b"SQLite format 3\0" + b"\x10\0\1\1\0\x40\x20\x20" + b"\0" * 76,
    "brackets.json": b"[" * 100_000,
    "object.json": b"{}",
    "damaged/a.xyz": b"\0\1\2",
    "model/model.json": b"{}",
    "model/weights.safetensors": b"",
}


def make_files(folder: Path) -> None:
    """Write the files that the cases name."""
    for name, content in _CONTENTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "nothing").mkdir()
    (folder / "loop.xyz").symlink_to("loop.xyz")
    (folder / "dangling.xyz").symlink_to("nowhere.xyz")
    os.mkfifo(folder / "pipe.xyz")
    _labelled(folder / "labels.xyz")
    _labelled(folder / "one.xyz", n=1)
    _labelled(folder / "energies.xyz", energy=1.0)
    _labelled(folder / "forces.xyz", forces=np.zeros((3, 3)))
    _labelled(folder / "nan-energy.xyz", energy=float("nan"), forces=np.zeros((3, 3)))
    _labelled(folder / "inf-forces.xyz", energy=1.0, forces=np.full((3, 3), np.inf))
    whole = (folder / "labels.xyz").read_bytes()
    (folder / "cut-labels.xyz").write_bytes(whole[:-40])
    (folder / "two.xyz").write_bytes(whole.replace(b"forces:R:3", b"forces:R:2"))
    (folder / "three.xyz").write_bytes(whole.replace(b"energy=0.0", b'energy="1 2 3"'))
