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

from sequela.model.decoder import Decoder
from sequela.model.hazards import Hazards
from sequela.tokens.packing import Windows
from sequela.training.objectives.anchors import Anchors, Records
from sequela.training.objectives.objective import Group, Loss, Setup, options
from sequela.training.objectives.reading import OverStates, RowWithStates
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
        end = record.minutes[-1] if np.isinf(record.until) else record.until  # death ends every wait
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


@dataclass(frozen=True)
class TimeToEventOptions:
    """What can be chosen."""

    edges: tuple[float, ...] = (0.0, 30.0, 180.0, 365.0, 730.0)
    """Days after an anchor on which the pieces of constant rate begin."""
    events: int = 64
    """How many kinds of events are foreseen: the outcomes, and the most frequent others."""
    tokens: float = 1.0
    """Weight of next tokens."""
    waits: float = 1.0
    """Weight of the waits for events."""
    anchors: int = 8
    """Most anchors in a window."""
    rate: float = 1.0
    """Learning rate of the rates' weights, times that of the run."""

    def __post_init__(self) -> None:
        if not self.edges or self.edges[0] != 0 or not all(np.diff(self.edges) > 0):
            raise ValueError("`edges` must rise from 0")
        if self.events < 1 or self.anchors < 1 or self.rate <= 0 or min(self.tokens, self.waits) < 0:
            raise ValueError("`events`, `anchors` and `rate` must be above 0, `tokens` and `waits` 0 or more")


@dataclass(frozen=True)
class RowWithWaits:
    """A packed row with its states, and their waits: float32 [S, E] and bool [S, E]."""

    row: RowWithStates
    days: Tensor
    came: Tensor

    @property
    def weight(self) -> float:
        """The number of predicted tokens."""
        return self.row.inputs.weight


class TimeToEvent(OverStates):
    """See the module."""

    name = "time_to_event"

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__(decoder, setup)
        self.options = options(TimeToEventOptions(), self.setup)
        self.register_buffer("events", torch.from_numpy(self._events()), persistent=False)
        self.rates = Hazards(decoder.config.hidden_size, len(self.events), self.options.edges)

    def _events(self) -> np.ndarray:
        """The tokens that are foreseen, ascending."""
        outcomes = np.flatnonzero(outcome_tokens(self.setup.tokenizer, self.setup.settings.outcomes))
        frequent = np.argsort(-self.setup.counts, kind="stable")
        frequent = frequent[self.setup.tokenizer.minutes_V[frequent] == 0]
        others = frequent[~np.isin(frequent, [*outcomes, *self.setup.tokenizer.head])]
        return np.sort(np.concatenate([outcomes, others[: max(0, self.options.events - len(outcomes))]]))

    def collate(self, windows: Windows, row: np.ndarray) -> RowWithWaits:
        """A packed row, and when what comes next to its patients comes."""
        records = Records.of(windows, self.setup.tokenizer, self.setup.rest)
        read, anchors = self.with_anchors(records, row, self.options.anchors, self.random(row))
        waits = waits_of(records, row, anchors, self.events.cpu().numpy())
        days, came = (torch.from_numpy(x).to(self.device) for x in (waits.days, waits.came))
        return RowWithWaits(read, days, came)

    def forward(self, batch: RowWithWaits) -> Loss:
        """The weighted sum of both losses; that of waits is a mean, times the weight of the row."""
        tokens, state = self.read(batch.row)
        waits = self.rates.loss(state, batch.days, batch.came) if len(state) else state.new_zeros(())
        parts = {self.unit: tokens.total.detach()} | tokens.parts
        total = self.options.tokens * tokens.total + self.options.waits * waits * batch.weight
        return Loss(total, parts | {"waits": waits.detach() * batch.weight})

    def groups(self) -> list[Group]:
        """The decoder's, and those of the rates with the state tokens."""
        return self.groups_with("rates", [self.rates, self.states], self.options.rate)

    def after_step(self, done: float) -> None:
        """Nothing changes between steps."""
