from __future__ import annotations

import pytest

from fff.base.errors import ConfigError
from fff.config import load_config

LEAST = "structures: [molecule:H2O]\nreference: {kind: xtb}\n"

# override: (parts of the message, parts of the hint)
CASES = {
    "samplng.n_steps=3": (["`samplng.n_steps`", "3"], ["`sampling.n_steps`"]),
    "sampling.temperature=300": (["`sampling.temperature`", "300"], ["`sampling.temperature_K`"]),
    "sampling.temp=3": (["`sampling.temp`", "3"], ["`sampling.temperature_K`"]),
    "temperature_K=300": (["`temperature_K`"], ["`sampling.temperature_K`"]),
    "quite_unknown=1": (["`quite_unknown`"], ["structures", "reference"]),
    "site.n_worker=2": (["`site.n_worker`", "laptop"], ["`site.n_workers`"]),
    "reference.basis=STO-3G": (["`reference.basis`", "STO-3G", "xtb"], ["kind `pyscf`"]),
    "sampling.temperature_K=300 K": (
        ["`sampling.temperature_K", "300 K", "number in K"],
        ["Write 300 alone"],
    ),
    "sampling.timestep_fs=0.5 ps": (["`sampling.timestep_fs`", "0.5 ps", "fs"], ["Convert the value to fs"]),
    "committee.size=4 members": (["`committee.size`", "4 members"], ["Write 4 alone"]),
    "sampling.temperature_K=[300, -1]": (["`sampling.temperature_K[1]`", "-1 K", "above 0 K"], ["above 0"]),
    "sampling.temperature_K=[]": (["`sampling.temperature_K`", "[]", "empty"], ["temperature"]),
    "committee.size=1": (["`committee.size` is 1", "at least 2 and at most 32"], ["at least 2"]),
    "committee.size=4.0": (["`committee.size` is 4.0", "whole number"], ["Write 4,"]),
    "committee.size='4'": (["`committee.size`", "whole number"], ["Write 4 without quotes"]),
    "committee.size=null": (["`committee.size` is null", "whole number"], ["at least 2"]),
    "seed=true": (["`seed` is true", "whole number"], ["at least 0"]),
    "seed=-1": (["`seed` is -1", "at least 0"], ["`seed`"]),
    "seed.x=1": (["`seed`", "whole number"], ["whole number"]),
    "training.ema_decay=1": (["`training.ema_decay` is 1", "below 1"], ["below 1"]),
    "training.learning_rate=.inf": (["`training.learning_rate` is inf", "finite"], ["number"]),
    "test.random_baseline=NO": (["`test.random_baseline`", "NO", "true or false"], ["Write false"]),
    "test.random_baseline=off": (["`test.random_baseline`", "off", "true or false"], ["Write false"]),
    "test.random_baseline=yes": (["`test.random_baseline`", "yes"], ["Write true"]),
    "sampling.thermostat=NPT ": (["`sampling.thermostat`", "NPT"], ["Did you mean `npt`?"]),
    "selection.rule=divers": (["`selection.rule`", "divers"], ["`diverse`", "variance-pruning"]),
    "model.kind=mace": (["`model.kind`", "mace"], ["only schnetpack"]),
    "reference.kind=vasp": (["`reference.kind`", "vasp"], ["xtb, pyscf, ase"]),
    "reference.kind=pyscff": (["`reference.kind`", "pyscff"], ["Did you mean `pyscf`?"]),
    "reference={}": (["`reference.kind` is missing"], ["kind: xtb"]),
    "reference=xtb": (["`reference`", "xtb", "section"], ["`reference: {kind: xtb}`"]),
    "reference.kind=ase": (["`reference.calculator` is missing"], ["emt"]),
    "site.kind=condor": (["`site.kind`", "condor"], ["laptop, workstation, slurm, pbs"]),
    "site.kind=slurm": (["`site.nodes` is missing"], ["site.nodes: {cpu: {}}"]),
    "sampling=3": (["`sampling` is 3", "section"], ["indented"]),
    "structures=water.xyz": (["`structures`", "water.xyz", "list"], ["`structures: ["]),
    "structures=[3]": (["`structures[0]` is 3", "text"], ['"3"']),
    "structures=[]": (["`structures`", "empty"], ["structures: [molecule:"]),
    "name=a/b": (["`name`", "a/b", "folder"], ["letters"]),
    "schema_version=2": (["`schema_version` is 2", "reads 1"], ["leave the key out"]),
    "stop.max_labels=8": (["`start.n_labels` is 16", "`stop.max_labels` (8)"], ["at most 8"]),
    "training.retrain_every=200": (["`training.retrain_every` is 200", "(128)"], ["at most 128"]),
    "calculation.max_ahead=3": (["`training.retrain_every` is 32", "`calculation.max_ahead`"], ["at most 3"]),
    "sampling.min_steps=300": (["`sampling.min_steps` is 300", "`sampling.n_steps` (200)"], ["at most 200"]),
    "sampling.max_steps=100": (["`sampling.n_steps` is 200", "`sampling.max_steps` (100)"], ["at least 200"]),
    "sampling.check_every=50": (["`sampling.check_every` is 50", "`sampling.min_steps`"], ["at most 20"]),
    "sampling.n_parallel=9": (["`sampling.n_parallel` is 9", "`sampling.n_trajectories`"], ["at most 8"]),
    "training.min_learning_rate=0.1": (["`training.min_learning_rate` is 0.1"], ["at most 0.005"]),
    "training={force_weight: 0, energy_weight: 0}": (["both 0"], ["`training.force_weight`"]),
    "selection.pool_size=5": (["`selection.pool_size` is 5"], ["at least 20"]),
    "structures=['']": (['`structures[0]` is ""', "empty"], ["molecule:CH3CH2OH"]),
    "labels=['  ']": (['`labels[0]` is ""', "empty"], ["Files"]),
    "model.start=''": (["`model.start`", "empty"], ["Trained model"]),
    "run_dir=' '": (["`run_dir`", "empty"], ["runs/NAME"]),
    "structures=[~nobodyhere/x.xyz]": (
        ["`structures[0]`", "~nobodyhere/x.xyz", "as a path"],
        ["molecule:H2O"],
    ),
    'labels=["a\\0b"]': (["`labels[0]`", "as a path", "null"], ["file"]),
    "model.start=" + 300 * "x": (["`model.start`", "as a path", "too long"], ["folder"]),
    "test.labels=~nobodyhere": (["`test.labels`", "~nobodyhere"], ["file"]),
    "reference.parameters=&a [*a]": (["`reference.parameters[0]` contains itself"], ["alias"]),
    "structures=" + 5000 * "[": (["-o structures=[[[", "too deeply"], []),
    "structures=" + 60 * "[" + 60 * "]": (["`structures[0]", "levels deep"], []),
    "sampling.temperature_K=[" + 101 * "300," + "]": (
        ["`sampling.temperature_K` holds 101 values", "at most 100"],
        ["out"],
    ),
    "test.temperatures_K=[" + 101 * "300," + "]": (["`test.temperatures_K` holds 101"], ["out"]),
    "selection={rule: threshold, deviation: energy}": (["`selection.deviation` is energy"], ["max-force"]),
    "test={n_frames: 0, random_baseline: true}": (["`test.random_baseline`"], ["`test.n_frames` above 0"]),
    "test.n_frames=null": (["`test.n_frames` is null"], ["`test.labels`"]),
    "site={kind: workstation, n_gpus: 1, accelerators: [a, b]}": (["`site.n_gpus` is 1"], ["out"]),
    "site={kind: workstation, accelerators: [a, a]}": (["`site.accelerators`", "twice"], ["once"]),
    "seed": (["-o seed", "key=value"], ["-o sampling.n_steps=400"]),
    "=3": (["key=value"], ["-o sampling.n_steps=400"]),
    "a b=3": (["key=value"], ["without spaces"]),
    "structures=[": (["-o structures=[", "YAML"], ["quotes"]),
}


@pytest.mark.parametrize("override", CASES)
def test_a_wrong_value_is_answered_with_key_value_and_repair(override, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(LEAST)
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override], base_dir=tmp_path)
    in_message, in_hint = CASES[override]
    for part in in_message:
        assert part in caught.value.message
    for part in in_hint:
        assert part in caught.value.hint


TEXTS = {
    "structures: [a\n": (["line", "no YAML"], ["Indent"]),
    "structures:\n\t- a\n": (["line 2", "no YAML"], ["spaces"]),
    "a: b: c\n": (["line 1", "no YAML"], ["colon"]),
    "!!python/object:os.system {}\n": (["line 1", "no YAML"], []),
    "- structures\n": (["keys with values"], ["fff init minimal"]),
    "just words\n": (["just words"], ["fff init minimal"]),
    "# nothing but a comment\n": (["is empty"], ["fff init minimal"]),
    "": (["is empty"], ["fff init minimal"]),
    "1: 2\n": (["`1`", "no text"], ["name"]),
    "structures: [molecule:H2O]\n": (["`reference` is missing"], ["reference: {kind: xtb}"]),
    "structures:\nreference: {kind: xtb}\n": (["`structures` is null", "list"], []),
    LEAST + "model: {start: x}\nlabels: 3\n": (["`labels` is 3", "list"], ["`labels: [3]`"]),
    "model: {start: x}\nreference: {kind: xtb}\n": (["`model.start`", "nothing to sample"], ["structures"]),
    LEAST + "sampling: &s {x: *s}\n": (["`sampling.x` contains itself"], ["alias"]),
    LEAST + "labels: &s [a, *s]\n": (["`labels[1]` contains itself"], ["alias"]),
    LEAST + "sampling: {time_limit: 3}\n": (["`sampling.time_limit`"], ["`sampling.time_limit_s`"]),
    LEAST + "sampling: {audit: {fraction: 1}}\n": (["`sampling.audit`"], ["audit"]),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_wrong_file_is_answered_with_place_and_repair(text, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    in_message, in_hint = TEXTS[text]
    for part in in_message:
        assert part in caught.value.message
    for part in in_hint:
        assert part in caught.value.hint
