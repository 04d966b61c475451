from datetime import datetime

import polars as pl
import pytest
from flexible_schema import SchemaValidationError
from meds_evaluation.evaluate import evaluate_binary_classification
from meds_evaluation.schema import PredictionSchema

from sequela.errors import InputError
from sequela.task.answers.prediction import for_meds_evaluation, read_predictions, write_predictions
from sequela.task.kinds import KINDS

AT = datetime(2000, 1, 2)


def answers(**changes) -> pl.DataFrame:
    columns = {
        "subject_id": [1, 2, 3, 4],
        "prediction_time": [AT] * 4,
        "label": [1.0, 0.0, None, 1.0],
        "until_days": [3.0, 10.0, 4.5, 1.0],
        "prediction": [0.75, 0.25, 0.5, None],
    }
    return pl.DataFrame(columns | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(tmp_path, kind):
    simulated = answers(
        standard_error=[0.25, 0.5, None, None], rollouts=[4, 4, 1, 0], undecidable_rollouts=[0, 0, 3, 4]
    )
    write_predictions(simulated, kind, tmp_path / kind / "sequela.parquet")
    found, frame = read_predictions(tmp_path / kind / "sequela.parquet")
    assert found == kind
    assert frame.select(simulated.columns).to_dicts() == simulated.to_dicts()
    assert frame["lost"].to_list() == [False, False, True, False]


def test_who_has_no_answer_need_not_be_lost(tmp_path):
    decided = answers(decided=["outcome", "end", "horizon", "outcome"], label=[1.0, None, None, 7.0])
    write_predictions(decided, "value", tmp_path / "m.parquet")
    assert read_predictions(tmp_path / "m.parquet")[1]["lost"].to_list() == [False] * 4


def test_the_interval_of_a_number_is_kept(tmp_path):
    write_predictions(answers(low=[1.0] * 4, high=[2.0, None, None, 3.0]), "time", tmp_path / "m.parquet")
    frame = read_predictions(tmp_path / "m.parquet")[1]
    assert frame["high"].to_list() == [2.0, None, None, 3.0]


def test_numbers_without_a_kind_are_days(tmp_path):
    write_predictions(answers(), "count", tmp_path / "m.parquet")
    whole = pl.read_parquet(tmp_path / "m.parquet")
    whole.drop("kind", "lost", "low", "high").write_parquet(tmp_path / "m.parquet")
    kind, frame = read_predictions(tmp_path / "m.parquet")
    assert (kind, frame["lost"].to_list()) == ("time", [False, False, True, False])
    whole.with_columns(kind=pl.Series(["count", "count", "time", "time"])).write_parquet(
        tmp_path / "m.parquet"
    )
    with pytest.raises(InputError, match="in every row"):
        read_predictions(tmp_path / "m.parquet")


@pytest.mark.parametrize(("kind", "words"), [("count", "a count, 0 or more"), ("value", None)])
def test_a_value_may_be_negative_but_no_count(tmp_path, kind, words):
    write_predictions(answers(prediction=[0.75, -3.0, 0.5, None]), kind, tmp_path / "m.parquet")
    if words is None:
        assert read_predictions(tmp_path / "m.parquet")[1]["prediction"][1] == -3
    else:
        with pytest.raises(InputError, match=f"row 2: 'predicted_float_value' is -3.0; give {words}"):
            read_predictions(tmp_path / "m.parquet")


def test_a_baseline_has_no_rollouts(tmp_path):
    write_predictions(answers(), "binary", tmp_path / "trees.parquet")
    assert read_predictions(tmp_path / "trees.parquet")[1]["rollouts"].null_count() == 4


def test_meds_evaluation_takes_the_decided_rows(tmp_path):
    write_predictions(answers(), "binary", tmp_path / "trees.parquet")
    written = pl.read_parquet(tmp_path / "trees.parquet")
    accepted = for_meds_evaluation(written)
    PredictionSchema.validate(accepted.to_arrow())
    assert accepted["subject_id"].to_list() == [1, 2, 4]
    scores = evaluate_binary_classification(accepted.drop_nulls())["samples_equally_weighted"]
    assert scores["roc_auc_score"] == 1.0


def test_meds_evaluation_refuses_our_further_columns_and_the_undecidable(tmp_path):
    """The negative control, and the reason why `for_meds_evaluation` exists."""
    write_predictions(answers(), "binary", tmp_path / "trees.parquet")
    written = pl.read_parquet(tmp_path / "trees.parquet")
    with pytest.raises(SchemaValidationError, match="until_days"):
        PredictionSchema.align(written.to_arrow())


def test_any_file_in_the_schema_of_meds_evaluation_is_read(tmp_path):
    foreign = pl.DataFrame(
        {
            "subject_id": [1, 2],
            "prediction_time": [AT, AT],
            "boolean_value": [True, False],
            "predicted_boolean_probability": [0.9, 0.1],
        }
    )
    foreign.write_parquet(tmp_path / "theirs.parquet")
    kind, frame = read_predictions(tmp_path / "theirs.parquet")
    assert kind == "binary"
    assert frame["label"].to_list() == [1, 0]
    assert frame["until_days"].to_list() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prediction": [0.75, 1.25, 0.5, None]}, "row 2: 'predicted_boolean_probability' is 1.25"),
        ({"prediction": [0.75, 0.5, -0.5, None]}, "row 3"),
        ({"prediction": [float("nan"), 0.5, 0.5, None]}, "row 1"),
        ({"subject_id": [1, 2, 2, 4]}, "patient 2 at 2000-01-02 00:00:00 is predicted twice"),
    ],
)
def test_predictions_that_are_none(tmp_path, changes, words):
    write_predictions(answers(**changes), "binary", tmp_path / "m.parquet")
    with pytest.raises(InputError) as error:
        read_predictions(tmp_path / "m.parquet")
    assert words in str(error.value)
    assert "m.parquet" in str(error.value)


@pytest.mark.parametrize("column", ["subject_id", "boolean_value", "predicted_boolean_probability"])
def test_a_missing_column(tmp_path, column):
    write_predictions(answers(), "binary", tmp_path / "m.parquet")
    pl.read_parquet(tmp_path / "m.parquet").drop(column).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=f"no column '{column}'"):
        read_predictions(tmp_path / "m.parquet")
