from __future__ import annotations

import subprocess
import sys

import pytest

from fff.base.errors import ConfigError
from fff.config.reference import XtbReference
from fff.reference import make_reference


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ({"kind": "xtb"}, "GFN2-xTB"),
        ({"kind": "xtb", "method": "GFN1-xTB"}, "GFN1-xTB"),
        ({"kind": "pyscf"}, "PBE/def2-SVP"),
        ({"kind": "pyscf", "functional": "B3LYP", "dispersion": "d3bj"}, "B3LYP-D3BJ/def2-SVP"),
        ({"kind": "ase", "calculator": "emt"}, "emt"),
    ],
)
def test_a_method_is_named_as_people_call_it(section, name):
    assert make_reference(section).name == name


def test_a_section_and_the_same_as_a_dict_make_the_same():
    assert make_reference(XtbReference(kind="xtb")).settings == make_reference({"kind": "xtb"}).settings


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ({"kind": "xtb", "charge": "one"}, "charge"),
        ({"kind": "gaussian"}, "gaussian"),
        ({"kind": "xtb", "basis": "def2-SVP"}, "basis"),
        ({}, "kind"),
    ],
)
def test_a_dict_that_is_no_section_is_refused(section, word):
    with pytest.raises(ConfigError, match=word):
        make_reference(section)


def test_making_a_method_imports_nothing_heavy():
    code = (
        "import sys; from fff.reference import make_reference;"
        "make_reference({'kind': 'pyscf'}).settings; make_reference({'kind': 'xtb'}).name;"
        "print({'pyscf', 'tblite', 'torch', 'matplotlib', 'colmena', 'parsl'} & sys.modules.keys())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
