"""Force fields learn real labels: ethanol at PBE/def2-SVP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from fff.data.records import Label
from fff.models.force_field import load_force_field
from fff.models.reference_energies import fit_reference_energies
from fff.models.training import train_member

pytestmark = pytest.mark.science

DATA = Path(__file__).parents[3] / "shared" / "data" / "ethanol-dft"
MODEL = {"representation": "painn", "n_features": 32, "n_layers": 2, "cutoff_A": 5.0, "n_radial": 20}
TRAINING = {
    "max_epochs": 60,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "energy_weight": 0.05,
    "force_weight": 0.95,
    "plateau_patience": 15,
    "plateau_factor": 0.5,
    "stop_patience": 40,
    "min_learning_rate": 1e-5,
    "ema_decay": 0.99,
    "gradient_clip": 10.0,
    "time_limit_s": 300,
}


def _labels(name, index):
    found = []
    for number, atoms in enumerate(read(DATA / name, index)):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        found.append(Label(atoms, float(energy), forces, segment=f"{name}-{number}"))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the ethanol labels are not beside the repository")
def test_errors_on_unseen_ethanol_fall_with_the_number_of_labels():
    train, test = _labels("train.xyz", ":40"), _labels("test_MD.xyz", "::20")
    forces = np.concatenate([label.forces_eV_per_A for label in test])
    errors = []
    for count in (10, 40):
        trained = train_member(
            train[:count],
            model=MODEL,
            training=TRAINING,
            seed=1,
            reference_energies=fit_reference_energies(train[:count]),
            device="cpu",
        )
        answer = load_force_field(trained.files, device="cpu").predict([label.atoms for label in test])
        errors.append(np.abs(np.concatenate(answer.forces_eV_per_A) - forces).mean())
    mean_force = np.abs(forces).mean()
    assert errors[0] < 0.5 * mean_force
    assert errors[1] < 0.6 * errors[0]
