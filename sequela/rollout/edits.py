"""Edited histories, held against what the model knows and what there was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError, closest
from sequela.record.dataset import read_frames
from sequela.record.edit import Addition, Edits, Replacement, edited
from sequela.rollout.engine.queue import Prompts
from sequela.rollout.prompts import histories, prediction_times
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import translate

KEY = ["subject_id", "prediction_time"]
SHOWN = 3  # codes that come near to one that is not known


def refuse_unknown(tokenizer: EhrTokenizer, edits: Edits) -> None:
    """Refuse edits that the model could not see: it has tokens for what is put in, and for its values.

    A code whose values the model knows is put in with one, as it has seen it.

    Raises:
        InputError: which names codes that come near.
    """
    for edit in edits.in_order:
        if not isinstance(edit, Addition | Replacement):
            continue
        parts = tokenizer.split(edit.code)
        if tuple(tokenizer.vocabulary.tokens[token] for token in tokenizer.known(edit.code)) != parts:
            raise InputError(f"{edit}: the model has no token for {edit.code}{_near(tokenizer, edit.code)}.")
        valued = edit.code in tokenizer.bins.rows
        if edit.value is not None and not valued:
            raise InputError(
                f"{edit}: the model knows {edit.code} without values: add it without one, or choose another code."
            )
        if edit.value is None and valued:
            raise InputError(
                f"{edit}: the model knows {edit.code} with values: give one, such as "
                f"'{edit.code} = {np.median(tokenizer.bins.centers[tokenizer.bins.rows[edit.code]]):.4g}'."
            )


def _near(tokenizer: EhrTokenizer, code: str) -> str:
    """Words for what may have been meant: what the code maps make of it, or names like it."""
    led = [one for one in translate([code], tokenizer.maps)[0][0] if one != code and tokenizer.known(one)]
    if led:
        return f", which speaks of it as {' and '.join(led)}: use that"
    names = [*tokenizer.bins.codes, *tokenizer.codes]
    near = closest(code, names, SHOWN, cutoff=0.5)
    return f" (near it: {', '.join(near)}): use a code of the training data" if near else ": use one it knows"


def survey(tokenizer: EhrTokenizer, meds: Path, times: pl.DataFrame, edits: Edits) -> dict[str, int]:
    """How many histories each edit finds something to do in, by the edit in words.

    Reads the dataset once, so that what cannot be done is refused before anything is simulated.

    Args:
        times: `subject_id`, `prediction_time`, sorted.

    Raises:
        InputError: see `sequela.record.edit.edited`.
    """
    count = np.zeros(len(edits.in_order), np.int64)
    for events in read_frames(meds, patients=times["subject_id"].unique()):
        own = times.filter(pl.col("subject_id").is_in(events["subject_id"].unique().implode()))
        columns = histories(tokenizer, events, own)
        count += edited(columns, prediction_times(own, columns), edits)[1].sum(1)
    return {str(edit): int(many) for edit, many in zip(edits.in_order, count, strict=True)}


def changed(
    times: pl.DataFrame,
    prompts: Prompts,
    times_as_recorded: pl.DataFrame,
    as_recorded: Prompts,
    cut: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Which of P edited prompts the model reads otherwise than as recorded, bool [P].

    Another value in the same bin, or an event that is too long ago for the context, changes nothing.

    Args:
        cut: a whole prompt to the tokens of it that the model reads.
    """
    place = {row: number for number, row in enumerate(times_as_recorded.select(KEY).iter_rows())}
    rows = [place.get(row) for row in times.select(KEY).iter_rows()]
    return np.array(
        [
            other is None
            or prompts.clock[own] != as_recorded.clock[other]
            or not np.array_equal(cut(prompts.ids[own]), cut(as_recorded.ids[other]))
            for own, other in enumerate(rows)
        ],
        bool,
    )
