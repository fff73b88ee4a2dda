from __future__ import annotations

import re
import shutil
import tomllib

import pytest
from ruamel.yaml import YAML

import fff.config.presets as module
from fff.base.errors import ConfigError
from fff.config import load_config
from fff.config.commenting import OFTEN_CHANGED, commented
from fff.config.keys import leaves
from fff.config.presets import find_preset, presets


def written(preset, folder):
    """Return the config of the commented file, and of the bare preset, both in `folder`."""
    path = folder / f"{preset.name}.yaml"
    for file in preset.files():
        shutil.copy(file, folder)
    shutil.copy(preset.path, path)
    bare = load_config(path).config
    path.write_text(commented(preset, file_name=path.name, schema="s.json"))
    return path, load_config(path).config, bare


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_a_commented_config_loads_to_the_same_as_its_preset(preset, tmp_path):
    path, config, bare = written(preset, tmp_path)
    assert config == bare
    lines = path.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=s.json"
    assert max(map(len, lines)) <= 120
    assert "run.py" not in path.read_text()


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_what_a_commented_config_offers_is_the_default_and_may_be_taken(preset, tmp_path):
    path, config, _ = written(preset, tmp_path)
    # As a user would: the # and one blank away from a setting, and from the name of its section.
    setting = re.compile(r"^( *)# ( *\w+:( [^#]*)?)(  #.*)?$")
    head, *rest = path.read_text().split("# Further keys")[0].split("\n\n")
    offered = [setting.sub(r"\1\2", line) for part in rest for line in part.splitlines()]
    path.write_text("\n".join([head, *offered]))
    set_now = dict(YAML(typ="safe", pure=True).load(path))
    assert {"seed", "audit", "selection", "site"} <= set(set_now)
    assert load_config(path).config == config


def test_every_key_is_in_a_commented_config(tmp_path):
    text = commented(find_preset("minimal"), file_name="a.yaml", schema="s.json")
    kinds = {"reference.kind", "site.kind"}
    of_other_kinds = {"functional", "basis", "calculator", "command", "n_gpus", "accelerators"}
    for key, _ in leaves():
        name = key.rpartition(".")[2]
        if key not in kinds and name not in of_other_kinds and not key.startswith(("reference", "site")):
            assert re.search(rf"\b{name}:", text) or name in {"schema_version", "kind", "name"}, key


def test_keys_that_are_often_changed_exist():
    assert set(OFTEN_CHANGED) <= {key for key, _ in leaves()}


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as error:
        find_preset("quikstart")
    assert "Did you mean quickstart?" in error.value.hint


def test_an_installed_package_brings_its_presets_along(tmp_path, monkeypatch):
    build = tomllib.loads((module.presets()[0].path.parents[1] / "pyproject.toml").read_text())["tool"][
        "hatch"
    ]
    assert build["build"]["targets"]["wheel"]["force-include"] == {"configs": "fff/presets"}
    (tmp_path / "fff" / "presets").mkdir(parents=True)
    shutil.copy(find_preset("minimal").path, tmp_path / "fff" / "presets" / "mine.yaml")
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "fff")
    assert [preset.name for preset in presets()] == ["mine"]


def test_every_preset_begins_with_a_sentence_about_it():
    for preset in presets():
        assert 30 < len(preset.about) < 120
        assert preset.about.endswith((".", ":"))
