"""Do trained models give rare events their true probability? On the known world, for several optimizer settings.

    python bench/rare_events.py            all settings, five minutes on two cores
    python bench/rare_events.py --quick    the default alone, under a minute

Prints, per setting, the mean hazard of death that the model gives over the training steps, and the share of those steps
that were deaths. The last line is JSON: `ratio` is model over truth with the default settings.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sequela.model import checkpoint
from sequela.record.dataset import write_dataset
from sequela.record.schema import DEATH
from sequela.record.worlds.markov import MarkovWorld
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.loop import train
from sequela.training.settings import TrainSettings

DEFAULT = TrainSettings(
    depth=1, context=512, epochs=6, batch_tokens=4096, learning_rate=6e-3, matrix_rate=6e-3
)
VARIANTS = {
    "default": DEFAULT,
    "rates and batch of the dial": replace(DEFAULT, batch_tokens=None, learning_rate=None, matrix_rate=None),
    "second_moment=0.99": replace(DEFAULT, second_moment=0.99),
    "second_moment=0.95": replace(DEFAULT, second_moment=0.95),
    "final_rate=0.1": replace(DEFAULT, final_rate=0.1),
    "final_rate=0.1 second_moment=0.95": replace(DEFAULT, final_rate=0.1, second_moment=0.95),
    "outcome_weight=10": replace(DEFAULT, outcome_weight=10.0),
    "adamw final_rate=0.1 second_moment=0.95": replace(
        DEFAULT, optimizer="adamw", learning_rate=3e-3, final_rate=0.1, second_moment=0.95
    ),
}


def hazards(corpus: Path, model: Path) -> tuple[float, float]:
    """Mean probability of death after each time token of the training patients, and the share that were deaths."""
    data, decoder = Corpus.load(corpus, "train"), checkpoint.load(model)
    death, times = data.tokenizer.vocabulary.index[DEATH], data.tokenizer.vocabulary.matching("TIME//")
    given, happened = [], []
    with torch.no_grad():
        for row in range(1500):
            ids = np.asarray(data.tokens[row], np.int64)
            places = np.flatnonzero(np.isin(ids[:-1], times))
            given.append(decoder.logits(torch.from_numpy(ids)[None])[0].softmax(-1)[places, death].numpy())
            happened.append(ids[places + 1] == death)
    return float(np.concatenate(given).mean()), float(np.concatenate(happened).mean())


def main() -> None:
    """Train every variant and print the table."""
    chosen = {"default": DEFAULT} if "--quick" in sys.argv else VARIANTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(MarkovWorld.known().events(6000, seed=0), folder / "meds", name="known world")
        (folder / "corpus").mkdir()
        tokenize(folder / "meds", folder / "corpus")
        ratios = {}
        print(f"{'setting':<42} {'model':>8} {'truth':>8} {'ratio':>6} {'tuning bits/token':>18}")
        for number, (label, settings) in enumerate(chosen.items()):
            out = folder / str(number)
            out.mkdir()
            about = train(folder / "corpus", out, settings)
            given, true = hazards(folder / "corpus", out)
            ratios[label] = given / true
            bits = about["tuning"]["bits_per_token"]
            print(f"{label:<42} {given:>8.5f} {true:>8.5f} {given / true:>6.3f} {bits:>18.4f}", flush=True)
    ratio = ratios["default"]
    print(
        json.dumps(
            {
                "name": "rare_events",
                "ratio": ratio,
                "target": 0.95,
                "ok": 0.95 <= ratio <= 1.05,
                "all": ratios,
            }
        )
    )


if __name__ == "__main__":
    main()
