"""SchNetPack force fields: made, loaded, asked, stored."""

from __future__ import annotations

import importlib.metadata
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from fff.base.errors import ModelFileError, StructureError
from fff.base.ids import sha256_bytes
from fff.data.atomic_energies import sum_atomic_energies
from fff.models.batches import Batch, check_elements, chunks_by_pairs, join, max_pairs, prepare
from fff.models.files import DESCRIPTION, SCHEMA_VERSION, WEIGHTS, read_description
from fff.models.memory import keep_freed_memory
from fff.models.networks import build_network, evaluate
from fff.models.protocol import Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from fff.models.calculators import MDCalculator
    from fff.models.networks import Network

__all__ = [
    "SchNetPackForceField",
    "create_force_field",
    "load_force_field",
    "pick_device",
    "voigt_stress",
    "with_reference_energies",
]

# Rows of SchNetPack's embedding: elements up to einsteinium.
_LARGEST_NUMBER = 99
_HINT = "Take the model's folder from the run that made it again, or train anew."
_HYPER_PARAMETERS: dict[str, type] = {
    "representation": str,
    "n_features": int,
    "n_layers": int,
    "cutoff_A": float,
    "n_radial": int,
}


class SchNetPackForceField:
    """A PaiNN or SchNet network with the reference energies that make its energies total ones.

    Args:
        network: The network; its parameters are frozen here, since only training changes them.
        description: What `model.json` will hold, reference energies and elements included.
    """

    def __init__(self, network: Network, description: Mapping[str, Any]) -> None:
        keep_freed_memory()
        self.network = network.eval().requires_grad_(False)
        self._description = dict(description)
        self._reference = {int(z): float(e) for z, e in description["reference_energies_eV"].items()}

    @property
    def description(self) -> Mapping[str, Any]:
        """What `model.json` holds, but for the hash of the weights."""
        return self._description

    @property
    def cutoff_A(self) -> float:
        """Distance in Å beyond which atoms do not see each other."""
        return self.network.cutoff_A

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device

    @property
    def elements(self) -> list[int]:
        """Atomic numbers of the elements that the model was made for."""
        return [int(z) for z in self._description["elements"]]

    @property
    def reference_energies_eV(self) -> dict[int, float]:
        """Energy in eV of each element that is not left to the network."""
        return dict(self._reference)

    def predict(
        self, structures: Sequence[Atoms], *, stress: bool = False, features: bool = False
    ) -> Predictions:
        """Return energies and forces of `structures`; see `ForceField.predict`.

        Raises:
            StructureError: If a structure is empty or has an element that the model was made without.
        """
        check_elements(structures, self.elements)
        prepared = prepare(structures, self.cutoff_A, self.device)
        limit = max_pairs(self.device)
        parts = [
            _evaluate_batch(self.network, join(prepared, chunk), stress=stress, features=features)
            for chunk in chunks_by_pairs(prepared, range(len(prepared)), limit)
        ]
        return _to_predictions(parts, structures, self._reference, stress=stress, features=features)

    def md_calculator(self, *, skin_A: float) -> MDCalculator:
        """Return a calculator that is fast along dynamics; see `ForceField.md_calculator`."""
        from fff.models.calculators import MDCalculator

        return MDCalculator(self, skin_A=skin_A)

    def to_files(self) -> dict[str, bytes]:
        """Return the files `model.json` and `weights.safetensors`."""
        tensors = {
            name: parameter.detach().cpu().contiguous().clone()
            for name, parameter in self.network.named_parameters()
        }
        weights = safetensors.torch.save(tensors)
        description = {**self._description, "weights_sha256": sha256_bytes(weights)}
        text = json.dumps(description, indent=1, allow_nan=False) + "\n"
        return {DESCRIPTION: text.encode(), WEIGHTS: weights}


def create_force_field(
    model_settings: Mapping[str, Any],
    *,
    seed: int,
    elements: Sequence[int],
    reference_energies: Mapping[int, float],
    device: torch.device | str | None = None,
) -> SchNetPackForceField:
    """Return an untrained force field.

    Args:
        model_settings: `representation`, `n_features`, `n_layers`, `cutoff_A` (Å), `n_radial`.
        seed: Of the parameters; the same seed gives the same ones.
        elements: Atomic numbers it is for.
        reference_energies: In eV, by atomic number.
        device: Where it goes; the first accelerator, else the CPU, when not given.

    Raises:
        StructureError: If an element is heavier than SchNetPack's embedding allows.
    """
    numbers = sorted({int(z) for z in elements} | {int(z) for z in reference_energies})
    _check_heaviest(numbers)
    settings = {key: kind(model_settings[key]) for key, kind in _HYPER_PARAMETERS.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(settings)
    description = {
        "schema_version": SCHEMA_VERSION,
        "kind": "schnetpack",
        **settings,
        "seed": seed,
        "elements": numbers,
        "reference_energies_eV": {str(z): float(reference_energies.get(z, 0.0)) for z in numbers},
        "training": None,
        "versions": {name: importlib.metadata.version(name) for name in ("schnetpack", "torch")},
    }
    return SchNetPackForceField(network.to(pick_device(device)), description)


def load_force_field(
    files: Mapping[str, bytes], device: torch.device | str | None = None
) -> SchNetPackForceField:
    """Return the force field that `to_files` packed.

    Raises:
        ModelFileError: If a file is missing, damaged, of another schema version or kind, or if the weights do
            not fit the description.
    """
    description = read_description(files)
    kind = description.get("kind")
    if kind != "schnetpack":
        msg = f"{DESCRIPTION} describes a model of the kind {kind!r}; known is 'schnetpack'."
        raise ModelFileError(msg, hint="Use the version of fff that made it.", path=DESCRIPTION)
    description.pop("weights_sha256")
    _check_description(description)
    with torch.random.fork_rng(devices=[]):
        network = build_network(description)
    _load_weights(network, files[WEIGHTS])
    return SchNetPackForceField(network.to(pick_device(device)), description)


def with_reference_energies(
    force_field: SchNetPackForceField, reference_energies: Mapping[int, float]
) -> SchNetPackForceField:
    """Return the same network with these reference energies in eV; elements it did not have are added.

    Raises:
        StructureError: If an element is heavier than SchNetPack's embedding allows.
    """
    energies = {**force_field.reference_energies_eV, **reference_energies}
    numbers = sorted({*force_field.elements, *energies})
    _check_heaviest(numbers)
    description = {
        **force_field.description,
        "elements": numbers,
        "reference_energies_eV": {str(z): float(energies.get(z, 0.0)) for z in numbers},
    }
    return SchNetPackForceField(force_field.network, description)


def pick_device(device: torch.device | str | None) -> torch.device:
    """Return the device asked for, or the first CUDA device if there is one, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_heaviest(numbers: Sequence[int]) -> None:
    if numbers and not 1 <= min(numbers) <= max(numbers) <= _LARGEST_NUMBER:
        msg = f"SchNetPack knows the elements 1 to {_LARGEST_NUMBER}; the structures have {numbers}."
        raise StructureError(msg, hint="Take the structures with other elements out.")


def _check_description(description: Mapping[str, Any]) -> None:
    """Refuse a description from which no network can be built, naming the key."""
    for key, kind in _HYPER_PARAMETERS.items():
        value = description.get(key)
        right = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
        if not right or (kind is not str and not float(value or 0) > 0):
            msg = f"{DESCRIPTION} gives {key} as {value!r}, which is no usable {kind.__name__}."
            raise ModelFileError(msg, hint=_HINT, path=DESCRIPTION)
    if description["representation"] not in {"painn", "schnet"}:
        msg = (
            f"{DESCRIPTION} names the representation {description['representation']!r}; known: painn, schnet."
        )
        raise ModelFileError(msg, hint="Use the version of fff that made it.", path=DESCRIPTION)
    try:
        numbers = {int(z) for z in description["elements"]}
        energies = {int(z): float(e) for z, e in description["reference_energies_eV"].items()}
        sound = numbers == set(energies) and bool(np.isfinite(list(energies.values())).all())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{DESCRIPTION} lacks elements or reference_energies_eV, or they are no numbers: {error!r}."
        raise ModelFileError(msg, hint=_HINT, path=DESCRIPTION) from error
    if not sound:
        msg = f"{DESCRIPTION} does not give one finite reference energy for each of its elements."
        raise ModelFileError(msg, hint=_HINT, path=DESCRIPTION)


def _load_weights(network: Network, data: bytes) -> None:
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        msg = f"{WEIGHTS} is no safetensors file: {error}."
        raise ModelFileError(msg, hint=_HINT, path=WEIGHTS) from error
    parameters = dict(network.named_parameters())
    wrong = sorted(set(tensors) ^ set(parameters))
    if wrong:
        msg = f"{WEIGHTS} does not fit {DESCRIPTION}: {len(wrong)} parameters differ, among them {wrong[0]}."
        raise ModelFileError(msg, hint=_HINT, path=WEIGHTS)
    for name, parameter in parameters.items():
        found = tensors[name]
        if found.shape != parameter.shape or found.dtype != parameter.dtype:
            msg = f"{WEIGHTS}: {name} is {found.dtype} {tuple(found.shape)}, not {tuple(parameter.shape)}."
            raise ModelFileError(msg, hint=_HINT, path=WEIGHTS)
        if not bool(torch.isfinite(found).all()):
            msg = f"{WEIGHTS}: {name} holds numbers that are not finite."
            raise ModelFileError(msg, hint=_HINT, path=WEIGHTS)
        parameter.data.copy_(found)


def _evaluate_batch(network: Network, batch: Batch, *, stress: bool, features: bool) -> dict[str, np.ndarray]:
    result = evaluate(network, batch.numbers, batch.first, batch.second, batch.vectors)
    n_structures = len(batch.n_atoms)
    # Summed in double precision: thousands of atoms would cost single precision its meV.
    energy = torch.zeros(n_structures, dtype=torch.float64, device=batch.numbers.device)
    energy = energy.index_add(0, batch.structure, result.atomic_energies_eV.detach().double())
    found = {
        "energy": energy.cpu().numpy(),
        "forces": result.forces_eV_per_A.detach().cpu().numpy().astype(float),
    }
    if stress:
        virial = torch.einsum("pa,pb->pab", batch.vectors.double(), result.vector_gradient.detach().double())
        total = torch.zeros(n_structures, 3, 3, dtype=torch.float64, device=virial.device)
        found["virial"] = total.index_add(0, batch.pair_structure, virial).cpu().numpy()
    if features:
        summed = result.features.new_zeros(n_structures, result.features.shape[1])
        summed = summed.index_add(0, batch.structure, result.features).detach()
        found["features"] = (summed / batch.n_atoms.unsqueeze(1)).cpu().numpy().astype(float)
    return found


def _to_predictions(
    parts: Sequence[Mapping[str, np.ndarray]],
    structures: Sequence[Atoms],
    reference: Mapping[int, float],
    *,
    stress: bool,
    features: bool,
) -> Predictions:
    if not parts:
        return Predictions(
            energy_eV=np.zeros(0),
            forces_eV_per_A=[],
            stress_eV_per_A3=np.zeros((0, 6)) if stress else None,
            features=np.zeros((0, 0)) if features else None,
        )
    energy = np.concatenate([part["energy"] for part in parts])
    forces = np.concatenate([part["forces"] for part in parts])
    ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
    return Predictions(
        energy_eV=energy + sum_atomic_energies(structures, reference),
        forces_eV_per_A=np.split(forces, ends),
        stress_eV_per_A3=voigt_stress(np.concatenate([part["virial"] for part in parts]), structures)
        if stress
        else None,
        features=np.concatenate([part["features"] for part in parts]) if features else None,
    )


def voigt_stress(strain_gradients_eV: np.ndarray, structures: Sequence[Atoms]) -> np.ndarray:
    r"""Return Voigt stresses in eV/Å³ from derivatives of the energy with respect to strain.

    For energies that depend on pair vectors alone, :math:`dE/d\epsilon = \sum_p r_p \otimes dE/dr_p`; divided
    by the volume that is the stress, positive under tension as in ASE. Structures that are not periodic in
    three directions get NaN.

    Source:
        Thompson, Plimpton, Mattson, J. Chem. Phys. 131, 154107 (2009), doi:10.1063/1.3245303.
    """
    stresses = np.full((len(structures), 6), np.nan)
    for row, gradient, atoms in zip(stresses, strain_gradients_eV, structures, strict=True):
        if atoms.pbc.all():
            full = 0.5 * (gradient + gradient.T) / atoms.get_volume()
            row[:] = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return stresses
