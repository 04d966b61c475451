"""Checks edits of histories: whether the model knows the codes, whom they concern, and whom they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError, closest, coming_near
from sequela.record.dataset import read_frames
from sequela.record.edit import Edits, Removal, edited
from sequela.record.questions import QUESTION
from sequela.record.schema import BIRTH
from sequela.record.spelling import canonical, is_race, is_sex, matches_code, spelled
from sequela.rollout.engine.rollouts import Prompts
from sequela.rollout.prompts import histories, prediction_times
from sequela.tokens.ehr.code import join_parts
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import translate

SHOWN = 3  # codes that come near to one that is not known


def refuse_unknown(tokenizer: EhrTokenizer, edits: Edits) -> None:
    """Refuse edits that the model could not see, because it has no token for a code or no values for it.

    A code that the model knows with values has to be added with a value.

    Raises:
        InputError: with similar codes.
    """
    for edit in edits.in_order:
        if isinstance(edit, Removal):
            if not _reads(tokenizer, edit.code):
                raise InputError(f"{edit}: the model has no token for {edit.code}{_near(tokenizer, edit.code)}.")
            continue
        parts = tuple(tokenizer.vocabulary.tokens[token] for token in tokenizer.known(spelled(edit.code)))
        if not parts or canonical(join_parts(parts)) != canonical(edit.code):
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


def _reads(tokenizer: EhrTokenizer, pattern: str) -> bool:
    """Whether the model reads anything of an event whose code matches `pattern`; a birth is read in the ages."""
    bare = spelled(pattern.removesuffix("*"))
    if tokenizer.known(bare) or is_sex(bare) or is_race(bare) or matches_code(BIRTH, (pattern,)):
        return True
    if not pattern.endswith("*"):
        return False
    return any(matches_code(join_parts((name,)), (pattern,)) for name in tokenizer.vocabulary.tokens)


def _near(tokenizer: EhrTokenizer, code: str) -> str:
    """A hint at what may have been meant: what the code maps translate it to, or similar codes."""
    translated = translate([code], tokenizer.maps)[0][0]
    targets = [target for target in translated if target != code and tokenizer.known(target)]
    if targets:
        return f", which knows it as {' and '.join(targets)}: use that"
    names = [*tokenizer.bins.codes, *tokenizer.codes]
    hint = coming_near(closest(code, names, SHOWN, cutoff=0.5))
    return f"{hint}: use {'a code of the training data' if hint else 'one it knows'}"


def survey(tokenizer: EhrTokenizer, meds: Path, times: pl.DataFrame, edits: Edits) -> dict[str, int]:
    """In how many histories each edit finds something to do, by the edit in words.

    Reads the dataset once, so that edits that cannot be made are refused before anything is simulated.

    Args:
        times: the questions, sorted.

    Raises:
        InputError: see `sequela.record.edit.edited`.
    """
    count = np.zeros(len(edits.in_order), np.int64)
    for events in read_frames(meds, patients=times["subject_id"].unique()):
        about_them = times.filter(pl.col("subject_id").is_in(events["subject_id"].unique().implode()))
        columns = histories(tokenizer, events, about_them)
        count += edited(columns, prediction_times(about_them, columns), edits)[1].sum(1)
    return {str(edit): int(n) for edit, n in zip(edits.in_order, count, strict=True)}


def changed_histories(
    times: pl.DataFrame,
    prompts: Prompts,
    times_as_recorded: pl.DataFrame,
    as_recorded: Prompts,
    cut: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Which of P edited prompts look different to the model than the recorded ones, bool [P].

    Another value in the same bin, or an event too long ago to be in the context, makes no difference.

    Args:
        cut: a whole prompt to the tokens of it that the model reads.
    """
    index = {row: number for number, row in enumerate(times_as_recorded.select(QUESTION).iter_rows())}
    rows = [index.get(row) for row in times.select(QUESTION).iter_rows()]
    return np.array(
        [
            other is None
            or prompts.clock[row] != as_recorded.clock[other]
            or not np.array_equal(cut(prompts.ids[row]), cut(as_recorded.ids[other]))
            for row, other in enumerate(rows)
        ],
        bool,
    )
