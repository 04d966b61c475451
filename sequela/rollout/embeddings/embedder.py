"""From histories and questions to vectors: what a model knows of a patient at a time.

One causal pass over a patient's longest history gives the vectors of all earlier questions whose history is a prefix of
it, token for token. Histories that are not, such as those of thinned records whose last window was not over, are passes
of their own, so a vector never depends on how many questions were asked. A history longer than the model's context is
read in windows that overlap: a vector knows at least the last half of a context.

Shape letters: Q questions, W windows, C hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from sequela.errors import InputError
from sequela.model import checkpoint, precision
from sequela.model.attention import packed
from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.model.states import StateTokens, idle_class
from sequela.record.duration import MINUTE
from sequela.rollout.embeddings.settings import ROW_TOKENS, EmbedSettings
from sequela.rollout.prompts import known_before
from sequela.tokens.packing import Windows, best_fit, collate, front_of
from sequela.tokens.ragged import Ragged
from sequela.tokens.text.tokenizer import reader
from sequela.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Embedder:
    """A model that reads histories.

    Attributes:
        context: tokens that it reads at once.
        states: its state tokens; None unless vectors are their hidden states.
        pooling: one of `POOLINGS`.
        precision: "bf16" or "fp32".
    """

    tokenizer: Tokenizer
    decoder: Decoder
    context: int
    states: StateTokens | None
    pooling: str
    precision: str
    row_tokens: int = ROW_TOKENS

    @staticmethod
    def load(model: Path, settings: EmbedSettings = EmbedSettings()) -> Embedder:
        """A checkpoint, or a language model from elsewhere.

        Raises:
            InputError: if it is none, or has no state tokens, or no tokens that tell time, and `pooling` asks for them.
        """
        tokenizer = reader(model, settings.text)
        decoder = checkpoint.load(model, "cuda" if torch.cuda.is_available() else "cpu")
        device = decoder.embedding.weight.device
        pooling = settings.pooling
        if pooling == "auto":
            pooling = "state" if StateTokens.kept_in(model) else "last"
        states = StateTokens.load(model).to(device) if pooling == "state" else None
        if pooling == "moment" and not tokenizer.minutes_V.any():
            raise InputError(
                f"the tokens of {model} tell no time, so there is no last moment: set pooling to last or mean."
            )
        chosen = precision.choose(settings.precision, device, decoder.config.hidden_size)
        context = min(decoder.config.context, tokenizer.longest or decoder.config.context)
        return Embedder(tokenizer, decoder, context, states, pooling, chosen, settings.row_tokens)

    def vectors(self, events: pl.DataFrame, questions: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
        """The questions whose history has a token, in their order, and their vectors, float32 [Q, C].

        Args:
            events: MEDS columns, sorted, with the patients of the questions.
            questions: sorted.
        """
        encoded = self.tokenizer.encode(known_before(events, questions))
        known = questions[encoded.patients]
        at = questions["prediction_time"].to_physical().to_numpy()[encoded.patients]
        idle = (at - encoded.last) // MINUTE
        patient = known["subject_id"].to_numpy()
        out = np.empty((len(known), self.decoder.config.hidden_size), np.float32)
        reading = HistoryWindows.of(encoded.tokens, encoded.clock, patient, self.tokenizer, self.context)
        for row in best_fit(reading.windows.lengths, max(self.row_tokens, int(reading.windows.lengths.max(initial=1)))):
            asked = [reading.asked[window] for window in row]
            which = np.concatenate(asked)
            out[which] = self._read(reading, np.array(row), idle[which]).float().cpu().numpy()
        return known, out

    @torch.no_grad()
    def _read(self, reading: HistoryWindows, row: np.ndarray, idle: np.ndarray) -> Tensor:
        """The vectors of the questions of a row of windows, in their order."""
        behind = [reading.behind[window] for window in row]
        device = self.decoder.embedding.weight.device
        batch = collate(reading.windows, row, behind=behind if self.states else None)
        ids, positions = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.positions))
        attention = packed(batch.segments, device, batch.aside)
        with computed_in(self.precision, device):
            if self.states:
                places = torch.from_numpy(np.flatnonzero(batch.aside)).to(device)
                soft = self.states.soft(places, torch.from_numpy(idle_class(idle)).to(device))
                hidden = self.decoder.hidden(ids, positions, attention, soft)
                return self.states.read(hidden, places)
            hidden = self.decoder.hidden(ids, positions, attention)[0].float()
        begin = np.cumsum(reading.windows.lengths[row]) - reading.windows.lengths[row]
        last = np.concatenate([first + places - 1 for first, places in zip(begin, behind, strict=True)])
        if self.pooling == "last":
            return hidden[torch.from_numpy(last).to(device)]
        first = np.repeat(begin, [len(places) for places in behind])
        if self.pooling == "moment":
            first = np.maximum(first, self._moment_begins(batch.ids[0])[last])
        sums = torch.cat([hidden.new_zeros(1, hidden.shape[1]), hidden.double().cumsum(0)])
        first, last = (torch.from_numpy(x).to(device) for x in (first, last))
        return (sums[last + 1] - sums[first]) / (last + 1 - first)[:, None]

    def _moment_begins(self, ids: np.ndarray) -> np.ndarray:
        """Of each token of a row, where the first token after the latest passing of time is."""
        place = np.arange(len(ids))
        return np.maximum.accumulate(np.where(self.tokenizer.minutes_V[ids] > 0, place + 1, 0)).clip(max=place)


@dataclass(frozen=True)
class HistoryWindows:
    """Which windows are read for some questions.

    Attributes:
        windows: W of them, over the longest histories.
        asked: of each window the numbers of the questions that are read in it.
        behind: of each window, behind how many of its tokens each of these stands, ascending.
    """

    windows: Windows
    asked: list[np.ndarray]
    behind: list[np.ndarray]

    @staticmethod
    def of(
        tokens: Ragged, clock: Ragged | None, patient: np.ndarray, tokenizer: Tokenizer, context: int
    ) -> HistoryWindows:
        """Of the histories `tokens` of Q questions, sorted by patient and time."""
        carriers = _carriers(tokens, patient)
        held: list[tuple[int, int, int, np.ndarray, list[int], list[int]]] = []
        for carrier, questions in carriers:
            held += _windows(carrier, questions, tokens, tokenizer, context)
        carrier, start, stop = (np.array([window[n] for window in held], np.int64) for n in range(3))
        fronts = Ragged.of([window[3] for window in held])
        windows = Windows(tokens, clock, carrier, start, stop, fronts)
        asked, behind = ([np.array(window[n], np.int64) for window in held] for n in (4, 5))
        return HistoryWindows(windows, asked, behind)


def _carriers(tokens: Ragged, patient: np.ndarray) -> list[tuple[int, list[int]]]:
    """The histories that are read, each with the questions whose history is a prefix of it, shortest first."""
    carriers: list[tuple[int, list[int]]] = []
    for number in range(len(tokens) - 1, -1, -1):
        mine = tokens[number]
        if carriers:
            carrier, questions = carriers[-1]
            longest = tokens[carrier]
            if patient[carrier] == patient[number] and np.array_equal(longest[: len(mine)], mine):
                questions.insert(0, number)
                continue
        carriers.append((number, [number]))
    return carriers


def _windows(
    carrier: int, questions: list[int], tokens: Ragged, tokenizer: Tokenizer, context: int
) -> list[tuple[int, int, int, np.ndarray, list[int], list[int]]]:
    """(carrier, start, stop, front, questions, behind) of each window, so that each question has half a context or all
    of its history before it."""
    ids = tokens[carrier]
    left, found = list(questions), []
    while left:
        stop = len(tokens[left[-1]])
        start, front = front_of(ids[:stop], tokenizer.head, tokenizer.carried, context, tokenizer.breaks)
        least = start + context // 2 if start else 0
        inside = [number for number in left if len(tokens[number]) >= least]
        behind = [len(front) + len(tokens[number]) - start for number in inside]
        found.append((carrier, start, stop, front, inside, behind))
        left = left[: len(left) - len(inside)]
    return found
