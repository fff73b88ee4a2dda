from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fff.base.errors import ConfigError, InputFileError
from fff.config import ActiveLearningConfig, config_from_dict, config_to_yaml, load_config, unit_of
from fff.config.keys import kinds_of, leaves, path_keys

LEAST = "structures: [molecule:H2O]\nreference: {kind: xtb}\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "some.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_structures_and_reference_are_all_that_must_be_given(write):
    config = load_config(write(LEAST)).config
    assert config.committee.size == 4
    assert config.reference.kind == "xtb"
    assert config.site.kind == "laptop"


def test_the_name_is_that_of_the_file_unless_given(write):
    assert load_config(write(LEAST, "water-01.yaml")).config.name == "water-01"
    assert load_config(write(LEAST + "name: other\n")).config.name == "other"
    assert config_from_dict({"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}}).name == "campaign"


def test_every_value_knows_where_it_came_from(write):
    path = write(LEAST + "seed: 3\nsampling: {n_steps: 100}\n")
    loaded = load_config(path, ["training.max_epochs=7"], flags={"committee.size": ("--committee-size", 3)})
    sources = loaded.sources
    assert sources["seed"] == sources["sampling.n_steps"] == sources["reference.kind"] == str(path)
    assert sources["training.max_epochs"] == "-o"
    assert sources["committee.size"] == "--committee-size"
    assert sources["audit.fraction"] == sources["site.kind"] == "default"
    assert set(sources) == set(_flat(loaded.config.model_dump(mode="json")))


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and prefix + key != "reference.parameters":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_paths_count_from_the_config_and_on_the_command_line_from_the_current_folder(write, tmp_path):
    path = write("structures: [a.xyz@0:3, molecule:H2O, ../b]\nreference: {kind: xtb}\n")
    here = tmp_path / "elsewhere"
    loaded = load_config(path, ["labels=[c.xyz]", "run_dir=out"], base_dir=here)
    config = loaded.config
    assert config.structures == [f"{tmp_path}/a.xyz@0:3", "molecule:H2O", f"{tmp_path.parent}/b"]
    assert config.labels == [str(here / "c.xyz")]
    assert loaded.run_dir == here / "out"


def test_the_run_directory_is_in_runs_unless_given(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(write(LEAST)).run_dir == tmp_path / "runs" / "some"


def test_the_keys_that_hold_paths_are_these():
    assert path_keys() == {
        "structures": True,
        "labels": True,
        "run_dir": False,
        "model.start": False,
        "test.labels": False,
    }


def test_numbers_and_booleans_are_read_as_yaml_1_2_reads_them(write):
    config = load_config(
        write(LEAST + "training: {learning_rate: 1e-3}\nname: no\ntest: {random_baseline: true}\n")
    ).config
    assert config.training.learning_rate == pytest.approx(1e-3)
    assert config.name == "no"
    assert config.test.random_baseline is True


def test_one_temperature_stands_for_a_list_of_one(write):
    assert load_config(write(LEAST), ["sampling.temperature_K=350"]).config.sampling.temperature_K == [350.0]


def test_an_empty_section_means_its_defaults(write):
    config = load_config(write(LEAST + "sampling:\nsite:\n")).config
    assert config.sampling.n_steps == 200
    assert config.site.kind == "laptop"


def test_changing_the_kind_drops_what_the_new_kind_does_not_have(write):
    path = write(
        "structures: [molecule:H2O]\nreference: {kind: pyscf, basis: def2-TZVP, charge: 2, time_limit_s: 9}\n"
    )
    loaded = load_config(path, flags={"reference.kind": ("--reference", "xtb")})
    assert loaded.config.reference.model_dump(exclude_defaults=True) == {
        "kind": "xtb",
        "charge": 2,
        "time_limit_s": 9.0,
    }
    assert loaded.sources["reference.kind"] == "--reference"
    assert loaded.sources["reference.charge"] == str(path)


def test_keys_below_a_plain_table_can_be_set_one_by_one(write):
    path = write("structures: [bulk:Cu]\nreference: {kind: ase, calculator: lj, parameters: {rc: 5.0}}\n")
    loaded = load_config(path, ["reference.parameters.sigma=2.5"])
    assert loaded.config.reference.parameters == {"rc": 5.0, "sigma": 2.5}
    assert loaded.sources["reference.parameters"] == f"{path}, -o"


def test_null_means_as_many_as_retraining_needs():
    values = {"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}, "training": {"retrain_every": 5}}
    config = config_from_dict(values)
    assert (config.batch_size, config.max_ahead) == (5, 10)
    config = config_from_dict({**values, "selection": {"batch_size": 3}, "calculation": {"max_ahead": 7}})
    assert (config.batch_size, config.max_ahead) == (3, 7)


def test_a_config_never_changes():
    config = config_from_dict({"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize("name", ["no", "1e-5", "007", "null", "a: b", "# x", "it's", "é", "a b", "x" * 100])
@pytest.mark.parametrize("number", [1e-05, 0.1, 1 / 3, 1.0])
def test_a_written_config_reads_back_to_the_same(tmp_path, name, number):
    config = config_from_dict(
        {
            "name": name,
            "seed": 2**63 - 1,
            "structures": ["molecule:H2O", "/a/b c@:3"],
            "reference": {
                "kind": "ase",
                "calculator": name,
                "parameters": {name: [number, None, True], "x": number / 1e30},
            },
            "training": {"learning_rate": number},
            "sampling": {"temperature_K": [number, 1e5 * number]},
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(config_to_yaml(config))
    assert load_config(path).config == config


def test_every_key_has_a_description_and_numbers_of_a_quantity_their_unit_in_the_name():
    for key, field in leaves():
        assert field.description, key
        assert field.description.endswith("."), key
    units = {key: unit_of(key) for key, _ in leaves() if unit_of(key)}
    assert units["sampling.friction_per_fs"] == "1/fs"
    assert units["audit.energy_tolerance_eV_per_atom"] == "eV per atom"
    assert units["reference.max_memory_MB"] == "MB"
    assert not any(unit_of(key) for key in ("training.start_from", "model.n_layers", "sampling.n_steps"))


def test_the_json_schema_carries_descriptions_units_and_bounds():
    schema = ActiveLearningConfig.model_json_schema()
    timestep = schema["$defs"]["SamplingSection"]["properties"]["timestep_fs"]
    assert timestep["unit"] == "fs"
    assert timestep["exclusiveMinimum"] == 0
    assert timestep["maximum"] == 10
    assert timestep["description"]
    assert schema["required"] == ["reference"]


def test_the_kinds_are_these():
    fields = ActiveLearningConfig.model_fields
    assert list(kinds_of(fields["reference"])) == ["xtb", "pyscf", "ase", "xtb-cli"]
    assert list(kinds_of(fields["site"])) == ["laptop", "workstation", "slurm", "pbs"]


def test_a_workstation_numbers_its_devices_unless_they_are_named():
    def devices(**site):
        values = {"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}}
        return config_from_dict({**values, "site": {"kind": "workstation", **site}}).site.devices

    assert devices() == []
    assert devices(n_gpus=2) == ["0", "1"]
    assert devices(accelerators=["1", 3]) == ["1", "3"]


def test_a_key_given_twice_is_refused_with_its_line(write):
    with pytest.raises(ConfigError, match=r"line 3: the key `seed` is there twice"):
        load_config(write("structures: []\nseed: 1\nseed: 2\n"))


def test_a_flag_and_an_override_of_the_same_key_are_refused(write):
    with pytest.raises(ConfigError, match="both set `seed`"):
        load_config(write(LEAST), ["seed=1"], flags={"seed": ("--seed", 2)})


def test_all_problems_are_reported_and_unknown_keys_come_first(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write(LEAST + "committee: {size: 1}\nsede: 3\n"))
    assert "`sede`" in caught.value.message
    assert [message for message, _ in caught.value.context["others"]] == [
        "`committee.size` is 1; it must be at least 2 and at most 32."
    ]


def test_errors_survive_pickling(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write(LEAST), ["committee.size=1"])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.message, copy.hint, copy.context) == (
        caught.value.message,
        caught.value.hint,
        caught.value.context,
    )


def test_a_binary_file_is_no_config(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputFileError, match="not a text file"):
        load_config(path)
