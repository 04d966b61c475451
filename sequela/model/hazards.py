"""When events come after a state: piecewise exponential, as in MOTOR (Steinberg et al. 2023, arXiv 2301.03150).

    -ln likelihood = sum over pieces of rate x days at risk, - ln rate where the event came

An event is the first to come of a set of tokens. Beside a checkpoint lie the rates and what their events are.

Shape letters: S states, E events, B pieces, C hidden width, R rank.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sequela.errors import InputError

FILE = "hazards.safetensors"
EVENTS = "events"  # in its metadata
RARE = -8.0  # ln of a rate a day to begin with: once in eight years


@dataclass(frozen=True)
class ForeseenEvents:
    """What each of E rates is of.

    Attributes:
        names: for people.
        tokens: of each event; it has come when one of them has, for the first time.
        vocabulary: hash of the vocabulary that numbers the tokens.
    """

    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    vocabulary: str

    def __len__(self) -> int:
        return len(self.names)


class Hazards(nn.Module):
    """Rates of events a day, by piece, from states.

    Attributes:
        edges: float32 [B], the day on which each piece begins.
    """

    def __init__(self, width: int, events: int, edges: tuple[float, ...], rank: int = 32):
        super().__init__()
        self.register_buffer("edges", torch.tensor(edges, dtype=torch.float32))
        self.pieces = nn.Linear(width, len(edges) * rank)
        self.norm = nn.RMSNorm(rank)
        self.events = nn.Linear(rank, events)
        self.base = nn.Parameter(torch.full((len(edges), events), RARE))

    def forward(self, state: Tensor) -> Tensor:
        """Their natural logarithms, [S, B, E]."""
        rank = self.pieces(state).unflatten(-1, (len(self.edges), -1))
        return self.events(self.norm(rank)) + self.base

    def exposed(self, days: Tensor) -> Tensor:
        """How many of the first `days` [S, E] are in each piece, [S, B, E]."""
        begin = self.edges[:, None]
        length = torch.cat([self.edges.diff(), self.edges.new_tensor([torch.inf])])[:, None]
        return torch.minimum((days[:, None, :] - begin).clamp_min(0), length)

    def loss(self, state: Tensor, days: Tensor, came: Tensor) -> Tensor:
        """-ln likelihood of the waits `days` [S, E], in nats: the mean over S and E."""
        log_rate = self(state)
        piece = torch.searchsorted(self.edges, days, right=True).clamp_min(1) - 1
        risked = (log_rate.exp() * self.exposed(days)).sum(1)
        at_the_end = log_rate.gather(1, piece[:, None, :]).squeeze(1)
        return (risked - torch.where(came, at_the_end, 0.0)).mean()

    def risk(self, state: Tensor, days: float) -> Tensor:
        """How likely each event comes within so many days where nothing else ends the wait, [S, E]."""
        within = self.exposed(state.new_full((len(state), self.base.shape[1]), days))
        return -torch.expm1(-(self(state).exp() * within).sum(1))

    def save(self, folder: Path, events: ForeseenEvents) -> None:
        """Write the rates, and what their E events are, beside the model's checkpoint."""
        assert len(events) == self.base.shape[1], f"{len(events)} events of {self.base.shape[1]} rates"
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, folder / FILE, metadata={EVENTS: json.dumps(asdict(events))})

    @staticmethod
    def kept_in(folder: Path) -> bool:
        """Whether a checkpoint has rates."""
        return (Path(folder) / FILE).exists()

    @staticmethod
    def load(folder: Path) -> tuple[Hazards, ForeseenEvents]:
        """The rates of a checkpoint, and what their events are.

        Raises:
            InputError: if the model has none, or the file is damaged.
        """
        path = Path(folder) / FILE
        if not path.exists():
            raise InputError(
                f"{folder} has no value head: train it with the objective `time_to_event`, or simulate its futures "
                "with the estimator scope."
            )
        try:
            with safe_open(path, "pt") as file:
                names = file.keys()
                weights = {name: file.get_tensor(name).float() for name in names}
                stored = json.loads((file.metadata() or {})[EVENTS])
            tokens = tuple(tuple(int(token) for token in one) for one in stored["tokens"])
            events = ForeseenEvents(tuple(stored["names"]), tokens, stored["vocabulary"])
            pieces, count = weights["base"].shape
            rank, width = len(weights["norm.weight"]), weights["pieces.weight"].shape[1]
            rates = Hazards(width, count, (0.0,) * pieces, rank)
            rates.load_state_dict(weights)
            assert len(events.tokens) == len(events) == count
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else "its parts do not fit each other"
            raise InputError(f"{path} is damaged ({reason}): copy or train the checkpoint again.") from error
        return rates.eval(), events
