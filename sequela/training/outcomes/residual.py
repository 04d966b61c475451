"""What came over what was expected, on real records: the martingale residual.

Along a real record, a model gives at every position the hazard that the next token is an outcome. Under the truth, the
outcomes that came less the hazards summed up to their first occurrence are a martingale: their mean is 0, in every
group of positions that the past decides, such as those behind a diagnosis, an age, or a high value. So where observed
over expected is not 1, the model has not learned, or no longer remembers, what the group says. It takes no simulation:
one pass over the records of patients that the model has not seen.

Shape letters: T tokens, K outcomes, G groups, V vocabulary, N predicted tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sequela.holm import holm
from sequela.model.decoder import Decoder
from sequela.record.duration import DAY, MINUTE
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, collate
from sequela.tokens.ragged import Ragged, within
from sequela.tokens.token_types import Traits
from sequela.training.data import Sampler, inputs, padded_to, windows_of
from sequela.training.derive import ROW_TOKENS
from sequela.training.outcomes.weight import outcome_tokens

SINCE = {
    name: days * DAY // MINUTE
    for name, days in {"first day": 1, "first month": 30, "first year": 365, "first five years": 5 * 365}.items()
}
OUTCOMES, CODES = 50, 50  # the most frequent ones
RARE = 0.02  # of patients: a group is made of what more have, and more have not
EXPECTED = 5.0  # in a group and outside of it: fewer are not compared
SURE = 0.05  # chance of any false alarm
SHOWN = 5
ALIVE = 1 << 17  # tokens looked at at a time


@dataclass(frozen=True)
class Tally:
    """First occurrences and summed hazards, over all positions at risk and by group.

    Attributes:
        outcomes, groups: names, of K and of G.
        observed, expected: float64 [K].
        observed_in, expected_in: float64 [K, G].
    """

    outcomes: tuple[str, ...]
    groups: tuple[str, ...]
    observed: np.ndarray
    expected: np.ndarray
    observed_in: np.ndarray
    expected_in: np.ndarray

    def add(self, hazards: np.ndarray, came: np.ndarray, member: np.ndarray) -> None:
        """Add N positions.

        Args:
            hazards: float32 [N, K], 0 where the outcome is no longer at risk.
            came: bool [N, K], where it came for the first time.
            member: bool [N, G].
        """
        inside = member.astype(np.float32)
        self.observed[:] += came.sum(0)
        self.expected[:] += hazards.sum(0, dtype=np.float64)
        self.observed_in[:] += came.T.astype(np.float32) @ inside
        self.expected_in[:] += hazards.T @ inside


def compared(model: Decoder, data: Corpus, kinds: tuple[str, ...], patients: np.ndarray | None = None) -> dict | None:
    """Observed over expected of every frequent outcome, and the groups in which it is off, for `train.json`.

    Args:
        kinds: of events that are outcomes.
        patients: rows of the patients of the split, all unless given.

    Returns:
        See `summary`; None where the tokenizer tells no traits, or nobody has an outcome.
    """
    traits = data.tokenizer.traits
    rows = np.arange(len(data.patients)) if patients is None else np.sort(patients)
    if traits is None or not len(rows):
        return None
    outcome = outcome_tokens(data.tokenizer, kinds)
    groups = _Groups.of(data, traits, rows, outcome)
    tally, windows = groups.tally(), windows_of(data, model.config.context)
    for part in _parts(data.tokens.lengths[rows]):
        _add(tally, _Reader(model, data, windows), groups, rows[part])
    return summary(tally, len(rows)) if tally.observed.any() else None


def _parts(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Patients, so many at a time that their tokens fit."""
    number = np.cumsum(lengths) // ALIVE
    for value in np.unique(number):
        yield np.flatnonzero(number == value)


@dataclass(frozen=True)
class _Groups:
    """What is looked at: outcomes, and groups of positions.

    Attributes:
        outcomes: the categories that are outcomes, K of `traits.categories`.
        codes: the categories of which a patient may or may not have had one.
        states: those of `traits` that are looked at.
    """

    traits: Traits
    outcomes: np.ndarray
    codes: np.ndarray
    states: np.ndarray

    @staticmethod
    def of(data: Corpus, traits: Traits, rows: np.ndarray, outcome: np.ndarray) -> _Groups:
        """Frequent outcomes, codes that some patients have and others have not, and states that are told of some."""
        having = np.zeros(len(traits.categories))
        moved = np.zeros(len(traits.states))
        for part in _parts(data.tokens.lengths[rows]):
            held = _taken(data, rows[part])
            row = np.repeat(np.arange(len(held)), held.lengths)
            category = traits.category[held.flat]
            pairs = np.unique(np.stack([row, category])[:, category >= 0], axis=1)
            np.add.at(having, pairs[1], 1)
            at, state, on = _switches(held, traits)
            pairs = np.unique(np.stack([row[at], state])[:, on], axis=1)
            np.add.at(moved, pairs[1], 1)
        is_outcome = np.zeros(len(traits.categories), bool)
        is_outcome[traits.category[outcome & (traits.category >= 0)]] = True
        few = max(1.0, RARE * len(rows))
        frequent = np.argsort(-having, kind="stable")
        outcomes = [k for k in frequent if is_outcome[k] and having[k]][:OUTCOMES]
        codes = [k for k in frequent if few <= having[k] <= len(rows) - few][:CODES]
        return _Groups(traits, np.array(outcomes, np.int64), np.array(codes, np.int64), np.flatnonzero(moved >= few))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the G groups."""
        behind = (f"{self.traits.categories[code]} before" for code in self.codes)
        return (*behind, *(self.traits.states[state] for state in self.states), *SINCE, "later")

    def tally(self) -> Tally:
        """Of nothing so far."""
        kinds, size = len(self.outcomes), len(self.names)
        zeros = (np.zeros(shape) for shape in (kinds, kinds, (kinds, size), (kinds, size)))
        return Tally(tuple(self.traits.categories[k] for k in self.outcomes), self.names, *zeros)

    def members(self, rows: Ragged, minutes: np.ndarray) -> np.ndarray:
        """Which groups hold behind each token, bool [T, G]; `minutes` [T] since the start of the record."""
        traits = self.traits
        start = np.repeat(rows.offsets[:-1], rows.lengths)
        place = np.arange(len(rows.flat))
        out = np.zeros((len(rows.flat), len(self.codes) + len(self.states) + len(SINCE) + 1), bool)
        category = traits.category[rows.flat]
        for number, code in enumerate(self.codes):
            out[:, number] = _latest(place[category == code], place, start) >= 0
        at, state, on = _switches(rows, traits)
        for number, wanted in enumerate(self.states, len(self.codes)):
            mine = state == wanted
            latest = _latest(at[mine], place, start)
            out[:, number] = (latest >= 0) & np.append(on[mine], False)[latest]
        period = np.searchsorted(list(SINCE.values()), minutes, side="right")
        out[place, len(self.codes) + len(self.states) + period] = True
        return out


def _latest(at: np.ndarray, place: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The number of the last of the ascending places `at` that is at or before each place of its row; -1 for none."""
    found = np.searchsorted(at, place, side="right") - 1
    return np.where((found >= 0) & (np.append(at, -1)[found] >= start), found, -1)


def _switches(rows: Ragged, traits: Traits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where which states begin or end to hold: places in `rows.flat`, ascending; states; and whether they hold."""
    token = rows.flat.astype(np.int64)
    before = np.append(-1, token[:-1])
    before[rows.offsets[:-1][rows.lengths > 0]] = -1
    size = len(traits.category)
    keys = traits.switches[:, 0] * (size + 1) + traits.switches[:, 1] + 1
    order = np.argsort(keys, kind="stable")
    keys, states, on = keys[order], traits.switches[order, 2], traits.switches[order, 3].astype(bool)
    found = []
    for key in (token * (size + 1), token * (size + 1) + before + 1):
        first, last = np.searchsorted(keys, key, side="left"), np.searchsorted(keys, key, side="right")
        count = last - first
        entry = np.repeat(first, count) + within(count)
        found.append((np.repeat(np.arange(len(token)), count), entry))
    at, entry = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(at, kind="stable")
    return at[order], states[entry[order]], on[entry[order]]


def _taken(data: Corpus, rows: np.ndarray) -> Ragged:
    return Ragged.of([data.tokens[row] for row in rows])


def _minutes(data: Corpus, held: Ragged, rows: np.ndarray) -> np.ndarray:
    """Minutes since the start of the record at each token, int64 [T]."""
    if data.clock is not None:
        return np.concatenate([np.asarray(data.clock[row], np.int64) for row in rows])
    passed = np.cumsum(data.tokenizer.minutes_V[held.flat])
    before = np.append(0, passed)[held.offsets[:-1]]
    return passed - np.repeat(before, held.lengths)


@dataclass(frozen=True)
class _Reader:
    """A model, and the patients that it reads, in windows of its context."""

    model: Decoder
    data: Corpus
    windows: Windows

    def hazards(self, rows: np.ndarray, category: np.ndarray, outcomes: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Of these patients: batches of patients [N] (numbers in `rows`), places in their rows [N], each once, and the
        hazards of the categories `outcomes` directly behind, float32 [N, K].

        All places but a patient's last one; that too, where the record is known to go on without an event.
        """
        device, windows = self.model.embedding.weight.device, self.windows
        chosen = np.flatnonzero(np.isin(windows.patient, rows))
        of_outcome = torch.from_numpy(category[:, None] == outcomes).to(device).float()
        lengths, row_tokens = windows.lengths[chosen], max(ROW_TOKENS, self.model.config.context)
        multiple = padded_to(row_tokens, device)
        followed = windows.stop == windows.tokens.lengths[windows.patient]
        followed &= False if self.data.rest is None else self.data.rest[windows.patient] >= 0
        for step in Sampler(lengths, row_tokens, 1, int(lengths.sum())):
            row = chosen[step.rows[0]]
            batch = inputs(collate(windows, row, multiple), device)
            window, place = np.repeat(row, windows.lengths[row]), within(windows.lengths[row])
            last = place == windows.lengths[window] - 1
            kept = np.flatnonzero((place + 1 >= windows.fronts.lengths[window]) & (~last | followed[window]))
            with torch.no_grad():
                hidden = self.model.hidden(batch.ids, batch.positions, batch.attention).flatten(0, 1)
                chances = self.model.head(hidden[torch.from_numpy(kept).to(device)]).float().softmax(-1)
            window = window[kept]
            place = windows.start[window] + place[kept] - windows.fronts.lengths[window]
            yield np.searchsorted(rows, windows.patient[window]), place, (chances @ of_outcome).numpy(force=True)


def _add(tally: Tally, reader: _Reader, groups: _Groups, rows: np.ndarray) -> None:
    """Add these patients."""
    held, category = _taken(reader.data, rows), groups.traits.category
    member = groups.members(held, _minutes(reader.data, held, rows))
    came = category[held.flat][:, None] == groups.outcomes
    so_far = np.cumsum(came, 0)
    at_risk = so_far == np.repeat((so_far - came)[held.offsets[:-1]], held.lengths, axis=0)
    comes = np.append(came[1:], np.zeros((1, came.shape[1]), bool), axis=0)
    comes[held.offsets[1:] - 1] = False
    for patient, place, hazards in reader.hazards(rows, category, groups.outcomes):
        at = held.offsets[patient] + place
        tally.add(hazards * at_risk[at], comes[at] & at_risk[at], member[at])


def summary(tally: Tally, patients: int) -> dict:
    """The comparison as JSON values.

    "outcomes": of each that is expected often enough, "observed", "expected", and observed over expected as "ratio"
    with a 95 % Poisson interval, "low" and "high". "groups": the same of an outcome in a group, and its ratio in all
    others as "elsewhere", of those that are off and of the strongest of each outcome. The first are compared with 1,
    groups with their outcome elsewhere; "off" says that the difference stands Holm's test of all "comparisons".
    """
    kept = tally.expected >= EXPECTED
    outside = tally.expected[:, None] - tally.expected_in
    at = np.argwhere(kept[:, None] & (np.minimum(tally.expected_in, outside) >= EXPECTED))
    k, g = at.T
    overall = np.flatnonzero(kept)
    observed = tally.observed[overall]
    chance = _chance("pdtr", observed, tally.expected[overall])
    inside, expected = tally.observed_in[k, g], tally.expected_in[k, g]
    within_groups = _chance("bdtr", inside, tally.observed[k], expected / tally.expected[k])
    off = holm(np.concatenate([chance, within_groups])) <= SURE
    outcomes = [
        {"outcome": tally.outcomes[number], **_ratio(tally.observed[number], tally.expected[number])}
        | {"p": float(chance[i]), "off": bool(off[i])}
        for i, number in enumerate(overall)
    ]
    groups = []
    for i in np.lexsort((np.abs(np.log((inside + 0.5) / (expected + 0.5))) * -1, within_groups)):
        outcome, group = tally.outcomes[k[i]], tally.groups[g[i]]
        rest = float((tally.observed[k[i]] - inside[i]) / outside[k[i], g[i]])
        groups.append({
            "outcome": outcome, "group": group, **_ratio(inside[i], expected[i]), "elsewhere": rest,
            "p": float(within_groups[i]), "off": bool(off[len(overall) + i]),
        })  # fmt: skip
    return {
        "patients": patients,
        "comparisons": len(off),
        "outcomes": outcomes,
        "groups": [one for one in groups if one["off"]] or groups[:SHOWN],
    }


def _chance(distribution: str, observed: np.ndarray, *parameters: np.ndarray) -> np.ndarray:
    """The chance of so many or more, or of so few or less, whichever is smaller, twice.

    `distribution` is its name in scipy: "pdtr" is Poisson's, "bdtr" the binomial one.
    """
    from scipy import special  # here: many who import this compare nothing

    below, above = getattr(special, distribution), getattr(special, f"{distribution}c")
    more = np.where(observed > 0, above(np.maximum(observed - 1, 0), *parameters), 1.0)
    return np.minimum(1.0, 2 * np.minimum(below(observed, *parameters), more))


def _ratio(observed: float, expected: float) -> dict[str, float]:
    """Observed over expected with its exact 95 % Poisson interval (Garwood 1936)."""
    from scipy.special import gammaincinv

    low, high = gammaincinv(observed, 0.025) if observed else 0.0, gammaincinv(observed + 1, 0.975)
    return {
        "observed": int(observed), "expected": float(expected), "ratio": float(observed / expected),
        "low": float(low / expected), "high": float(high / expected),
    }  # fmt: skip
