"""From histories and prediction times to imagined timelines in the MEDS schema."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import torch

from sequela.model import checkpoint
from sequela.record.codes import DEATH, FOLLOW_UP_END
from sequela.record.columns import Columns
from sequela.record.errors import InputError
from sequela.record.progress import Progress, silent
from sequela.record.store import read_events
from sequela.rollout.engine import REASONS, Prompts, Rollouts, Stop, Watch, extend
from sequela.rollout.request import Request
from sequela.rollout.sampling import seeds
from sequela.rollout.settings import SimulateSettings
from sequela.tokens.code import IN_PARTS
from sequela.tokens.decode import decode
from sequela.tokens.encode import MINUTE, encode
from sequela.tokens.interval import TIME_PREFIX
from sequela.tokens.pack import newest
from sequela.tokens.ragged import Ragged
from sequela.tokens.recode import save_maps
from sequela.tokens.tokenizer import Tokenizer

FOREVER = 100 * 525_960  # minutes: a hundred years
SHORTEST = 16  # tokens: room for demographics and the latest events


def simulate(
    model: Path,
    meds: Path,
    out: Path,
    requests: list[Request],
    settings: SimulateSettings | None = None,
    *,
    progress: Progress = silent,
) -> dict:
    """Simulate the futures of every (patient, prediction time) of the requests, one pool for all of them.

    Writes `data/0.parquet` (imagined events, MEDS columns plus prediction_time and rollout) and `rollouts.parquet` (one
    row a rollout), and copies of the code maps that the model was trained with: imagined events are in the codes that
    they lead to. Only events strictly before the prediction time enter a history.
    Raises InputError when no history has a token, or a code of a request has none.
    """
    settings = settings or SimulateSettings()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoder, tokenizer = checkpoint.load(model, device), Tokenizer.load(model)
    if decoder.config.vocabulary != tokenizer.vocabulary.hash:
        raise InputError(
            f"{model}: config.json and vocabulary.json belong to different runs (vocabulary "
            f"{decoder.config.vocabulary or 'unknown'} and {tokenizer.vocabulary.hash}): copy the right file, "
            "or train again."
        )
    if tokenizer.settings.time != "intervals":
        raise InputError(
            f"{model} was trained with time told by position, so it cannot imagine when something happens: "
            "train a model on a corpus made with --time intervals."
        )
    longest = decoder.config.context - settings.limit
    if longest < SHORTEST:
        raise InputError(
            f"{model} has a context of {decoder.config.context} tokens, which leaves {longest} for a history beside "
            f"--limit {settings.limit}: lower the limit, or train with a longer --context."
        )
    watch, stop = _watch(tokenizer, requests), _stop(tokenizer, requests, settings)
    times = pl.concat([request.times for request in requests]).unique().sort("subject_id", "prediction_time")
    asked = len(times)
    times, prompts = prompts_of(tokenizer, read_events(meds, patients=times["subject_id"]), times, longest)
    at = times["prediction_time"].to_physical().to_numpy()
    key = seeds(settings.seed, times["subject_id"].to_numpy(), at, settings.rollouts)
    rollouts = extend(
        decoder, prompts, key, tokenizer.minutes, stop, watch,
        temperature=settings.temperature, rows=settings.rows, progress=progress,
    )  # fmt: skip
    events, about = frames(tokenizer, times, prompts, rollouts, requests)
    (out / "data").mkdir()
    events.write_parquet(out / "data" / "0.parquet")
    about.write_parquet(out / "rollouts.parquet")
    summary = {
        "settings": asdict(settings),
        "vocabulary": tokenizer.vocabulary.hash,
        "maps": save_maps(tokenizer.maps, out),
        "histories": len(times),
        "without_history": asked - len(times),
        "rollouts": len(about),
        "tokens": int(about["tokens"].sum()),
        "reasons": {reason: int((about["reason"] == reason).sum()) for reason in REASONS},
    }
    (out / "simulate.json").write_text(json.dumps(summary, indent=1))
    return summary


def prompts_of(
    tokenizer: Tokenizer, events: pl.DataFrame, times: pl.DataFrame, longest: int
) -> tuple[pl.DataFrame, Prompts]:
    """Prompts of all (patient, prediction time) whose history has an event; the times that remain, sorted.

    The time that passed without an event up to the prediction time is part of what is known: whole longest intervals
    become tokens of the prompt, and the first new token must carry the clock to the prediction time or beyond.
    """
    keyed = times.with_row_index("key")
    history = keyed.join(events, on="subject_id", how="inner", maintain_order="left_right").filter(
        pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time")),
        pl.col("code") != FOLLOW_UP_END,
    )
    # Each (patient, time) is a patient of its own here.
    history = history.select(
        pl.col("key").cast(pl.Int64).alias("subject_id"), "time", "code", "numeric_value"
    )
    encoded = encode(tokenizer, Columns.of(history))
    if len(encoded.patients) == 0:
        raise InputError(
            "No history has an event before its prediction time: check the task and the dataset."
        )
    times = times[encoded.patients]
    idle = (times["prediction_time"].to_physical().to_numpy() - encoded.last) // MINUTE
    longest_token = tokenizer.vocabulary.index[tokenizer.intervals.names[-1]]
    repeats, _ = tokenizer.intervals.encode(idle)
    known = [np.append(encoded.tokens[i], [longest_token] * int(repeats[i])) for i in range(len(times))]
    rows = [newest(ids, tokenizer.head_tokens, tokenizer.carried_tokens, longest) for ids in known]
    rest = idle - repeats * tokenizer.intervals.edges[-1]
    first = np.ones((len(times), len(tokenizer.vocabulary)), bool)
    waiting = rest >= tokenizer.intervals.edges[0]
    first[waiting] = False
    classes = tokenizer.vocabulary.matching(TIME_PREFIX)
    first[:, classes] = tokenizer.intervals.upper() > rest[:, None]
    return times, Prompts(Ragged.of(rows), -rest, first)


def frames(
    tokenizer: Tokenizer, times: pl.DataFrame, prompts: Prompts, rollouts: Rollouts, requests: list[Request]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rollouts as (imagined events, one row a rollout)."""
    n = len(rollouts.tokens) // len(times)
    keys = times.select(pl.all().repeat_by(n).explode()).with_columns(
        rollout=pl.Series(np.tile(np.arange(n, dtype=np.int32), len(times)))
    )
    at = keys["prediction_time"].to_physical().to_numpy()
    start = at + np.repeat(prompts.clock, n) * MINUTE
    events, end = decode(tokenizer, rollouts.tokens, start)
    # As on the engine's clock: a first interval shorter than the time known to have passed without an event is "now".
    late = at + rollouts.clock * MINUTE - end
    events = events.with_columns(
        time=(pl.col("time").to_physical() + pl.Series(late)[events["row"]]).cast(pl.Datetime("us"))
    )
    events = events.hstack(keys[events["row"]]).select(
        "subject_id", "time", "code", "numeric_value", "prediction_time", "rollout"
    )
    about = keys.with_columns(
        end=pl.Series(at + rollouts.clock * MINUTE).cast(pl.Datetime("us")),
        reason=pl.Series([REASONS[i] for i in rollouts.reason]),
        tokens=pl.Series(rollouts.tokens.lengths.astype(np.int32)),
        **{f"scope//{request.name}": pl.Series(rollouts.hazard[:, k]) for k, request in enumerate(requests)},
    )
    return events, about


def _watch(tokenizer: Tokenizer, requests: list[Request]) -> Watch:
    horizon = [FOREVER if r.horizon_minutes is None else r.horizon_minutes for r in requests]
    return Watch(
        np.stack([_tokens(tokenizer, r.outcome, r.name) for r in requests]),
        np.stack([_tokens(tokenizer, r.ends, r.name) for r in requests]),
        np.array(horizon, np.int64),
    )


def _stop(tokenizer: Tokenizer, requests: list[Request], settings: SimulateSettings) -> Stop:
    """Stop when every request is decided: at a token that decides all, or past the longest horizon. And at death."""
    deciding = [_tokens(tokenizer, (*r.outcome, *r.ends), r.name) for r in requests]
    horizon = max(FOREVER if r.horizon_minutes is None else r.horizon_minutes for r in requests)
    death = np.array([token == DEATH for token in tokenizer.vocabulary.tokens])
    return Stop(np.logical_and.reduce(deciding) | death, horizon, settings.limit)


def _tokens(tokenizer: Tokenizer, patterns: tuple[str, ...], name: str) -> np.ndarray:
    """bool [V]: the tokens with which a code that matches one of the patterns begins.

    A hierarchical code is decided by its first part, so a pattern that asks for more than the first part is refused.
    """
    out = np.zeros(len(tokenizer.vocabulary), bool)
    for pattern in patterns:
        out |= _matching(tokenizer, pattern, name)
    return out


def _matching(tokenizer: Tokenizer, pattern: str, name: str) -> np.ndarray:
    bare, star = pattern.removesuffix("*"), pattern.endswith("*")
    parts = tokenizer.split(bare)
    in_parts = bare.partition("//")[0] in IN_PARTS and not tokenizer.settings.joint
    if in_parts and (len(parts) > 1 or not star):
        raise InputError(
            f"Task {name}: the outcome {pattern!r} is decided by more than one token; name whole categories, such as "
            f"{parts[0].replace('//1//', '//')}*."
        )
    found = np.array([code.startswith(parts[0]) if star else code == parts[0] for code in tokenizer.codes])
    if not found.any():
        raise InputError(
            f"Task {name}: no token matches {pattern!r}; the training data hold no such event, or too few "
            "patients with one."
        )
    return found
