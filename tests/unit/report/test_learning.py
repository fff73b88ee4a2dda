"""Learning curves, over epochs and over labels."""

from fff.report.learning import draw_error_over_labels, draw_histories, read_history

HISTORY = """epoch,wall,learning_rate,train_loss,validation_score,validation_force_mae
,s,,,,eV/Å
1,0.5,0.005,1.5,0.4,0.31
2,1.1,0.005,1.2,,
"""


def test_a_history_is_read_with_its_gaps(tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY)
    rows = read_history(tmp_path / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["validation_force_mae"] is None


def test_every_epoch_of_every_member_is_in_the_table(tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY)
    rows = read_history(tmp_path / "history.csv")
    drawn = draw_histories({"member-0": rows, "member-1": rows})
    lines = drawn.csv().splitlines()
    assert lines[2] == "member-0,1,0.5,0.005,1.5,310"
    assert lines[5] == "member-1,2,1.1,0.005,1.2,"
    assert drawn.png().startswith(b"\x89PNG")


def test_a_training_without_validation_is_drawn_all_the_same():
    row = dict.fromkeys(["wall", "learning_rate", "train_loss", "validation_force_mae"])
    assert draw_histories({"member-0": [{"epoch": 1.0, **row}]}).png().startswith(b"\x89PNG")


def test_the_error_over_labels_is_sorted_and_has_its_interval():
    def errors(mae, interval):
        return {
            "force_mae_meV_per_A": mae,
            "force_mae_interval_meV_per_A": interval,
            "mean_force_mae_meV_per_A": 800.0,
        }

    drawn = draw_error_over_labels({60: errors(50.0, [45.0, 56.0]), 20: errors(90.0, None)}, n_members=2)
    assert drawn.csv().splitlines()[2:] == ["20,90,,", "60,50,45,56"]
    assert drawn.png().startswith(b"\x89PNG")
