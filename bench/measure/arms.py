"""Training objectives side by side: one decoder, one corpus, one budget of tokens."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import sequela
from sequela.training.settings import TrainSettings


@dataclass(frozen=True)
class Arm:
    """How a model is trained.

    Attributes:
        objective: its name.
        options: of the objective.
        longer: times the tokens of the other arms.
    """

    objective: str
    options: tuple[str, ...] = ()
    longer: float = 1.0


REFERENCE = "next_token"
ARMS = {
    REFERENCE: Arm("next_token"),
    "matched": Arm("next_token", longer=1.25),
    "curriculum": Arm("state_jepa", ("stages='curriculum'",)),
    "shuffled": Arm("state_jepa", ("stages='curriculum'", "shuffled=true")),
    "at_once": Arm("state_jepa", ("stages='at_once'",)),
    "jepa_only": Arm("state_jepa", ("stages='futures_only'", "watched=false")),
    "time_to_event": Arm("time_to_event"),
    "smb_faithful": Arm("smb_faithful", ("stages='curriculum'",)),
}
"""`matched` has the tokens that the CPU-seconds of `at_once` would buy; `shuffled` foresees other patients' futures."""


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        folder: its checkpoint.
        cpu_seconds: of its training, all threads.
        bits_per_token: on tuning patients.
    """

    folder: Path
    cpu_seconds: float
    bits_per_token: float


def trained(corpus: Path, out: Path, settings: TrainSettings, arm: Arm, options: tuple[str, ...] = ()) -> Trained:
    """Train, unless it has been done.

    Args:
        options: of the objective, such as horizons that suit the data, besides those of the arm.
    """
    asked = replace(settings, objective=arm.objective, options=(*arm.options, *options))
    asked = replace(asked, epochs=asked.epochs * arm.longer)
    kept = out.with_name(out.name + "-seconds.json")
    begun = time.process_time()
    sequela.train(corpus, out, settings=asked)
    if not kept.exists():
        kept.write_text(json.dumps(time.process_time() - begun), encoding="utf-8")
    tuning = json.loads((out / "train.json").read_text(encoding="utf-8"))["tuning"]
    return Trained(out, json.loads(kept.read_text(encoding="utf-8")), tuning["bits_per_token"])
