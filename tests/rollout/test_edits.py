"""Edits that the model could not see are refused, and what they change is counted."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import write_dataset
from sequela.record.edit import Edits
from sequela.record.events import Events
from sequela.rollout.edits import changed_histories, refuse_unknown, survey
from sequela.rollout.prompts import histories, prediction_times, prompts_of
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenizer import EhrTokenizer

START = datetime(2000, 1, 1)


def small() -> pl.DataFrame:
    """Twenty patients with a value of LAB//A of their own on day 0 and LAB//B on day 2."""
    rows = [
        (patient, START + timedelta(days=day), code, value)
        for patient in range(20)
        for day, code, value in [(0, "LAB//A", float(patient)), (2, "LAB//B", None), (9, "DRUG//X", None)]
    ]
    schema = {
        "subject_id": pl.Int64,
        "time": pl.Datetime("us"),
        "code": pl.String,
        "numeric_value": pl.Float32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.fixture
def fitted() -> tuple[EhrTokenizer, Grammar]:
    columns = Events.of(small())
    tokenizer = fit(columns, TokenSettings(min_patients=1))
    return tokenizer, fit_grammar(tokenizer, [encode(tokenizer, columns).tokens])


def asked(patients=range(20), days=(5,)) -> pl.DataFrame:
    rows = [(patient, START + timedelta(days=day)) for patient in patients for day in days]
    return pl.DataFrame(
        rows, schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}, orient="row"
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"add": ["LAB//AA = 1 @ 1 day"]}, r"no token for LAB//AA \(near it: LAB//A, .*\)"),
        ({"add": ["zzz @ 1 day"]}, "no token for zzz: use one it knows"),
        ({"add": ["LAB//A @ 1 day"]}, r"knows LAB//A with values: give one, such as 'LAB//A = 9.5'"),
        ({"add": ["DRUG//X = 1 @ 1 day"]}, "knows DRUG//X without values"),
        ({"set": ["DRUG//X = 1"]}, "knows DRUG//X without values"),
        ({"set": ["LAB//C = 1"]}, "no token for LAB//C"),
        ({"add": ["TIME//1d-3d @ 1 day"]}, "no token"),
        ({"add": ["GENDER//F @ 1 day"]}, "no token"),
        ({"remove": ["LAB//AA"]}, r"remove LAB//AA: the model has no token for LAB//AA \(near it: LAB//A"),
        ({"remove": ["LAB//A", "NO//SUCH @ 3 days"]}, "no token for NO//SUCH: use one it knows"),
        ({"remove": ["NO//*"]}, r"no token for NO//\*"),
        ({"remove": ["LAB//A//*"]}, r"no token for LAB//A//\*"),
        ({"remove": ["FOLLOW_UP//END"]}, "no token for FOLLOW_UP//END"),
    ],
)
def test_what_the_model_could_not_see_is_refused(fitted, words, complaint):
    with pytest.raises(InputError, match=complaint):
        refuse_unknown(fitted[0], Edits.parse(**words))


def test_what_it_can_see_is_not(fitted):
    refuse_unknown(fitted[0], Edits.parse(add=["LAB//A = 3 @ 1 day", "DRUG//X @ 1 day"], remove=["LAB//B"]))
    # what stands in no token of its own is read all the same: age, sex, race
    refuse_unknown(fitted[0], Edits.parse(remove=["LAB*", "DRUG//* @ 1 day", "MEDS_BIRTH", "Sex//female", "RACE//*"]))


def test_a_part_of_a_split_code_is_enough_to_remove_it():
    events = small().with_columns(code=pl.col("code").replace("DRUG//X", "ICD10CM//E1165"))
    tokenizer = fit(Events.of(events), TokenSettings(min_patients=1, joint=False))
    refuse_unknown(tokenizer, Edits.parse(remove=["ICD10CM//E11.9", "icd10cm/E116*", "ICD10CM//E1*", "ICD10CM//*"]))
    for code in ("ICD10CM//E10", "ICD10CM//E2*", "ICD9CM//*"):
        with pytest.raises(InputError, match="no token for"):
            refuse_unknown(tokenizer, Edits.parse(remove=[code]))


def test_a_code_that_only_begins_as_one_that_it_knows_is_refused():
    events = small().with_columns(code=pl.col("code").replace("DRUG//X", "ICD10CM//E1165"))
    tokenizer = fit(Events.of(events), TokenSettings(min_patients=1, joint=False))
    refuse_unknown(tokenizer, Edits.parse(add=["ICD10CM//E1165 @ 1 day"]))
    with pytest.raises(InputError, match="no token for ICD10CM//E1199"):
        refuse_unknown(tokenizer, Edits.parse(add=["ICD10CM//E1199 @ 1 day"]))


def test_each_edit_is_counted_over_the_shards(fitted, tmp_path):
    write_dataset(small(), tmp_path / "meds", name="small")
    edits = Edits.parse(
        remove=["NO//SUCH", "LAB//B", "DRUG//*"], set=["LAB//A = 3"], add=["DRUG//X @ 1 hour"]
    )
    # On day 1 there is no LAB//B yet, and on no day a drug
    found = survey(fitted[0], tmp_path / "meds", asked(days=(1, 5)), edits)
    assert found == {
        "remove NO//SUCH": 0,
        "remove LAB//B": 20,
        "remove DRUG//*": 0,
        "set LAB//A = 3": 40,
        "add DRUG//X @ 1 hour": 40,
    }
    with pytest.raises(InputError, match="start later"):
        survey(fitted[0], tmp_path / "meds", asked(days=(1,)), Edits.parse(add=["DRUG//X @ 2 days"]))


def test_edits_are_of_each_patient_and_time(fitted):
    """The same patient asked twice: each history is edited before its own prediction time."""
    tokenizer, grammar = fitted
    edits, times = Edits.parse(add=["DRUG//X @ 1 hour"], set=["LAB//A = 19"]), asked([3], (1, 5))
    kept, prompts = prompts_of(tokenizer, grammar, small(), times, 0, edits)
    plain, before = prompts_of(tokenizer, grammar, small(), times, 0)
    drug = tokenizer.vocabulary.index["DRUG//X"]
    assert kept.equals(times) and [ids.tolist().count(drug) for ids in prompts.ids] == [1, 1]
    assert all(drug not in ids for ids in before.ids)
    assert prompts.clock.tolist() == [-60, -60] and np.array_equal(prompts.key, before.key)
    columns = histories(tokenizer, small(), times)
    assert (columns.time < prediction_times(times, columns).repeat([1, 2])).all()
    assert changed_histories(kept, prompts, plain, before, lambda ids: ids).tolist() == [True, True]


def test_changed_is_what_the_model_reads_otherwise(fitted):
    tokenizer, grammar = fitted
    times = asked([3, 18])
    plain = prompts_of(tokenizer, grammar, small(), times, 0)

    def of(cut=lambda ids: ids, **words):
        kept, prompts = prompts_of(tokenizer, grammar, small(), times, 0, Edits.parse(**words))
        return changed_histories(kept, prompts, *plain, cut).tolist()

    assert of(remove=["NO//SUCH"]) == [False, False]
    assert of(set=["LAB//A = 18.5"]) == [True, False]  # the same bin as 18
    assert of(cut=lambda ids: ids[-1:], set=["LAB//A = 18.5"]) == [
        False,
        False,
    ]  # too long ago for the context
    assert of(remove=["LAB//B"]) == [True, True]  # also the time that has passed since
    assert of(remove=["LAB//*"]) == []  # nobody has a history left
