from __future__ import annotations

import pytest

from fff.base.redaction import find_secret, redact


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@host/db",
        "redis://:hunter2@[::1]:6379",
        "https://hunter2@github.com/x.git",
        "-o reference.parameters.password=hunter2",
        "API_KEY=hunter2",
        '{"my-token": "hunter2"}',
        "secret : hunter2",
        "two redis://a:hunter2@x and redis://b:hunter2@y",
    ],
)
def test_a_secret_that_its_form_gives_away_is_left_out(text):
    assert "hunter2" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "runs/water-01/labels.db@0:10",
        "molecule:CH3CH2OH",
        "https://host/path",
        "sampling.max_tokens=5",
        "someone@example.org",
        "--max-labels",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_the_key_of_a_secret_is_found_in_nested_values():
    assert find_secret({"a": 1, "b": {"c": [{"d": "redis://u:p@h"}]}}) == "b.c[0].d"
    assert find_secret({"parameters": {"api_key": "x"}}) == "parameters.api_key"
    assert find_secret({"site_password": "x"}) == "site_password"


def test_names_that_only_resemble_a_secret_are_none():
    assert find_secret({"tokens": "x", "password": "", "secretary": "x", "n": {"token": 5}}) is None
