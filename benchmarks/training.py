"""Error and seconds of a training, by the number of labels: `python benchmarks/training.py FOLDER`.

FOLDER holds `train.xyz` and `test_MD.xyz` (ethanol, PBE/def2-SVP). Labels are random structures of the first
file, errors are those on every tenth structure of the second. CPU seconds are beside wall seconds, since a
machine that others use stretches the latter only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from ase.io import read

from fff.data.records import Label
from fff.models import fit_reference_energies, load_force_field, train_member

TRAINING = {
    "max_epochs": 200,
    "batch_size": 8,
    "energy_weight": 0.05,
    "force_weight": 0.95,
    "plateau_patience": 15,
    "plateau_factor": 0.5,
    "stop_patience": 40,
    "min_learning_rate": 1e-5,
    "ema_decay": 0.99,
    "gradient_clip": 10.0,
    "time_limit_s": 86400,
}


def load_labels(path: Path, index: str) -> list[Label]:
    """Return the structures of an extended XYZ file with their energies and forces."""
    found = []
    for number, atoms in enumerate(read(path, index)):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        found.append(Label(atoms, float(energy), forces, segment=f"{path.stem}-{number}"))
    return found


def force_errors(files: dict[str, bytes], labels: list[Label]) -> np.ndarray:
    """Return predicted minus true force components in meV/Å."""
    answer = load_force_field(files, device="cpu").predict([label.atoms for label in labels])
    pairs = zip(answer.forces_eV_per_A, labels, strict=True)
    return 1e3 * np.concatenate([forces - label.forces_eV_per_A for forces, label in pairs])


def main() -> None:
    """Train with each number of labels and print a row of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[16, 32, 64, 100])
    parser.add_argument("--n-features", type=int, default=32)
    parser.add_argument("--n-layers", type=int, default=2)
    parser.add_argument("--representation", default="painn")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--max-epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bootstrap", action="store_true", help="draw labels as for a committee")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pool = load_labels(given.folder / "train.xyz", ":")
    test = load_labels(given.folder / "test_MD.xyz", "::10")
    mean_force = 1e3 * np.abs(np.concatenate([label.forces_eV_per_A for label in test])).mean()
    print(f"mean absolute force of the test set: {mean_force:.0f} meV/Å")
    print("labels  MAE meV/Å  RMS meV/Å  wall s  CPU s  steps  CPU ms/step  ended")
    for count in given.labels:
        chosen = np.random.default_rng(given.seed).choice(len(pool), count, replace=False)
        labels = [pool[i] for i in chosen]
        began = time.process_time()
        trained = train_member(
            labels,
            model={
                "representation": given.representation,
                "n_features": given.n_features,
                "n_layers": given.n_layers,
                "cutoff_A": 5.0,
                "n_radial": 20,
            },
            training={**TRAINING, "learning_rate": given.learning_rate, "max_epochs": given.max_epochs},
            seed=given.seed,
            reference_energies=fit_reference_energies(labels),
            bootstrap=given.bootstrap,
            device="cpu",
        )
        used, summary = time.process_time() - began, trained.summary
        errors = force_errors(trained.files, test)
        print(
            f"{count:6d}  {np.abs(errors).mean():9.1f}  {np.sqrt((errors**2).mean()):9.1f}"
            f"  {summary['wall_s']:6.1f}  {used:5.1f}  {summary['steps']:5d}"
            f"  {1e3 * used / summary['steps']:11.1f}  {summary['stop_reason']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
