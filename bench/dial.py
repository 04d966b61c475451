"""Are the rates and the batch that the dial derives near the best ones? Small runs on real patients around them.

    python bench/dial.py                                the bundled cohort, two sizes, a quarter of an hour on one core
    python bench/dial.py --corpus CORPUS --depths 1 2   another corpus
    python bench/dial.py --quick                        one size and three rates, under a minute

Each size is trained on --tokens tokens as the dial says, with rates from a quarter to four times as high, and with
other batches, whose rates follow by the dial's rule. The last line is JSON: `ratio` is the loss of the dial over the
best loss found, for the size where it is worst.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import sequela
from sequela.record.cohort import nafld
from sequela.tokens.corpus import Corpus
from sequela.training.data import windows_of
from sequela.training.derive import context_of, resolve
from sequela.training.loop import train
from sequela.training.settings import TrainSettings

DIAL = "as the dial says"
RATES = {"rates / 4": 0.25, "rates / 2": 0.5, DIAL: 1.0, "rates x 2": 2.0, "rates x 4": 4.0}
QUICK = {"rates / 2": 0.5, DIAL: 1.0, "rates x 2": 2.0}
BATCHES = {"batch / 2": 0.5, "batch x 2": 2.0, "batch x 4": 4.0}


def variants(corpus: Path, asked: TrainSettings, *, quick: bool) -> dict[str, TrainSettings]:
    """The dial's settings, and those around them."""
    data = Corpus.load(corpus, "train")
    sizes = len(data.tokenizer.vocabulary), int(windows_of(data, context_of(asked)).lengths.sum())
    centre = resolve(asked, *sizes).settings
    found = {
        name: replace(
            centre, learning_rate=factor * centre.learning_rate, matrix_rate=factor * centre.matrix_rate
        )
        for name, factor in (QUICK if quick else RATES).items()
    }
    for name, factor in ({} if quick else BATCHES).items():
        other = replace(asked, batch_tokens=round(factor * centre.batch_tokens))
        if other.batch_tokens >= centre.context:
            found[name] = resolve(other, *sizes).settings
    return found


def losses(corpus: Path, asked: TrainSettings, work: Path, *, quick: bool) -> dict[str, float]:
    """Tuning bits per token of each variant; prints a row for each."""
    found = {}
    for name, settings in variants(corpus, asked, quick=quick).items():
        with tempfile.TemporaryDirectory(dir=work) as out:
            about = train(corpus, Path(out), settings)
        found[name] = about["tuning"]["bits_per_token"]
        print(
            f"{asked.depth:>5} {about['tokens']:>10,} {name:<18} {settings.batch_tokens:>7,} {about['steps']:>6,} "
            f"{settings.matrix_rate:>8.2g} {found[name]:>8.4f} {about['seconds']:>6.0f}",
            flush=True,
        )
    return found


def main() -> None:
    """Train every variant and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, help="a folder of sequela tokenize; the bundled cohort's if not given"
    )
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=float, default=5e5, help="of each run")
    parser.add_argument("--quick", action="store_true", help="one small size, three rates")
    given = parser.parse_args()
    if given.quick:
        given.depths, given.tokens = [1], 3e5
    with tempfile.TemporaryDirectory() as name:
        corpus = given.corpus or Path(name) / "corpus"
        if given.corpus is None:
            sequela.tokenize(nafld(), corpus)
        print("depth     tokens variant              batch  steps     rate bits/tok      s")
        found = {
            depth: losses(
                corpus,
                TrainSettings(depth=depth, tokens=given.tokens, precision="fp32"),
                Path(name),
                quick=given.quick,
            )
            for depth in given.depths
        }
    ratio = max(one[DIAL] / min(one.values()) for one in found.values())
    print(json.dumps({"name": "dial", "ratio": ratio, "target": 1.02, "ok": ratio <= 1.02, "all": found}))


if __name__ == "__main__":
    main()
