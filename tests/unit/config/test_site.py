"""Kinds of node: what they ask for, who does what, and what contradicts itself."""

from __future__ import annotations

import pytest

from fff.base.errors import ConfigError
from fff.config import config_from_dict, load_config

ALL = ["training", "inference", "sampling", "calculation"]
ACROSS = {"across_nodes": True, "tasks": ["calculation"]}


def site(kind="slurm", *, nodes=None, **keys):
    values = {"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}}
    return config_from_dict({**values, "site": {"kind": kind, "nodes": nodes or {"cpu": {}}, **keys}}).site


@pytest.mark.parametrize("kind", ["slurm", "pbs"])
def test_one_kind_of_node_does_everything(kind):
    found = site(kind)
    assert found.pool_of_group() == dict.fromkeys(ALL, "cpu")
    assert found.nodes["cpu"].n_slots == 1


def test_the_kind_that_names_no_tasks_does_the_rest():
    found = site(nodes={"gpu": {"tasks": ["training", "inference"]}, "cpu": {}})
    assert found.pool_of_group() == {
        "training": "gpu",
        "inference": "gpu",
        "sampling": "cpu",
        "calculation": "cpu",
    }


@pytest.mark.parametrize(
    ("nodes", "slots", "cores"),
    [
        ({"max_blocks": 3, "nodes_per_block": 2, "workers_per_node": 4, "cores_per_worker": 8}, 24, 32),
        ({"accelerators_per_node": 4, "workers_per_accelerator": 2, "cores_per_worker": 3}, 8, 24),
        ({**ACROSS, "nodes_per_block": 5, "cores_per_worker": 16}, 5, 16),
    ],
)
def test_slots_and_cores_follow_from_what_is_asked_for(nodes, slots, cores):
    kinds = {"cpu": nodes, "rest": {}} if "tasks" in nodes else {"cpu": nodes}
    found = site(nodes=kinds, mpi_launch="srun --nodes={nodes} --ntasks={ranks}").nodes["cpu"]
    assert (found.n_slots, found.cores_per_node) == (slots, cores)


@pytest.mark.parametrize(
    ("walltime", "drain_s", "expected"),
    [("1m", None, 30), ("1:00:00", None, 3240), ("2d", None, 172_200), ("1h", 1800.0, 1800)],
)
def test_a_block_drains_below_its_walltime(walltime, drain_s, expected):
    found = site(nodes={"cpu": {"walltime": walltime, "drain_s": drain_s}}).nodes["cpu"]
    assert found.drain_after_s == expected < found.walltime_s


@pytest.mark.parametrize(
    ("nodes", "keys", "reason", "hint"),
    [
        ({"walltime": "soon"}, {}, r"`site.nodes.cpu.walltime` is 'soon', which is no time", "Write 90s"),
        (
            {"walltime": "1m", "drain_s": 60.0},
            {},
            "drain_s` is 60 s, not below the walltime, 60 s",
            "Give less",
        ),
        ({"min_blocks": 2}, {}, r"min_blocks` is 2, above .*max_blocks` \(1\)", "as many at most"),
        ({"accelerators_per_node": 2, "workers_per_node": 3}, {}, "is 3, but 2 accelerators", "Leave"),
        (ACROSS, {}, "needs `site.mpi_launch`", "srun --nodes={nodes}"),
        ({**ACROSS, "max_blocks": 2}, {}, "cannot run across blocks", "nodes_per_block` to all the nodes"),
        ({**ACROSS, "workers_per_node": 2}, {}, "makes each node one slot", "Leave out"),
        ({**ACROSS, "accelerators_per_node": 1}, {}, "makes each node one slot", "Leave out"),
        ({**ACROSS, "launcher": "srun"}, {}, "is srun, which starts workers on every node", "Leave it out"),
        ({**ACROSS, "tasks": None}, {}, "tasks` is null, but .* calculation alone", "to [calculation]"),
        (
            {**ACROSS, "tasks": ["sampling", "calculation"]},
            {},
            "tasks` is sampling, calculation, but",
            "another kind of node",
        ),
        ({"workers_per_accelerator": 2}, {}, "is 2, but .*accelerators_per_node` is 0", "workers_per_node"),
        (
            {"across_nodes": True, "tasks": ["calculation"], "nodes_per_block": 2},
            {"mpi_launch": "mpiexec -n {ranks}"},
            "does not say on which nodes",
            "{hosts_and_ranks}",
        ),
        ({"max_blocks": 2}, {"inside_allocation": True}, "is 2, inside one allocation", "Set it to 1"),
        ({"nodes_per_block": 2, "launcher": "single"}, {}, "on one of 2 nodes", "srun or mpiexec"),
        ({"tasks": ["training"]}, {}, "no kind of node does inference, sampling, calc", "Give each"),
        ({"set_up": ["a\nb"]}, {}, r"set_up\[0\]` is .*; it must be one line", "an item of its own"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_repair(nodes, keys, reason, hint):
    with pytest.raises(ConfigError, match=reason) as caught:
        site(nodes={"cpu": nodes}, **keys)
    assert hint in caught.value.hint


def test_two_kinds_of_node_may_not_do_the_same():
    with pytest.raises(ConfigError, match=r"`site\.nodes\.a` and `site\.nodes\.b` both do training"):
        site(nodes={"a": {"tasks": ALL}, "b": {"tasks": ["training"]}})
    with pytest.raises(ConfigError, match="a, b name no tasks"):
        site(nodes={"a": {}, "b": {}})


@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        ("site={kind: slurm}", "`site.nodes` is missing", "site.nodes: {cpu: {}}"),
        ("site={kind: slurm, nodes: {a b: {}}}", "cannot be the name of a kind of node", "a letter first"),
        (
            "site={kind: slurm, nodes: {cpu: {max_block: 2}}}",
            "Unknown key `site.nodes.cpu.max_block`",
            "max_blocks",
        ),
        ("site={kind: slurm, nodes: {cpu: 3}}", "`site.nodes.cpu` is 3", "indented"),
    ],
)
def test_mistakes_below_a_name_of_the_users_choice_are_named_with_the_whole_key(change, reason, hint):
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(None, ["structures=[bulk:Cu]", "reference={kind: xtb}", change])
    assert hint in caught.value.hint


def test_one_key_of_a_kind_of_node_can_be_changed_alone():
    given = ["structures=[bulk:Cu]", "reference={kind: xtb}", "site={kind: pbs, nodes: {cpu: {queue: big}}}"]
    config = load_config(None, [*given, "site.nodes.cpu.max_blocks=3"]).config
    assert (config.site.nodes["cpu"].queue, config.site.nodes["cpu"].max_blocks) == ("big", 3)
    with pytest.raises(ConfigError, match=r"Unknown key `site\.nodes\.cpu\.blocks`"):
        load_config(None, [*given, "site.nodes.cpu.blocks=3"])


@pytest.mark.parametrize("kind", ["laptop", "workstation", "slurm"])
def test_a_launch_line_with_an_unknown_placeholder_is_refused_on_every_site(kind):
    nodes = {"nodes": {"any": {}}} if kind == "slurm" else {}
    values = {"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}}
    with pytest.raises(ConfigError, match=r"the placeholder \{cores\} is unknown") as raised:
        config_from_dict({**values, "site": {"kind": kind, "mpi_launch": "srun {cores}", **nodes}})
    assert "{ranks}" in raised.value.hint


@pytest.mark.parametrize("key", ["account", "partition", "queue", "qos", "constraint"])
@pytest.mark.parametrize("value", ["chem $(touch x)", "a;b", "-x", "a b", "`id`", "a'b", "a#b", "a>b", "ä"])
def test_a_name_that_a_shell_or_a_batch_script_would_read_otherwise_is_refused(key, value):
    kind = "pbs" if key == "queue" else "slurm"
    with pytest.raises(
        ConfigError, match=rf"`site\.nodes\.cpu\.{key}` is .*would not hold as it is"
    ) as caught:
        site(kind, nodes={"cpu": {key: value}})
    assert "no blanks" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("account", "phys-2024.a_b"),
        ("partition", "long,short"),
        ("qos", "normal"),
        ("queue", "big@server.cluster"),
        ("constraint", "[rack1*2&rack2*4]"),
        ("constraint", "(haswell|broadwell)&ib"),
    ],
)
def test_the_names_that_clusters_have_are_taken(key, value):
    kind = "pbs" if key == "queue" else "slurm"
    assert getattr(site(kind, nodes={"cpu": {key: value}}).nodes["cpu"], key) == value


def test_pbs_has_no_srun():
    with pytest.raises(ConfigError, match=r"`site\.nodes\.cpu\.launcher` is srun, which PBS does not have"):
        site("pbs", nodes={"cpu": {"launcher": "srun"}})
