from __future__ import annotations

import pytest
import torch

from fff.models.networks import build_network
from fff.models.optimiser import FlatAdam


@pytest.fixture
def network(model):
    torch.manual_seed(2)
    return build_network(model)


def _gradients(network, count):
    generator = torch.Generator().manual_seed(3)
    return [
        [0.1 * torch.randn(p.shape, generator=generator) for p in network.parameters()] for _ in range(count)
    ]


def test_steps_are_those_of_torch(network):
    copies = [torch.nn.Parameter(p.detach().clone()) for p in network.parameters()]
    theirs = torch.optim.Adam(copies, lr=1e-2)
    ours = FlatAdam(network, learning_rate=1e-2, gradient_clip=1e9, ema_decay=0.9)
    for gradients in _gradients(network, 5):
        for parameter, gradient in zip(copies, gradients, strict=True):
            parameter.grad = gradient.clone()
        theirs.step()
        ours.step(gradients)
    for one, other in zip(network.parameters(), copies, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_average_follows_slowly_and_is_put_in_for_a_while_only(network):
    ours = FlatAdam(network, learning_rate=1e-2, gradient_clip=1e9, ema_decay=0.99)
    expected = ours.flat.clone()
    for count, gradients in enumerate(_gradients(network, 4), start=1):
        ours.step(gradients)
        decay = min(0.99, count / (count + 9))
        expected = decay * expected + (1 - decay) * ours.flat
    torch.testing.assert_close(ours.average, expected)
    present = ours.flat.clone()
    first = next(network.parameters())
    with ours.averaged():
        torch.testing.assert_close(first.reshape(-1), ours.average[: first.numel()])
    assert torch.equal(ours.flat, present)
    assert torch.equal(first.reshape(-1), present[: first.numel()])


def test_a_long_gradient_is_cut_to_the_bound(network):
    ours = FlatAdam(network, learning_rate=1e-2, gradient_clip=0.5, ema_decay=0.9)
    ours.step([1e3 * part for part in _gradients(network, 1)[0]])
    assert torch.linalg.vector_norm(ours._mean) == pytest.approx(0.1 * 0.5, rel=1e-4)
