"""Bits per event of a corpus's patients, split by what is predicted, and what the interval of a time leaves open."""

from __future__ import annotations

import math

import numpy as np

from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr import scheme
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.ragged import Ragged
from sequela.tokens.token_types import TokenTypes

NAMES = ("time", "code", "value")
TIME, CODE, VALUE = range(3)


def types_of(tokenizer: EhrTokenizer) -> TokenTypes:
    """Time tokens; codes, age and demographics; quantiles. Of a fused token the code first, then the value."""
    fine = tokenizer.types
    coarse = np.array([{scheme.TIME: TIME, scheme.VALUE: VALUE}.get(name, CODE) for name in fine.names])
    beyond = None if fine.beyond is None else np.where(fine.beyond >= 0, VALUE, -1)
    return TokenTypes(coarse[fine.token], NAMES, group=fine.group, beyond=beyond)


def events_of(corpus: Corpus) -> np.ndarray:
    """How many events with a token each patient has, int64 [P]."""
    return (
        np.add.reduceat(*_starts(corpus)).astype(np.int64) if len(corpus.patients) else np.zeros(0, np.int64)
    )


def gaps_of(corpus: Corpus) -> Ragged:
    """Minutes between an event and the one before, of each patient of a corpus whose time is rotary."""
    if corpus.clock is None:
        raise ValueError("only a corpus with time='rotary' keeps the clock")
    first = np.isin(corpus.tokenizer.place, (0, 1))
    rows = [
        np.diff(np.asarray(corpus.clock[row], np.int64)[first[np.asarray(corpus.tokens[row], np.int64)]])
        for row in range(len(corpus.patients))
    ]
    return Ragged.of(rows)


def left_open(edges: tuple[int, ...], training: Ragged, gaps: Ragged) -> np.ndarray:
    """Bits that tell the minute once the interval of each gap is known, summed over each patient, float64 [P].

    Added to the bits of the time tokens they make schemes with other edges comparable. A minute is as likely as it was
    among the training gaps of its interval; how much is set aside for minutes not seen there, evenly over the interval,
    follows from how many different ones were (Witten and Bell).
    """
    intervals = Intervals.guess(edges)
    width = np.diff(np.append(0, edges))  # of no token at all, then of each class but the longest
    seen = np.bincount(training.flat % edges[-1], minlength=edges[-1])
    kind = np.searchsorted(np.asarray(edges), np.arange(edges[-1]), side="right")
    total, different = (np.bincount(kind, weights=of, minlength=len(width)) for of in (seen, seen > 0))
    spread = np.where(total > 0, different, 1)
    chance = (seen + (spread / width)[kind]) / (total + spread)[kind]
    assert (intervals.encode(gaps.flat)[1] + 1 == kind[gaps.flat % edges[-1]]).all()
    bits = -np.log2(chance)[gaps.flat % edges[-1]]
    return np.bincount(np.repeat(np.arange(len(gaps)), gaps.lengths), weights=bits, minlength=len(gaps))


def interval_of_ratio(
    above: np.ndarray, below: np.ndarray, seed: int = 0, draws: int = 2000
) -> tuple[float, float, float]:
    """sum(above) / sum(below) over patients, and its 95 % interval when patients are drawn with replacement."""
    random = np.random.default_rng(seed)
    drawn = [random.multinomial(len(above), np.full(len(above), 1 / len(above))) for _ in range(draws)]
    found = np.array([one @ above / (one @ below) for one in drawn])
    low, high = np.quantile(found, (0.025, 0.975))
    return float(above.sum() / below.sum()), float(low), float(high)


def bits(nats: np.ndarray) -> np.ndarray:
    """Nats in bits."""
    return nats / math.log(2)


def _starts(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    first = np.isin(corpus.tokenizer.place, (0, 1))
    flat = np.concatenate([first[np.asarray(part.flat, np.int64)] for part in corpus.tokens.parts])
    lengths = corpus.tokens.lengths
    return flat.astype(np.int64), np.cumsum(lengths) - lengths
