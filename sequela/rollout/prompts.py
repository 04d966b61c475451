"""Prompts: a patient's history up to the prediction time, as tokens."""

from __future__ import annotations

import numpy as np
import polars as pl

from sequela.record.edit import NO_EDITS, Edits, edited
from sequela.record.events import Events, births
from sequela.record.schema import FOLLOW_UP_END, TEXT
from sequela.record.spelling import among, is_sex, meaning
from sequela.rollout.clock.calendar import begin_minutes
from sequela.rollout.engine.rollouts import Prompts
from sequela.rollout.engine.sampling import keys
from sequela.tokens.ehr.clock import TIME_PREFIX
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.ragged import Ragged


def prompts_of(
    tokenizer: EhrTokenizer,
    grammar: Grammar,
    events: pl.DataFrame,
    times: pl.DataFrame,
    seed: int,
    edits: Edits = NO_EDITS,
) -> tuple[pl.DataFrame, Prompts]:
    """The questions whose history has an event, in their order, and their prompts.

    Only events strictly before the prediction time are in a history. That nothing happened between the last event and
    the prediction time is known too: the prompt ends with as many of the longest time interval as fit in between, and
    the first new token must carry the clock to the prediction time or beyond. An interval's probability counts with the
    share of its gaps that are as long; how long the gap then is, see `sequela.rollout.clock.minutes`.

    Args:
        events: MEDS columns, sorted, with the patients of the questions.
        times: the questions, sorted.
        seed: of the rollouts.
        edits: made to each history first, in the codes that the tokenizer knows.

    Raises:
        InputError: see `sequela.record.edit.edited`.
    """
    columns = histories(tokenizer, events, times)
    if edits:
        columns, _ = edited(columns, prediction_times(times, columns), edits)
    encoded = encode(tokenizer, columns, translated=True)
    times = times[encoded.patients]
    at = times["prediction_time"].to_physical().to_numpy()
    idle = np.minimum((at - encoded.last) // MINUTE, tokenizer.longest_gap)
    longest_token = tokenizer.vocabulary.index[tokenizer.intervals.names[-1]]
    repeats, _ = tokenizer.intervals.encode(idle)
    known = [np.append(encoded.tokens[i], [longest_token] * int(repeats[i])) for i in range(len(times))]
    rest = idle - repeats * tokenizer.intervals.edges[-1]
    first = np.ones((len(times), len(tokenizer.vocabulary)), np.float16)  # shares of 256 gaps are exact
    first[rest >= tokenizer.intervals.edges[0]] = 0
    classes = tokenizer.vocabulary.matching(TIME_PREFIX)
    first[:, classes] = tokenizer.intervals.survival(rest - 1)  # the gap is as long as the rest, or longer
    born = births(columns)[np.searchsorted(columns.patient[columns.starts], encoded.patients)]
    ids = Ragged.of(known)
    _, bits = grammar.states(ids)
    key = keys(seed, times["subject_id"].to_numpy(), at)
    return times, Prompts(
        ids, key, first=first, bits=bits, clock=-rest, begins=begin_minutes(tokenizer, born, at)
    )


def histories(tokenizer: EhrTokenizer, events: pl.DataFrame, times: pl.DataFrame) -> Events:
    """What was known before each question, in the codes that the tokenizer knows; see `known_before`."""
    return tokenizer.translated(known_before(events, times))


def known_before(events: pl.DataFrame, times: pl.DataFrame) -> Events:
    """What was known before each question: events strictly before its time, whatever the day.

    Each question counts as a patient of its own here, whose id is its row in `times`.
    """
    keyed = times.with_row_index("key")
    sex = among(events["code"], is_sex)  # known from birth, whenever it was written down
    history = keyed.join(events, on="subject_id", how="inner", maintain_order="left_right").filter(
        pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time")) | sex, ~meaning(FOLLOW_UP_END)
    )
    if not history.filter(sex & pl.col("time").is_not_null()).is_empty():
        history = history.with_columns(time=pl.when(~sex).then("time"))
        history = history.sort("key", "time", nulls_last=False, maintain_order=True)
    text = [TEXT] if TEXT in history.columns else []
    key = pl.col("key").cast(pl.Int64).alias("subject_id")
    return Events.of(history.select(key, "time", "code", "numeric_value", *text))


def prediction_times(times: pl.DataFrame, columns: Events) -> np.ndarray:
    """The prediction time of each patient of `histories`, int64 [P] microseconds."""
    return times["prediction_time"].to_physical().to_numpy()[columns.patient[columns.starts]]
