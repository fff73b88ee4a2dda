"""Adam with an exponential moving average over one flat vector of parameters.

A small network on a core is bound by the number of operations, not by their size: all parameters are views of
one vector, so that a step of the optimiser, the clipping and the average cost a handful of operations instead
of several for each of some forty tensors.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from fff.models.networks import Network

__all__ = ["FlatAdam"]


class FlatAdam:
    """Adam, gradient clipping and the moving average of a network's parameters.

    Args:
        network: Its parameters become views of one vector.
        learning_rate: First step size; change it through the attribute.
        gradient_clip: Longest gradient (2-norm over all parameters) that passes unshortened.
        ema_decay: What the average keeps of itself at each step, once it has seen enough of them.

    Source:
        Kingma, Ba, ICLR 2015, https://arxiv.org/abs/1412.6980.
    """

    def __init__(
        self, network: Network, *, learning_rate: float, gradient_clip: float, ema_decay: float
    ) -> None:
        self.parameters = list(network.parameters())
        self.learning_rate = learning_rate
        self.gradient_clip = gradient_clip
        self.ema_decay = ema_decay
        self.n_steps = 0
        self.gradient_norm = torch.zeros(())
        """Of the last gradient, before it was cut; a tensor, since a number would make a GPU wait."""
        self.flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self.average = self.flat.clone()
        self._mean = torch.zeros_like(self.flat)
        self._square = torch.zeros_like(self.flat)
        start = 0
        for parameter in self.parameters:
            end = start + parameter.numel()
            parameter.data = self.flat[start:end].view_as(parameter)
            start = end

    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        """Move the parameters against the gradients and take them into the average."""
        gradient = torch.cat([part.reshape(-1) for part in gradients])
        self.gradient_norm = torch.linalg.vector_norm(gradient)
        gradient.mul_((self.gradient_clip / (self.gradient_norm + 1e-6)).clamp_(max=1.0))
        self.n_steps += 1
        beta, gamma = 0.9, 0.999
        self._mean.lerp_(gradient, 1.0 - beta)
        self._square.mul_(gamma).addcmul_(gradient, gradient, value=1.0 - gamma)
        bias, bias_square = 1.0 - beta**self.n_steps, 1.0 - gamma**self.n_steps
        spread = self._square.sqrt().div_(bias_square**0.5).add_(1e-8)
        self.flat.addcdiv_(self._mean, spread, value=-self.learning_rate / bias)
        # The first steps weigh equally: otherwise the average would remember the random start for long.
        decay = min(self.ema_decay, self.n_steps / (self.n_steps + 9.0))
        self.average.lerp_(self.flat, 1.0 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged parameters into the network for a while."""
        kept = self.flat.clone()
        self.flat.copy_(self.average)
        try:
            yield
        finally:
            self.flat.copy_(kept)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of all vectors: with `n_steps` and the learning rate all that a step depends on."""
        return {name: vector.cpu().numpy().copy() for name, vector in self._vectors().items()}

    def restore(self, arrays: Mapping[str, np.ndarray], *, n_steps: int, learning_rate: float) -> None:
        """Go back to vectors that `arrays` returned after `n_steps` steps."""
        for name, vector in self._vectors().items():
            vector.copy_(torch.from_numpy(arrays[name]))
        self.n_steps = n_steps
        self.learning_rate = learning_rate

    def _vectors(self) -> dict[str, torch.Tensor]:
        return {
            "parameters": self.flat,
            "average": self.average,
            "gradient_mean": self._mean,
            "gradient_square": self._square,
        }

    def load(self, flat: torch.Tensor) -> None:
        """Put these parameters into the network."""
        self.flat.copy_(flat)
