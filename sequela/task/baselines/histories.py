"""What is known before each question, in the form that features are computed from: as recorded, or as tokens say it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.duration import DAY
from sequela.record.questions import QUESTION
from sequela.record.schema import BIRTH, FOLLOW_UP_END, RACE_PREFIX, SEX_PREFIX, means
from sequela.record.spelling import FEMALE, MALE, among, canonical, is_sex, meaning
from sequela.tokens.ehr.decode import decode
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.tokenizer import EhrTokenizer

PERSON = ("age", "sex", "year")
SEX = {MALE: 1.0, FEMALE: 0.0}


@dataclass(frozen=True, eq=False)
class Histories:
    """The histories of N questions.

    Attributes:
        events: `row` of the question (UInt32), `ago` (Float64, days before the prediction time; null without a date),
            `code` and `number` (Float32), each history in order of time. Birth, sex and the end of follow-up are none.
        person: float32 [N, 3], `PERSON`: age in years, sex (1 male, 0 female), calendar year; NaN if unknown.
    """

    events: pl.DataFrame
    person: np.ndarray


def as_recorded(events: pl.DataFrame, times: pl.DataFrame) -> Histories:
    """The histories strictly before the questions `times`, distinct, from sorted MEDS `events`."""
    rows = times.select(QUESTION).with_row_index("row")
    known = pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time"))
    past = (
        _one_spelling(events)
        .join(rows, on="subject_id", maintain_order="left")
        .filter(known | pl.col("code").is_in([MALE, FEMALE]))
    )
    person = _person(past, rows)
    ago = (pl.col("prediction_time") - pl.col("time")).dt.total_microseconds() / DAY
    past = past.filter(~among(past["code"], _of_the_person))
    return Histories(past.select("row", "code", ago=ago, number=pl.col("numeric_value").cast(pl.Float32)), person)


def as_tokens(tokenizer: EhrTokenizer, events: pl.DataFrame, times: pl.DataFrame) -> Histories:
    """The same histories as the model reads them: encoded as for its prompts, and decoded again.

    A value is the center of its bin, a time the mean of its interval class, an age the middle of its band; what has no
    token is not there. The time since the last event is exact, as it is for simulation.

    Args:
        events: in the codes of the dataset; the tokenizer's code maps are applied here.
    """
    from sequela.rollout.prompts import histories  # brings torch along, which nothing else here needs

    encoded = encode(tokenizer, histories(tokenizer, events, times), translated=True)
    tokens, asked = encoded.tokens, encoded.patients
    token, of = tokens.flat, np.repeat(np.arange(len(tokens)), tokens.lengths)
    minutes = tokenizer.minutes_V[token]
    if encoded.clock is not None:  # positions tell the time
        minutes = np.diff(encoded.clock.flat.astype(np.int64), prepend=0)
        minutes[tokens.offsets[:-1]] = 0
    decoded = decode(tokenizer, tokens, np.zeros(len(tokens), np.int64), minutes)
    passed = np.append(0, np.cumsum(minutes))[tokens.offsets]
    end = np.diff(passed)
    at = times["prediction_time"].to_physical().to_numpy()[asked]
    idle = np.clip((at - encoded.last) // MINUTE, 0, tokenizer.longest_gap)
    ago = (end[decoded.patient] + idle[decoded.patient] - decoded.time // MINUTE) * MINUTE / DAY
    happened = pl.DataFrame({
        "row": asked[decoded.patient], "code": decoded.frame()["code"], "ago": ago, "number": decoded.number,
    })  # fmt: skip
    names = np.array(tokenizer.vocabulary.tokens, object)
    race = np.isin(token, tokenizer.vocabulary.matching(RACE_PREFIX))
    races = pl.DataFrame({"row": asked[of[race]], "code": pl.Series(names[token[race]], dtype=pl.String)})
    person = np.full((times.height, len(PERSON)), np.nan, np.float32)
    sexes = tokenizer.vocabulary.matching(SEX_PREFIX)
    says = [
        (tokenizer.age_tokens, (np.arange(len(tokenizer.age_tokens)) + 0.5) * tokenizer.settings.age_band_years),
        (sexes, [SEX.get(canonical(name), np.nan) for name in names[sexes]]),
        (tokenizer.period_tokens, np.arange(len(tokenizer.period_tokens)) * tokenizer.settings.calendar_years),
    ]
    for column, (ids, values) in enumerate(says):
        meaning_V = np.full(len(names), np.nan)
        meaning_V[ids] = values
        stated = np.isin(token, ids)
        person[asked[of[stated]], column] = meaning_V[token[stated]]  # of several in a history, the last
    every = pl.concat([races, happened], how="diagonal")
    number = pl.col("number").cast(pl.Float32).fill_nan(None)
    return Histories(every.select(pl.col("row").cast(pl.UInt32), "code", "ago", number), person)


def _of_the_person(code: str) -> bool:
    """Whether a code is birth, end of follow-up or sex, which are no counts."""
    return means(code, BIRTH) or means(code, FOLLOW_UP_END) or is_sex(code)


def _person(past: pl.DataFrame, rows: pl.DataFrame) -> np.ndarray:
    """Years since birth at the prediction time; 1 for male, 0 for female; calendar year: float32 [N, 3]."""
    code = pl.col("code")
    sexes = code.filter(code.is_in([MALE, FEMALE]))
    known = past.group_by("row").agg(birth=pl.col("time").filter(meaning(BIRTH)).min(), sex=sexes.first())
    joined = rows.join(known, on="row", how="left", maintain_order="left")
    days = (pl.col("prediction_time") - pl.col("birth")).dt.total_microseconds() / DAY
    male = pl.col("sex").replace_strict(SEX, default=None, return_dtype=pl.Float32)
    year = pl.col("prediction_time").dt.year().cast(pl.Float32)
    return joined.select(age=days.cast(pl.Float32) / 365.25, sex=male, year=year).to_numpy()


def _one_spelling(events: pl.DataFrame) -> pl.DataFrame:
    """The events with one spelling for each code."""
    codes = events["code"].unique().drop_nulls()
    becomes = {code: canonical(code) for code in codes if canonical(code) != code}
    return events.with_columns(pl.col("code").replace(becomes)) if becomes else events
