"""Cores are shared between child processes, unless the user said otherwise."""

import os

import pytest

from fff.base.cores import THREAD_VARIABLES
from fff.steps import sharing
from fff.steps.sharing import shared_by, threads_for


@pytest.mark.parametrize(("n", "at_most", "threads"), [(2, None, "4"), (16, None, "1"), (2, 1, "1")])
def test_each_process_gets_its_share(monkeypatch, n, at_most, threads):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sharing, "cores_found", lambda: 8)
    with shared_by(n, at_most=at_most):
        assert {os.environ[name] for name in THREAD_VARIABLES} == {threads}
    assert not any(name in os.environ for name in THREAD_VARIABLES)


def test_what_the_user_said_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with shared_by(1):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("n_atoms", "given", "threads"), [(9, "", 1), (5000, "", 2), (9, "2", 2)])
def test_few_atoms_are_predicted_with_one_thread(monkeypatch, n_atoms, given, threads):
    import torch

    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, given)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(n_atoms):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
