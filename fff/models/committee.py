"""Several members asked together; their disagreement says where labels are missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fff.base.errors import FffError, ModelFileError
from fff.models.loading import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from ase import Atoms
    from jaxtyping import Bool, Float

    from fff.models.protocol import ForceField, Predictions

__all__ = ["Committee", "CommitteePrediction"]


@dataclass(frozen=True)
class CommitteePrediction:
    """What the members of a committee say about several structures.

    A member that gives no numbers for one structure is here all the same, with NaN or infinities: the others
    are none the worse for it. See `is_finite`.

    Attributes:
        energy_eV: Total energies, members first.
        forces_eV_per_A: One array per structure, members first.
        members_used: Indices of the members that answered, in the order of the first axis.
        stress_eV_per_A3: Voigt stress, members first; None when not asked for.
        features: Of one member (the first), for those of two members are not comparable; NaN for structures
            on which it gives no finite numbers. None when not asked for, or when that member did not answer.
        failures: What went wrong with the members left out, by index.
    """

    energy_eV: Float[np.ndarray, "n_members n_structures"]
    forces_eV_per_A: list[Float[np.ndarray, "n_members n_atoms 3"]]
    members_used: list[int]
    stress_eV_per_A3: Float[np.ndarray, "n_members n_structures 6"] | None
    features: Float[np.ndarray, "n_structures n_features"] | None
    failures: dict[int, str]

    @property
    def is_finite(self) -> Bool[np.ndarray, "n_members n_structures"]:
        """For which structures a member gave a finite energy and finite forces."""
        forces = [np.isfinite(forces).all(axis=(1, 2)) for forces in self.forces_eV_per_A]
        # The shape is given for the case of no structure at all.
        finite: np.ndarray = np.array(forces, dtype=bool).reshape(self.energy_eV.T.shape).T
        return finite & np.isfinite(self.energy_eV)


class Committee:
    """Force fields for the same elements, trained on different draws of the labels.

    Args:
        members: At least one force field.
        failures: Members that could not be loaded, by index in the list they came from.

    Raises:
        ModelFileError: If there is no member.
    """

    def __init__(self, members: Sequence[ForceField], failures: Mapping[int, str] | None = None) -> None:
        self.failures = dict(failures or {})
        if not members:
            why = self.failures or "none given"
            msg = f"A committee needs at least one member; none could be loaded: {why}."
            raise ModelFileError(msg, hint="Look at the models' folders.", path="")
        self.members = list(members)
        count = len(self.members) + len(self.failures)
        self._indices = [i for i in range(count) if i not in self.failures]

    @classmethod
    def from_files(
        cls, members: Sequence[Mapping[str, bytes]], device: torch.device | str | None = None
    ) -> Committee:
        """Load a committee; members whose files are damaged are left out and noted in `failures`.

        Raises:
            ModelFileError: If none can be loaded.
        """
        loaded: list[ForceField] = []
        failures = {}
        for index, files in enumerate(members):
            try:
                loaded.append(load_model(files, device))
            except ModelFileError as error:
                failures[index] = str(error)
        return cls(loaded, failures)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def first(self) -> ForceField:
        """The member listed first, which the features are from.

        Raises:
            ModelFileError: If it could not be loaded.
        """
        if 0 in self.failures:
            msg = f"The committee's first member, which gives the features, is missing: {self.failures[0]}"
            raise ModelFileError(msg, hint="Look at the model's folder.", path="")
        return self.members[0]

    def predict(
        self,
        structures: Sequence[Atoms],
        *,
        features: bool = False,
        features_of: int = 0,
        stress: bool = False,
    ) -> CommitteePrediction:
        """Ask every member; one that fails by an error is left out.

        Args:
            structures: What to predict.
            features: Whether to give the features of one member.
            features_of: Which one, by its place in the list.
            stress: Whether to give stresses.

        Raises:
            ModelFileError: If no member answers.
        """
        answers: dict[int, Predictions] = {}
        failures = dict(self.failures)
        for index, member in zip(self._indices, self.members, strict=True):
            try:
                asked = features and index == features_of
                answers[index] = member.predict(structures, stress=stress, features=asked)
            except (FffError, RuntimeError) as error:
                failures[index] = f"{type(error).__name__}: {error}"
        if not answers:
            msg = f"No member of the committee could predict: {failures}."
            raise ModelFileError(msg, hint="Look at the structures asked for, and at the models.", path="")
        given = list(answers.values())
        stresses = [a.stress_eV_per_A3 for a in given if a.stress_eV_per_A3 is not None]
        prediction = CommitteePrediction(
            energy_eV=np.stack([answer.energy_eV for answer in given]),
            forces_eV_per_A=[
                np.stack([answer.forces_eV_per_A[i] for answer in given]) for i in range(len(structures))
            ],
            members_used=list(answers),
            stress_eV_per_A3=np.stack(stresses) if stresses else None,
            features=answers[features_of].features if features_of in answers else None,
            failures=failures,
        )
        if prediction.features is None:
            return prediction
        known = prediction.is_finite[prediction.members_used.index(features_of)][:, np.newaxis]
        return replace(prediction, features=np.where(known, prediction.features, np.nan))
