"""How far a training is, as its progress bar tells."""

import pytest

from fff.steps.members import Job
from fff.steps.training import _Epochs

HISTORY = "epoch,wall,learning_rate,train_loss,validation_score,validation_force_mae\n,s,,,,eV/Å\n" + "".join(
    f"{epoch},{epoch}.0,0.001,1.0,,\n" for epoch in range(1, 81)
)


@pytest.mark.parametrize(("history", "before"), [(HISTORY, 80), ("epoch\n", 0), (None, 0)])
def test_epochs_of_an_earlier_time_are_there_from_the_beginning(tmp_path, history, before):
    checkpoints = tmp_path / "checkpoints"
    if history is not None:
        checkpoints.mkdir()
        (checkpoints / "history.csv").write_text(history)
    job = Job(tmp_path / "member-0", checkpoints, tmp_path / "labels.npz", range(10), {}, {}, 0, 0, True)
    told = []
    seen = _Epochs([job], 100, lambda *what: told.append(what))
    seen(job, {"epoch": before + 1, "validation_force_mae_eV_per_A": None})
    assert [what[:2] for what in told] == [(before, 100), (before + 1, 100)]
