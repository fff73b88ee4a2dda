"""Single steps take a campaign's settings, by its rules."""

import pytest

from fff.base.errors import ConfigError
from fff.steps.settings import load_settings


def test_the_defaults_are_those_of_a_campaign():
    config = load_settings(None, [], {}).config
    assert (config.committee.size, config.training.max_epochs) == (4, 200)


def test_a_config_of_a_campaign_counts_and_flags_and_overrides_come_after_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("structures: [molecule:H2O]\nreference: {kind: pyscf, basis: STO-3G}\nseed: 7\n")
    loaded = load_settings(path, ["reference.functional=PBE0"], {"seed": ("--seed", 8)})
    assert loaded.config.reference.model_dump()["functional"] == "PBE0"
    assert loaded.config.reference.model_dump()["basis"] == "STO-3G"
    assert loaded.config.seed == 8


def test_a_method_is_asked_for_where_one_is_used():
    with pytest.raises(ConfigError, match="`reference` is missing"):
        load_settings(None, [], {"structures": ("STRUCTURES", ["molecule:H2O"])}, uses=["reference"])


def test_a_misspelt_key_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError) as caught:
        load_settings(None, ["training.max_epoch=3"], {})
    assert "max_epochs" in caught.value.hint
