from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from schnetpack import properties

from fff.models.batches import join, prepare
from fff.models.networks import build_network, evaluate


@pytest.fixture(params=["painn", "schnet"])
def network(request):
    torch.manual_seed(5)
    settings = {"n_features": 16, "n_layers": 3, "n_radial": 8, "cutoff_A": 4.0}
    return build_network({**settings, "representation": request.param})


def _batch():
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    return join(prepare([molecule("CH3CH2OH"), copper, molecule("H2O")], 4.5), range(3))


def _with_schnetpack(network, batch):
    """Energies and forces from SchNetPack's own forward pass."""
    place = torch.zeros(len(batch.numbers), 3, requires_grad=True)
    inputs = {
        properties.Z: batch.numbers,
        properties.Rij: batch.vectors + place[batch.second] - place[batch.first],
        properties.idx_i: batch.first,
        properties.idx_j: batch.second,
    }
    energies = network.readout(network.representation(inputs))["atomic_energies"].squeeze(1)
    forces = -torch.autograd.grad(energies.sum(), place, create_graph=True)[0]
    return energies, forces


def test_the_fast_forward_pass_gives_the_numbers_of_schnetpack(network):
    batch = _batch()
    expected, expected_forces = _with_schnetpack(network, batch)
    found = evaluate(network, batch.numbers, batch.first, batch.second, batch.vectors)
    torch.testing.assert_close(found.atomic_energies_eV, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.forces_eV_per_A, expected_forces.detach(), atol=2e-5, rtol=1e-4)


def test_the_gradient_of_a_force_loss_is_that_of_schnetpack(network):
    batch = _batch()
    target = torch.randn(len(batch.numbers), 3, generator=torch.Generator().manual_seed(1))
    _, forces = _with_schnetpack(network, batch)
    parameters = list(network.parameters())
    asked = {"allow_unused": True, "materialize_grads": True}
    expected = torch.autograd.grad((forces - target).square().mean(), parameters, **asked)
    result = evaluate(network, batch.numbers, batch.first, batch.second, batch.vectors, training=True)
    found = torch.autograd.grad((result.forces_eV_per_A - target).square().mean(), parameters, **asked)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_pairs_beyond_the_cutoff_have_no_effect_at_all(network):
    near, far = (join(prepare([molecule("CH3CH2OH")], reach), [0]) for reach in (4.0, 9.0))
    assert len(far.first) >= len(near.first)
    stretched = Atoms("CO", positions=[[0, 0, 0], [0, 0, 4.2]])
    alone = join(prepare([stretched], 4.0), [0])
    seen = join(prepare([stretched], 4.5), [0])
    assert (len(alone.first), len(seen.first)) == (0, 2)
    results = [evaluate(network, b.numbers, b.first, b.second, b.vectors) for b in (alone, seen)]
    torch.testing.assert_close(
        results[0].atomic_energies_eV, results[1].atomic_energies_eV, atol=1e-6, rtol=0
    )
    assert torch.equal(results[1].forces_eV_per_A, torch.zeros(2, 3))


def test_slopes_of_the_basis_are_its_derivatives(network):
    distance = torch.linspace(0.5, 4.3, 39)
    step = 1e-2
    vectors = torch.zeros(39, 3)
    vectors[:, 0] = distance
    shift = torch.tensor([step, 0.0, 0.0])
    above, below = network.basis(vectors + shift).radial, network.basis(vectors - shift).radial
    inside = (distance - 4.0).abs() > 2 * step
    slope = (above - below) / (2 * step)
    torch.testing.assert_close(
        network.basis(vectors).radial_slope[inside][:, :-1], slope[inside][:, :-1], atol=5e-3, rtol=5e-3
    )
