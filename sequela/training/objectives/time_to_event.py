"""When will what come next? From the state at an anchor, the rate of each of E events in each of B pieces of the time
after it: piecewise exponential, as in MOTOR (Steinberg et al. 2023, arXiv 2301.03150).

It foresees the future without predicting tokens, so it is the baseline that a joint-embedding objective must beat. Its
checkpoint has a value head: the rates, which answer tasks without any rollout. On a model that exists only the head is
trained by a stage of `only_heads`, as in stages=[{share=1, waits=1, only_heads=true}] with `init_from`.

    -ln likelihood = sum over pieces of rate x days at risk, - ln rate where the event came

Time at risk ends with the event, with death, and with the record.

Shape letters: S states, E events, B pieces, C hidden width, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sequela.errors import InputError
from sequela.model.decoder import Decoder
from sequela.model.hazards import Hazards
from sequela.training.objectives.anchors import Anchors, Records, Timed
from sequela.training.objectives.objective import Loss, Setup
from sequela.training.objectives.stages import TrainingStage
from sequela.training.objectives.term import GivenRow, Read, Term
from sequela.training.objectives.world_model import WorldModel
from sequela.training.outcomes.foreseen import foreseen_events

DAY = 24 * 60


@dataclass(frozen=True, eq=False)
class Waits:
    """How long S anchors waited for E events.

    Attributes:
        days: float32 [S, E], until the event came, or somebody stopped looking.
        came: bool [S, E], whether it came.
    """

    days: np.ndarray
    came: np.ndarray


def waits_of(
    records: Records, row: np.ndarray, anchors: Anchors, events: Sequence[Sequence[int]]
) -> Waits:
    """Of the anchors in the windows `row`, for the first of the tokens of each of E `events`."""
    patients = records.windows.patient[row][anchors.window]
    days = np.zeros((len(patients), len(events)), np.float32)
    came = np.zeros((len(patients), len(events)), bool)
    member = np.zeros((len(records.minutes_V), len(events)), bool)
    for number, tokens in enumerate(events):
        member[list(tokens), number] = True
    watched = member.any(1)
    for patient in np.unique(patients):
        record = records.timed(int(patient))
        end = _end(record)
        for number in np.flatnonzero(patients == patient):
            last = int(anchors.last[number])
            now = int(record.minutes[last]) + int(anchors.idle[number])
            later = record.ids[last + 1 :]
            token, first = np.unique(later, return_index=True)
            token, first = token[watched[token]], first[watched[token]] + last + 1
            of_token, event = np.nonzero(member[token])
            days[number] = (end - now) / DAY
            came[number, event] = True
            days[number, came[number]] = np.inf
            np.minimum.at(days[number], event, (record.minutes[first[of_token]] - now) / DAY)
    return Waits(np.maximum(days, 0), came)


def _end(record: Timed) -> float:
    """The minute until which events are waited for: death ends every wait."""
    return float(record.minutes[-1]) if np.isinf(record.until) else record.until


@dataclass(frozen=True)
class TimeToEventOptions:
    """What can be chosen."""

    edges: tuple[float, ...] = (0.0, 30.0, 180.0, 365.0, 730.0)
    """Days after an anchor on which the pieces of constant rate begin; fractions are hours."""
    events: int = 64
    """How many events are foreseen: death, the `codes`, the outcomes, and the most frequent others."""
    codes: tuple[str, ...] = ()
    """Events of their own, such as the outcomes and ends of tasks: a code, or codes with | between; a * at the end
    stands for any rest."""
    rate: float = 1.0
    """Learning rate of the rates' weights, times that of the run."""

    def __post_init__(self) -> None:
        if not self.edges or self.edges[0] != 0 or not all(np.diff(self.edges) > 0):
            raise ValueError("`edges` must rise from 0")
        if self.events < 1 or self.rate <= 0:
            raise ValueError("`events` and `rate` must be above 0")


@dataclass(frozen=True)
class WaitsBatch:
    """How long the anchors of a row waited: float32 [S, E] and bool [S, E]; and what each counts, float32 [S]."""

    days: Tensor
    came: Tensor
    weight: Tensor


class WaitsTerm(Term):
    """See the module; -ln likelihood is a mean over all moments, for which anchors stand, and events."""

    name = "waits"
    defaults = TimeToEventOptions()

    def __init__(self, decoder: Decoder, setup: Setup, options: TimeToEventOptions):
        super().__init__(decoder, setup, options)
        self.events = foreseen_events(
            setup.tokenizer, setup.counts, setup.settings.outcomes, options.codes, options.events
        )
        self.rates = Hazards(decoder.config.hidden_size, len(self.events), options.edges)
        with torch.no_grad():
            self.rates.base.copy_(torch.from_numpy(self._frequency()))

    def _frequency(self) -> np.ndarray:
        """How often each event came to the training patients, ln of times a day, float32 [E]: where rates begin."""
        setup = self.setup
        rest = 0 if setup.rest is None else int(np.maximum(setup.rest, 0).sum())
        days = max(1.0, (float(setup.counts @ setup.tokenizer.minutes_V) + rest) / DAY)
        seen = np.array([setup.counts[list(tokens)].sum() for tokens in self.events.tokens], np.float64)
        return np.log(np.maximum(seen, 0.5) / days).astype(np.float32)

    def check(self, records: Records) -> None:
        """Raises InputError if no record goes on after an anchor."""
        for patient in np.unique(records.windows.patient):
            record = records.timed(int(patient))
            if record.minutes[record.events[0]] < _end(record):
                return
        raise InputError(
            "no training patient's record goes on after its first moment, so there is nothing to wait for: tokenize "
            "records of several times, or train next tokens alone."
        )

    def collate(self, given: GivenRow) -> WaitsBatch:
        """When what comes next to the patients of a row comes."""
        waits = waits_of(given.records, given.row, given.anchors, self.events.tokens)
        moments = max(given.inputs.weight * self.setup.events_per_token, 1.0)  # of a row, about
        weight = given.anchors.drawn_of * np.float32(len(waits.days) / moments)
        days, came, weight = (torch.from_numpy(x).to(given.device) for x in (waits.days, waits.came, weight))
        return WaitsBatch(days, came, weight)

    def forward(self, batch: WaitsBatch, read: Read, stage: TrainingStage) -> Loss:
        """The loss of the waits."""
        weight, waits = stage.weight(self.name), read.state.new_zeros(())
        if weight and len(read.state):
            waits = self.rates.loss(read.state, batch.days, batch.came, batch.weight)
        return Loss(weight * waits, {self.name: waits})

    def save(self, folder: Path) -> None:
        """Write the value head."""
        self.rates.save(folder, self.events)


class TimeToEvent(WorldModel):
    """Waits for events beside next tokens."""

    name = "time_to_event"
    choice = (WaitsTerm,)
