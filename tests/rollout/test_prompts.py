from datetime import datetime, timedelta

import numpy as np
import polars as pl

from sequela.record.edit import Edits
from sequela.record.events import Events
from sequela.rollout.prompts import prompts_of
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings


def small():
    day = lambda n, minutes=0: datetime(2000, 1, 1) + timedelta(days=n, minutes=minutes)  # noqa: E731
    rows = [
        (1, day(0), "LAB//A"),
        (1, day(2), "LAB//B"),
        (1, day(9), "LAB//C"),
        (2, day(1), "LAB//A"),
        (3, day(8), "LAB//A"),
    ]
    events = pl.DataFrame(
        rows, schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String}, orient="row"
    )
    return events.with_columns(numeric_value=pl.lit(None, pl.Float32)), day


def fitted(events):
    """The tokenizer and the grammar of these events."""
    tokenizer = fit(Events.of(events), TokenSettings(min_patients=1))
    return tokenizer, fit_grammar(tokenizer, [encode(tokenizer, Events.of(events)).tokens])


def test_nothing_at_or_after_the_prediction_time_is_in_a_prompt():
    events, day = small()
    tokenizer, grammar = fitted(events)
    index = tokenizer.vocabulary.index
    times = pl.DataFrame({"subject_id": [1, 1, 3], "prediction_time": [day(2), day(2, 1), day(5)]}).cast(
        {"prediction_time": pl.Datetime("us")}
    )
    kept, prompts = prompts_of(tokenizer, grammar, events, times, 0)
    assert kept["prediction_time"].to_list() == [day(2), day(2, 1)]  # patient 3 has no history by then
    assert index["LAB//B"] not in prompts.ids[0] and index["LAB//B"] in prompts.ids[1]
    assert index["LAB//C"] not in prompts.ids.flat
    assert prompts.clock.tolist() == [-2 * 1440, -1]


def test_the_first_gap_carries_the_clock_to_the_prediction_time():
    events, day = small()
    tokenizer, grammar = fitted(events)
    names = tokenizer.vocabulary.tokens
    times = pl.DataFrame({"subject_id": [2, 2, 2], "prediction_time": [day(1, 0), day(3), day(400)]})
    times = times.with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))
    _, prompts = prompts_of(tokenizer, grammar, events, times.tail(2), 0)
    allowed = [{names[i] for i in np.flatnonzero(row)} for row in prompts.first]
    assert "TIME//1d-3d" in allowed[0] and "TIME//12h-1d" not in allowed[0] and "LAB//A" not in allowed[0]
    # 399 days: two whole half-years are in the prompt, the rest of 39 days waits.
    assert [names[i] for i in prompts.ids[1][-2:]] == ["TIME//6mo"] * 2
    assert (
        prompts.clock[1] == -39 * 1440 and "TIME//1mo-6mo" in allowed[1] and "TIME//2w-1mo" not in allowed[1]
    )
    kept, nobody = prompts_of(tokenizer, grammar, events, times.head(1), 0)
    assert len(kept) == len(nobody.ids) == 0


def test_a_question_long_after_the_last_event_has_a_bounded_prompt():
    events, day = small()
    tokenizer, grammar = fitted(events)
    times = pl.DataFrame({"subject_id": [2, 2], "prediction_time": [day(400), datetime(9000, 1, 1)]})
    _, prompts = prompts_of(tokenizer, grammar, events, times.cast({"prediction_time": pl.Datetime("us")}), 0)
    assert [int((ids == prompts.ids[1][-1]).sum()) for ids in (prompts.ids[0], prompts.ids[1])] == [2, 243]
    assert prompts.clock.tolist() == [-39 * 1440, 0]


def test_edits_are_made_before_the_prediction_time_and_no_edits_make_the_same_prompts():
    events, day = small()
    tokenizer, grammar = fitted(events)
    index = tokenizer.vocabulary.index
    times = pl.DataFrame({"subject_id": [1, 1, 2], "prediction_time": [day(2), day(9), day(3)]}).cast(
        {"prediction_time": pl.Datetime("us")}
    )
    _, plain = prompts_of(tokenizer, grammar, events, times, 0)
    _, same = prompts_of(tokenizer, grammar, events, times, 0, Edits())
    assert all(
        np.array_equal(getattr(plain, name), getattr(same, name)) for name in ("clock", "first", "key")
    )
    assert np.array_equal(plain.ids.flat, same.ids.flat)
    edits = Edits.parse(add=["LAB//C @ 1 hour"], remove=["LAB//B"])
    kept, prompts = prompts_of(tokenizer, grammar, events, times, 0, edits)
    assert kept.equals(times) and prompts.clock.tolist() == [-60] * 3
    assert [int((ids == index["LAB//C"]).sum()) for ids in prompts.ids] == [1, 1, 1]
    assert index["LAB//B"] in plain.ids[1] and index["LAB//B"] not in prompts.ids.flat


def test_an_interval_counts_with_the_share_of_its_gaps_that_are_as_long():
    """Nothing at the prediction time itself is in a history, so the gap is known to be as long, or longer."""
    events, day = small()
    more = [(4, day(0), "LAB//A"), (4, day(0, 4319), "LAB//A"), (4, day(0, 4319 + 5760), "LAB//A")]
    more = pl.DataFrame([(*row, None) for row in more], schema=events.schema, orient="row")
    tokenizer, grammar = fitted(pl.concat([events, more]))  # gaps of 1 to 3 days: 2 days, and a minute less than 3
    names = tokenizer.vocabulary.tokens
    for minutes, shortest, share in (
        (2880, "TIME//1d-3d", 1),
        (2881, "TIME//1d-3d", 0.5),
        (4319, "TIME//1d-3d", 0.5),
        (4320, "TIME//3d-1w", 1),
        (4321, "TIME//3d-1w", 1),
        (5761, "TIME//1w-2w", 1),
        (1, "TIME//1min-5min", 1),
    ):
        times = pl.DataFrame({"subject_id": [2], "prediction_time": [day(1, minutes)]})
        _, prompts = prompts_of(
            tokenizer, grammar, events, times.cast({"prediction_time": pl.Datetime("us")}), 0
        )
        weighed = {names[i]: prompts.first[0, i] for i in np.flatnonzero(prompts.first[0])}
        assert prompts.clock.tolist() == [-minutes]
        assert next(iter(weighed.items())) == (shortest, share)
        assert weighed["TIME//6mo"] == 1 and "LAB//A" not in weighed


def test_a_prompt_says_when_ages_and_periods_begin():
    events, day = small()
    born = pl.DataFrame([(1, datetime(1970, 6, 1), "MEDS_BIRTH", None)], schema=events.schema, orient="row")
    events = pl.concat([events, born]).sort("subject_id", "time")
    tokenizer, grammar = fitted(events)
    times = pl.DataFrame({"subject_id": [1, 2], "prediction_time": [day(9), day(9)]})
    _, prompts = prompts_of(tokenizer, grammar, events, times.cast({"prediction_time": pl.Datetime("us")}), 0)
    names = [tokenizer.vocabulary.tokens[token] for token in (*tokenizer.age_tokens, *tokenizer.period_tokens)]
    assert prompts.begins.shape == (2, len(names))
    thirty = prompts.begins[:, names.index("AGE//30-34")]
    birthday = (datetime(2000, 6, 1) - day(9)) // timedelta(minutes=1)
    assert abs(thirty[0] - birthday) <= 1440 and thirty[1] > 10**12
    assert (prompts.begins[:, names.index("YEAR//2000-2004")] < 0).all()
