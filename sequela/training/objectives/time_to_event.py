"""When will what come next? From the state at an anchor, the rate of each of E events in each of B pieces of the time
after it: piecewise exponential, as in MOTOR (Steinberg et al. 2023, arXiv 2301.03150).

It foresees the future without predicting tokens, so it is the baseline that a joint-embedding objective must beat. With
death among the events it also answers tasks without any rollout.

    -ln likelihood = sum over pieces of rate x days at risk, - ln rate where the event came

Time at risk ends with the event, with death, and with the record.

Shape letters: S states, E events, B pieces, C hidden width, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from sequela.training.outcomes.weight import outcome_tokens

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


def waits_of(records: Records, row: np.ndarray, anchors: Anchors, events: np.ndarray) -> Waits:
    """Of the anchors in the windows `row`; `events` int64 [E] are tokens, ascending."""
    patients = records.windows.patient[row][anchors.window]
    days = np.zeros((len(patients), len(events)), np.float32)
    came = np.zeros((len(patients), len(events)), bool)
    place = np.full(len(records.minutes_V), -1)
    place[events] = np.arange(len(events))
    for patient in np.unique(patients):
        record = records.timed(int(patient))
        end = _end(record)
        for number in np.flatnonzero(patients == patient):
            last = int(anchors.last[number])
            now = int(record.minutes[last]) + int(anchors.idle[number])
            later = record.ids[last + 1 :]
            token, first = np.unique(later, return_index=True)
            watched = place[token] >= 0
            token, first = place[token[watched]], first[watched] + last + 1
            days[number] = (end - now) / DAY
            days[number, token] = (record.minutes[first] - now) / DAY
            came[number, token] = True
    return Waits(np.maximum(days, 0), came)


def _end(record: Timed) -> float:
    """The minute until which events are waited for: death ends every wait."""
    return float(record.minutes[-1]) if np.isinf(record.until) else record.until


@dataclass(frozen=True)
class TimeToEventOptions:
    """What can be chosen."""

    edges: tuple[float, ...] = (0.0, 30.0, 180.0, 365.0, 730.0)
    """Days after an anchor on which the pieces of constant rate begin."""
    events: int = 64
    """How many kinds of events are foreseen: the outcomes, and the most frequent others."""
    rate: float = 1.0
    """Learning rate of the rates' weights, times that of the run."""

    def __post_init__(self) -> None:
        if not self.edges or self.edges[0] != 0 or not all(np.diff(self.edges) > 0):
            raise ValueError("`edges` must rise from 0")
        if self.events < 1 or self.rate <= 0:
            raise ValueError("`events` and `rate` must be above 0")


@dataclass(frozen=True)
class WaitsBatch:
    """How long the anchors of a row waited: float32 [S, E] and bool [S, E]."""

    days: Tensor
    came: Tensor


class WaitsTerm(Term):
    """See the module; -ln likelihood is a mean over anchors and events."""

    name = "waits"
    defaults = TimeToEventOptions()

    def __init__(self, decoder: Decoder, setup: Setup, options: TimeToEventOptions):
        super().__init__(decoder, setup, options)
        self.register_buffer("events", torch.from_numpy(self._events()), persistent=False)
        self.rates = Hazards(decoder.config.hidden_size, len(self.events), options.edges)

    def _events(self) -> np.ndarray:
        """The tokens that are foreseen, ascending."""
        outcomes = np.flatnonzero(outcome_tokens(self.setup.tokenizer, self.setup.settings.outcomes))
        frequent = np.argsort(-self.setup.counts, kind="stable")
        frequent = frequent[self.setup.tokenizer.minutes_V[frequent] == 0]
        others = frequent[~np.isin(frequent, [*outcomes, *self.setup.tokenizer.head])]
        return np.sort(np.concatenate([outcomes, others[: max(0, self.options.events - len(outcomes))]]))

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
        waits = waits_of(given.records, given.row, given.anchors, self.events.cpu().numpy())
        days, came = (torch.from_numpy(x).to(given.device) for x in (waits.days, waits.came))
        return WaitsBatch(days, came)

    def forward(self, batch: WaitsBatch, read: Read, stage: TrainingStage) -> Loss:
        """The loss of the waits."""
        weight, waits = stage.weight(self.name), read.state.new_zeros(())
        if weight and len(read.state):
            waits = self.rates.loss(read.state, batch.days, batch.came)
        return Loss(weight * waits, {self.name: waits})


class TimeToEvent(WorldModel):
    """Waits for events beside next tokens."""

    name = "time_to_event"
    choice = (WaitsTerm,)
