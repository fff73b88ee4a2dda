"""PaiNN and SchNet from SchNetPack, evaluated with few and cheap tensor operations.

SchNetPack's modules hold the parameters and define the architecture; the forward passes here give the same
numbers (a test compares them). What differs:

* Gradients run to a radial basis and to directions, whose derivatives with respect to the pair vectors are
  written down (`PairBasis`), not to positions: the basis stays out of a training step's second derivative.
* Radial filters come from one matrix product per use, with the cutoff inside the basis.
* `index_select` replaces indexing, whose backward pass sorts: it is several times slower on a core.
* Terms that are zero (vectors before the first interaction) or unused (vectors after the last) are left out.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

with warnings.catch_warnings():
    # SchNetPack still scripts its scatter function; torch 2.11 and later say so at each import.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
    from schnetpack.atomistic import Atomwise
    from schnetpack.nn import CosineCutoff, GaussianRBF
    from schnetpack.nn.activations import shifted_softplus
    from schnetpack.representation import PaiNN, SchNet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

__all__ = ["Evaluation", "Network", "PaiNNNetwork", "PairBasis", "SchNetNetwork", "build_network", "evaluate"]

_ENERGY_KEY = "atomic_energies"


@dataclass(frozen=True)
class PairBasis:
    """Radial functions and directions of all pairs, and what leads from their gradients to pair vectors.

    Attributes:
        radial: Gaussians times cutoff function, and the cutoff function itself in the last column.
        radial_slope: Derivative of `radial` with respect to the distance, 1/Å.
        direction: Unit vectors.
        inverse_distance: 1/Å.
    """

    radial: Float[torch.Tensor, "n_pairs n_radial+1"]
    radial_slope: Float[torch.Tensor, "n_pairs n_radial+1"]
    direction: Float[torch.Tensor, "n_pairs 3"]
    inverse_distance: Float[torch.Tensor, "n_pairs 1"]

    def to_vectors(
        self,
        radial_gradient: Float[torch.Tensor, "n_pairs n_radial+1"],
        direction_gradient: Float[torch.Tensor, "n_pairs 3"] | None,
    ) -> Float[torch.Tensor, "n_pairs 3"]:
        """Return the gradient with respect to the pair vectors by the chain rule."""
        along = (radial_gradient * self.radial_slope).sum(1, keepdim=True)
        if direction_gradient is None:
            return along * self.direction
        turn = direction_gradient * self.inverse_distance
        along = along - (turn * self.direction).sum(1, keepdim=True)
        return torch.addcmul(turn, along, self.direction)


class Network(torch.nn.Module):
    """A representation and a readout of atomic energies; the base of PaiNN and SchNet here.

    Args:
        representation: SchNetPack's module; its parameters are used, its forward pass is not.
        n_features: Width of the representation.
        n_radial: Number of Gaussians.
        cutoff_A: Cutoff.
    """

    uses_directions = True

    def __init__(
        self, representation: torch.nn.Module, *, n_features: int, n_radial: int, cutoff_A: float
    ) -> None:
        super().__init__()
        self.representation: Any = representation
        self.readout = Atomwise(
            n_in=n_features, aggregation_mode=None, per_atom_output_key=_ENERGY_KEY, output_key=_ENERGY_KEY
        )
        self.cutoff_A = cutoff_A
        radial: Any = representation.radial_basis
        offsets: torch.Tensor = radial.offsets
        width = float(offsets[1] - offsets[0])
        self.register_buffer("_offsets", offsets.clone(), persistent=False)
        self._offsets: torch.Tensor
        self._n_radial = n_radial
        self._width = width

    def basis(self, vectors: Float[torch.Tensor, "n_pairs 3"]) -> PairBasis:
        """Return radial functions and directions of pair vectors in Å.

        Pairs at or beyond the cutoff have radial functions and slopes of exactly zero, hence no effect.
        """
        distance = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        inverse = distance.reciprocal()
        inside = distance < self.cutoff_A
        angle = distance * (math.pi / self.cutoff_A)
        cut = torch.where(inside, 0.5 * (torch.cos(angle) + 1.0), 0.0)
        cut_slope = torch.where(inside, torch.sin(angle) * (-0.5 * math.pi / self.cutoff_A), 0.0)
        away = distance - self._offsets
        gaussian = torch.exp(away.square() * (-0.5 / self._width**2))
        gaussian_slope = gaussian * away * (-1.0 / self._width**2)
        radial, slope = self._with_cutoff(gaussian, gaussian_slope, cut, cut_slope)
        return PairBasis(
            radial=radial, radial_slope=slope, direction=vectors * inverse, inverse_distance=inverse
        )

    def _with_cutoff(
        self, gaussian: torch.Tensor, gaussian_slope: torch.Tensor, cut: torch.Tensor, cut_slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        radial = torch.cat([gaussian * cut, cut], dim=1)
        slope = torch.cat([torch.addcmul(gaussian * cut_slope, gaussian_slope, cut), cut_slope], dim=1)
        return radial, slope

    def forward(
        self,
        numbers: Int[torch.Tensor, " n_atoms"],
        first: Int[torch.Tensor, " n_pairs"],
        second: Int[torch.Tensor, " n_pairs"],
        basis: PairBasis,
    ) -> tuple[Float[torch.Tensor, " n_atoms"], Float[torch.Tensor, "n_atoms n_features"]]:
        """Return atomic energies in eV, reference energies not included, and atomic features."""
        features = self.represent(numbers, first, second, basis)
        return self.readout.outnet(features).squeeze(1), features

    def represent(
        self, numbers: torch.Tensor, first: torch.Tensor, second: torch.Tensor, basis: PairBasis
    ) -> torch.Tensor:
        """Return atomic features."""
        raise NotImplementedError


class PaiNNNetwork(Network):
    """Polarizable atom interaction network.

    Source:
        Schütt, Unke, Gastegger, ICML 2021, https://proceedings.mlr.press/v139/schutt21a.html.
    """

    def represent(
        self, numbers: torch.Tensor, first: torch.Tensor, second: torch.Tensor, basis: PairBasis
    ) -> torch.Tensor:
        """Return the scalar features of each atom after the last interaction."""
        model = self.representation
        n_atoms, n_features = len(numbers), model.n_atom_basis
        weights = torch.cat([model.filter_net.weight, model.filter_net.bias[:, None]], dim=1)
        # Per layer and kind (scalar, direction, vector): (n_radial + 1, n_features).
        filters = weights.view(3 * model.n_interactions, n_features, -1).transpose(1, 2)
        direction = basis.direction.unsqueeze(2)
        q = functional.embedding(numbers, model.embedding.weight)
        mu = None
        for layer, (interaction, mixing) in enumerate(zip(model.interactions, model.mixing, strict=True)):
            last = layer == model.n_interactions - 1
            x = interaction.interatomic_context_net(q)
            x_q, x_r, x_mu = torch.split(x, n_features, dim=1)
            radial_q = basis.radial @ filters[3 * layer]
            radial_r = basis.radial @ filters[3 * layer + 1]
            message_q = radial_q * x_q.index_select(0, second)
            message_mu = (radial_r * x_r.index_select(0, second)).unsqueeze(1) * direction
            if mu is not None:
                radial_mu = basis.radial @ filters[3 * layer + 2]
                seen = (x_mu.unsqueeze(1) * mu).index_select(0, second)
                message_mu = torch.addcmul(message_mu, radial_mu.unsqueeze(1), seen)
            q = q.index_add(0, first, message_q)
            start = q.new_zeros(n_atoms, 3, n_features) if mu is None else mu
            mu = start.index_add(0, first, message_mu)
            q, mu = self._mix(mixing, q, mu, last=last)
        return q

    @staticmethod
    def _mix(
        mixing: Any, q: torch.Tensor, mu: torch.Tensor, *, last: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n_features = q.shape[1]
        mixed = functional.linear(mu, mixing.mu_channel_mix.weight)
        mu_v, mu_w = torch.split(mixed, n_features, dim=2)
        norm = torch.sqrt(mu_v.square().sum(1) + mixing.epsilon)
        x = mixing.intraatomic_context_net(torch.cat([q, norm], dim=1))
        x_q, x_mu, x_qmu = torch.split(x, n_features, dim=1)
        q = torch.addcmul(q + x_q, x_qmu, (mu_v * mu_w).sum(1))
        if not last:
            mu = torch.addcmul(mu, x_mu.unsqueeze(1), mu_w)
        return q, mu


class SchNetNetwork(Network):
    """Continuous-filter convolutional network.

    Source:
        Schütt, Sauceda, Kindermans, Tkatchenko, Müller, J. Chem. Phys. 148, 241722 (2018),
        doi:10.1063/1.5019779.
    """

    uses_directions = False

    def _with_cutoff(
        self, gaussian: torch.Tensor, gaussian_slope: torch.Tensor, cut: torch.Tensor, cut_slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # The filter network is not linear: it sees plain Gaussians, and the cutoff multiplies its output.
        return torch.cat([gaussian, cut], dim=1), torch.cat([gaussian_slope, cut_slope], dim=1)

    def represent(
        self, numbers: torch.Tensor, first: torch.Tensor, second: torch.Tensor, basis: PairBasis
    ) -> torch.Tensor:
        """Return the features of each atom after the last interaction."""
        model = self.representation
        gaussian, cut = basis.radial[:, :-1], basis.radial[:, -1:]
        x = functional.embedding(numbers, model.embedding.weight)
        for interaction in model.interactions:
            filters = interaction.filter_network(gaussian) * cut
            seen = interaction.in2f(x)
            message = filters * seen.index_select(0, second)
            gathered = torch.zeros_like(seen).index_add(0, first, message)
            x = x + interaction.f2out(gathered)
        return x


def build_network(settings: Mapping[str, Any]) -> Network:
    """Return a network with fresh parameters, drawn from torch's global generator.

    Args:
        settings: `representation`, `n_features`, `n_layers`, `n_radial`, `cutoff_A`.
    """
    n_features, cutoff_A = int(settings["n_features"]), float(settings["cutoff_A"])
    radial = GaussianRBF(n_rbf=int(settings["n_radial"]), cutoff=cutoff_A)
    shared = {
        "n_atom_basis": n_features,
        "n_interactions": int(settings["n_layers"]),
        "radial_basis": radial,
        "cutoff_fn": CosineCutoff(cutoff_A),
    }
    sizes: dict[str, Any] = {
        "n_features": n_features,
        "n_radial": int(settings["n_radial"]),
        "cutoff_A": cutoff_A,
    }
    if settings["representation"] == "schnet":
        return SchNetNetwork(SchNet(**shared, activation=shifted_softplus), **sizes)
    return PaiNNNetwork(PaiNN(**shared), **sizes)


@dataclass(frozen=True)
class Evaluation:
    """What one pass through a network gives.

    Attributes:
        atomic_energies_eV: Without reference energies, float32.
        features: Scalar representation of each atom.
        vector_gradient: Derivative of the total energy with respect to each pair vector, eV/Å.
        forces_eV_per_A: Forces.
    """

    atomic_energies_eV: Float[torch.Tensor, " n_atoms"]
    features: Float[torch.Tensor, "n_atoms n_features"]
    vector_gradient: Float[torch.Tensor, "n_pairs 3"]
    forces_eV_per_A: Float[torch.Tensor, "n_atoms 3"]


def evaluate(
    network: Network,
    numbers: Int[torch.Tensor, " n_atoms"],
    first: Int[torch.Tensor, " n_pairs"],
    second: Int[torch.Tensor, " n_pairs"],
    vectors: Float[torch.Tensor, "n_pairs 3"],
    *,
    training: bool = False,
) -> Evaluation:
    """Return energies, forces and the gradient that stresses come from.

    Args:
        network: The network.
        numbers: Atomic numbers.
        first: First atom of each pair.
        second: Second atom of each pair.
        vectors: From first to second atom, Å.
        training: Whether to keep the graph, so that a loss of forces can be differentiated.
    """
    basis = network.basis(vectors)
    basis.radial.requires_grad_(True)
    inputs = [basis.radial]
    if network.uses_directions:
        basis.direction.requires_grad_(True)
        inputs.append(basis.direction)
    with torch.enable_grad():
        energies, features = network(numbers, first, second, basis)
        gradients = torch.autograd.grad(
            energies.sum(), inputs, create_graph=training, materialize_grads=True, allow_unused=True
        )
    with torch.set_grad_enabled(training):
        gradient = basis.to_vectors(gradients[0], gradients[1] if network.uses_directions else None)
        zero = gradient.new_zeros(len(numbers), 3)
        forces = zero.index_add(0, first, gradient).index_add(0, second, gradient, alpha=-1)
    if not training:
        energies, features = energies.detach(), features.detach()
    return Evaluation(energies, features, gradient, forces)
