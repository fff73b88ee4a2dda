from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from fff.config import load_config
from fff.config.keys import leaves
from fff.config.page import config_page
from fff.config.presets import presets
from fff.config.schema import config_schema, describe_config
from fff.config.site import PbsNodes, SlurmNodes

ROOT = Path(__file__).resolve().parents[3]
LEAST = {"structures": ["molecule:H2O"], "reference": {"kind": "xtb"}}


@pytest.fixture(scope="module")
def schema():
    found = config_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def changed(**sections):
    return {**LEAST, **sections}


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_every_preset_validates_as_it_stands_and_with_all_its_defaults(preset, schema):
    schema.validate(YAML(typ="safe", pure=True).load(preset.path))
    schema.validate(load_config(preset.path).config.model_dump(mode="json"))


@pytest.mark.parametrize(
    "sections",
    [
        {"site": {}},
        {"site": None},
        {"site": {"n_workers": 3}},
        {"site": {"kind": "workstation", "accelerators": [0, "GPU-1"]}},
        {"sampling": None},
        {"sampling": {"temperature_K": 300}},
        {"sampling": {"temperature_K": [300, 400.0]}},
        {"calculation": {"max_ahead": None}},
    ],
)
def test_what_the_loader_takes_validates(sections, schema, tmp_path):
    schema.validate(changed(**sections))
    path = tmp_path / "a.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(changed(**sections), file)
    load_config(path)


@pytest.mark.parametrize(
    "wrong",
    [
        changed(samplin={}),
        changed(sampling={"n_step": 3}),
        changed(sampling={"n_steps": 0}),
        changed(sampling={"n_steps": "300"}),
        changed(sampling={"temperature_K": -1}),
        changed(sampling={"temperature_K": []}),
        changed(sampling={"thermostat": "nose"}),
        changed(reference={}),
        changed(reference={"kind": "xtb", "functional": "PBE"}),
        changed(reference={"kind": "vasp"}),
        changed(reference={"kind": "ase"}),
        changed(site={"n_gpus": 1}),
        {"structures": ["molecule:H2O"]},
    ],
)
def test_what_is_wrong_does_not_validate(wrong, schema):
    assert not schema.is_valid(wrong)


def test_the_schema_tells_meaning_unit_bounds_default_and_kinds():
    schema = config_schema()
    step = schema["$defs"]["SamplingSection"]["properties"]["timestep_fs"]
    assert step["description"].endswith("Unit: fs. Default: 0.5.")
    assert (step["unit"], step["exclusiveMinimum"], step["maximum"], step["default"]) == ("fs", 0, 10, 0.5)
    assert set(schema["properties"]["reference"]["discriminator"]["mapping"]) == {
        "xtb",
        "xtb-cli",
        "pyscf",
        "ase",
    }
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))


def test_every_key_is_described_once():
    described = [(entry.key, entry.kind) for entry in describe_config()]
    assert len(described) == len(set(described))
    named = "site.nodes.NAME."
    assert {key for key, _ in described if not key.startswith(named)} == {key for key, _ in leaves()}
    inner = {(key.removeprefix(named), kind) for key, kind in described if key.startswith(named)}
    for kind, nodes in (("slurm", SlurmNodes), ("pbs", PbsNodes)):
        assert {key for key, of in inner if of == kind} == set(nodes.model_fields)
    assert all(entry.meaning.endswith(".") and entry.values for entry in describe_config())


def test_the_page_in_docs_is_the_one_that_the_code_writes():
    assert (ROOT / "docs" / "configuration.md").read_text() == config_page(), "run `make docs`"
