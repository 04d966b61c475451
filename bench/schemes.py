"""Which tokenization lets a small model predict best? Bits per event on held-out patients, scheme by scheme.

    sequela ingest physionet2012 RAW meds
    python bench/schemes.py --data meds --codes OTHER_MEDS --work FOLDER     about half an hour on two cores
    python bench/schemes.py --quick                                         synthetic data, a minute: no result

All schemes see the same events equally often, with the same decoder and optimizer, in the same number of steps: a batch
holds as many events, so the fewer tokens a scheme needs, the fewer a batch has ("same events"). With "same FLOPs" a
scheme that needs less goes on until it has spent what CoMET's spends.

Bits are those of everything that is predicted of a held-out patient, over the patient's events, in parts:
* time: the time tokens. Finer intervals cost more bits and say more, so "to the minute" adds what tells the minute once
  the interval is known (see measure/bits.py). Only that is compared between schemes.
* code: codes, age bands, demographics. Of a fused token the sum over all tokens of its code.
* value: quantiles. Of a fused token what is left.
A rotary model tells no time and pays nothing for it. Neither does it know, when it predicts a code, how long after the
event before that is; the others do. Only its code and value bits are compared.

Every finished run stays in --work and is not run again. `--codes`: another MEDS dataset of which only vocabulary and
length are shown, with joint codes too. Intervals: 95 %, patients drawn with replacement, of the difference to
CoMET's scheme, mean over the seeds. `ratio`: the bits (to the minute) of the best other scheme with time tokens over
those of CoMET's; `ok`: none is better by more than chance.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from measure import process, synthetic
from measure.bits import CODE, TIME, VALUE, bits, events_of, gaps_of, interval_of_ratio, left_open, types_of

from sequela.model import checkpoint
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.code import IN_PARTS
from sequela.tokens.ehr.settings import ETHOS_EDGES, TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.loop import train
from sequela.training.score import score
from sequela.training.settings import TrainSettings
from sequela.workers import Workers

COMET, ROTARY = "CoMET", "rotary"
SCHEMES = {
    COMET: TokenSettings(fused=False),
    "fused": TokenSettings(fused=True),
    ROTARY: TokenSettings(fused=False, time="rotary"),
    "ETHOS edges": TokenSettings(fused=False, interval_edges=ETHOS_EDGES),
    "fused, ETHOS edges": TokenSettings(fused=True, interval_edges=ETHOS_EDGES),
    "fused, rotary": TokenSettings(fused=True, time="rotary"),
}
JOINT = {"joint": TokenSettings(fused=False, joint=True), "fused, joint": TokenSettings(fused=True, joint=True)}
SAME_EVENTS, SAME_FLOPS = "same events", "same FLOPs"
CLOSE = 0.1  # a scheme that spends within a tenth of what CoMET's spends has the same FLOPs anyway


@dataclass(frozen=True)
class Study:
    """What is compared, and where the results are kept."""

    data: Path
    work: Path
    thin: int
    settings: TrainSettings
    schemes: tuple[str, ...]
    seeds: tuple[int, ...]

    def corpus(self, scheme: str, data: Path | None = None, thin: int | None = None) -> Path:
        """The corpus of a scheme, made where it is not there."""
        data, thin = data or self.data, self.thin if thin is None else thin
        out = self.work / f"corpus {data.name} {scheme} {thin}"
        if not out.exists():
            unfinished = out.with_name(f"{out.name} unfinished")
            unfinished.mkdir(exist_ok=True)
            settings = replace((SCHEMES | JOINT)[scheme], thin_minutes=thin)
            tokenize(data, unfinished, settings, workers=Workers(processes=1))
            unfinished.rename(out)
        return out

    def tokens(self, scheme: str) -> int:
        """Tokens of the training patients."""
        return about(self.corpus(scheme))["splits"]["train"]["tokens"]

    def of(self, scheme: str, seed: int, budget: str) -> TrainSettings:
        """The settings of one run: as many events a step as CoMET's has, or as many FLOPs in all."""
        ratio = self.tokens(scheme) / self.tokens(COMET)
        batch_tokens = round(ratio * self.settings.batch_tokens)
        epochs = self.settings.epochs
        if budget == SAME_FLOPS:
            own, theirs = (self.run(one, seed, SAME_EVENTS)["flops"] for one in (scheme, COMET))
            epochs *= theirs / own
        return replace(self.settings, batch_tokens=batch_tokens, epochs=epochs, seed=seed)

    def run(self, scheme: str, seed: int, budget: str) -> dict:
        """Train and score one model, where that was not done before: what was spent, and the nats of each patient."""
        kept = self.work / f"run {scheme} {seed} {budget}.json"
        if not kept.exists():
            settings, corpus = self.of(scheme, seed, budget), self.corpus(scheme)
            say(f"{scheme}, seed {seed}, {budget}: {settings.epochs:.2f} epochs")
            with tempfile.TemporaryDirectory(dir=self.work) as name:
                spent = train(corpus, Path(name), settings)
                model = checkpoint.load(Path(name))
            held_out = Corpus.load(corpus, "held_out")
            found = score(model, held_out, types_of(held_out.tokenizer))
            facts = {key: spent[key] for key in ("parameters", "steps", "tokens", "flops", "seconds")}
            body = facts | {
                "epochs": settings.epochs,
                "patients": held_out.patients.tolist(),
                "events": events_of(held_out).tolist(),
                "nats": found.nats.tolist(),
            }
            kept.with_suffix(".unfinished").write_text(json.dumps(body))
            kept.with_suffix(".unfinished").rename(kept)
        return json.loads(kept.read_text())

    def differs(self, scheme: str, seed: int) -> bool:
        """Whether a scheme spends so much less or more than CoMET's that "same FLOPs" is another run."""
        own, theirs = (self.run(one, seed, SAME_EVENTS)["flops"] for one in (scheme, COMET))
        return abs(own / theirs - 1) > CLOSE

    def done(self, scheme: str, budget: str) -> list[dict]:
        """The runs of a scheme that are finished, one for each seed."""
        seeds = [seed for seed in self.seeds if (self.work / f"run {scheme} {seed} {budget}.json").exists()]
        return [self.run(scheme, seed, budget) for seed in seeds]

    @cache  # noqa: B019
    def left_open(self, edges: tuple[int, ...]) -> np.ndarray:
        """Bits beyond the intervals of each held-out patient."""
        training, held_out = (gaps_of(Corpus.load(self.corpus(ROTARY), one)) for one in ("train", "held_out"))
        return left_open(edges, training, held_out)

    def bits(self, scheme: str, budget: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Bits of each patient by kind [S, P, 3], one row a seed, and events [P]; time is not yet to the minute."""
        runs = self.done(scheme, budget)
        if not runs:
            return None
        for one in runs:
            same = all(one[key] == runs[0][key] for key in ("patients", "events"))
            assert same, "the schemes must speak of the same events"
        return bits(np.array([one["nats"] for one in runs])), np.array(runs[0]["events"])


def about(corpus: Path) -> dict:
    """What a corpus says of itself."""
    return json.loads((corpus / "corpus.json").read_text())


def say(words: str) -> None:
    """A line for people who wait."""
    print(words, file=sys.stderr, flush=True)


def lengths(study: Study, data: Path, schemes: list[str], thin: int) -> None:
    """Vocabulary and tokens an event of each scheme on the training patients, no model needed."""
    print(f"\n{data.name}, {f'one value in {thin} minutes' if thin else 'every value'}:\n")
    print(
        "| scheme | vocabulary | events | without a token | tokens/event | of them ICD-10-CM, ATC | tokens/event |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for scheme in schemes:
        corpus = study.corpus(scheme, data, thin)
        facts = about(corpus)
        own = facts["splits"]["train"]
        lost = sum(own["dropped_events"].values())
        events, tokens = in_parts(Corpus.load(corpus, "train"))
        print(
            f"| {scheme} | {facts['tokens_in_vocabulary']:,} | {own['events']:,} | {lost:,} | "
            f"{own['tokens'] / own['events']:.3f} | {events:,} | {f'{tokens / events:.3f}' if events else ''} |",
            flush=True,
        )


def in_parts(corpus: Corpus) -> tuple[int, int]:
    """Events of the codes that are split where they are not joint, and the tokens of these codes."""
    tokenizer = corpus.tokenizer
    own = np.array([token.partition("//")[0] in IN_PARTS for token in tokenizer.vocabulary.tokens])
    times = sum(np.bincount(part.flat, minlength=len(own)) for part in corpus.tokens.parts)
    return int(times[own & np.isin(tokenizer.place, (0, 1))].sum()), int(times[own].sum())


def results(study: Study, budget: str) -> dict[str, dict]:
    """Print the table of the finished runs; scheme -> its total and its difference to CoMET's."""
    first = study.bits(COMET, SAME_EVENTS)
    if first is None:
        return {}
    base, events = first
    print(f"\n{budget}, bits per event of {len(events):,} held-out patients ({events.sum():,} events):\n")
    print(
        "| scheme | seeds | steps | TFLOP | time | to the minute | code | value | code + value | less CoMET | "
        "total, to the minute | less CoMET | between seeds |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|---|--:|")
    found = {}
    for scheme in study.schemes:
        own = first if scheme == COMET else study.bits(scheme, budget)
        if own is not None:
            assert (own[1] == events).all(), "the schemes must speak of the same events"
            runs = study.done(scheme, SAME_EVENTS if scheme == COMET else budget)
            found[scheme] = row(study, scheme, runs, own[0], base, events)
    return found


def row(
    study: Study, scheme: str, runs: list[dict], own: np.ndarray, base: np.ndarray, events: np.ndarray
) -> dict:
    """Print one line of the table."""
    settings, timed = SCHEMES[scheme], SCHEMES[scheme].time == "intervals"
    paired = min(len(own), len(base))  # the same seeds of both

    def by_patient(kinds: list[int], some: np.ndarray) -> np.ndarray:
        return some[:, :, kinds].sum(2)

    def less(kinds: list[int], extra: np.ndarray) -> tuple[float, float, float]:
        gain = by_patient(kinds, own[:paired]).mean(0) - by_patient(kinds, base[:paired]).mean(0) + extra
        return interval_of_ratio(gain, events)

    def mean(kinds: list[int]) -> float:
        return float(by_patient(kinds, own).mean(0).sum() / events.sum())

    def told(difference: tuple[float, float, float]) -> str:
        if scheme == COMET:
            return ""
        return "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference)

    coded = less([CODE, VALUE], np.zeros(len(events)))
    spread = by_patient([TIME, CODE, VALUE], own).sum(1) / events.sum()
    out = {"code_and_value": mean([CODE, VALUE]), "code_and_value_less_comet": coded}
    time = ["", "", "", ""]
    if timed:
        rest = study.left_open(settings.interval_edges)
        minute = mean([TIME]) + float(rest.sum() / events.sum())
        extra = rest - study.left_open(SCHEMES[COMET].interval_edges)
        total = less([TIME, CODE, VALUE], extra)
        out |= {"total": minute + out["code_and_value"], "total_less_comet": total}
        time = [f"{mean([TIME]):.3f}", f"{minute:.3f}", f"{out['total']:.3f}", told(total)]
    flops = np.mean([one["flops"] for one in runs]) / 1e12
    print(
        f"| {scheme} | {len(own)} | {runs[0]['steps']:,} | {flops:.2f} | {time[0]} | {time[1]} | {mean([CODE]):.3f} | "
        f"{mean([VALUE]):.3f} | {out['code_and_value']:.3f} | {told(coded)} | {time[2]} | {time[3]} | "
        f"{np.ptp(spread):.3f} |",
        flush=True,
    )
    return out


def summary(found: dict[str, dict[str, dict]]) -> dict:
    """The JSON object."""
    first = found[SAME_EVENTS]
    others = {name: one for name, one in first.items() if name != COMET and "total" in one}
    best = min(others, key=lambda name: others[name]["total"], default=None)
    ratio = others[best]["total"] / first[COMET]["total"] if best else None
    better = [name for name, one in others.items() if one["total_less_comet"][2] < 0]
    return {
        "name": "schemes",
        "ratio": ratio,
        "target": 1,
        "ok": bool(best) and not better,
        "best": best,
        "better": better,
        "bits": found,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few synthetic patients, a tiny model, one seed"
    )
    parser.add_argument("--data", type=Path, help="the MEDS dataset; none: synthetic patients")
    parser.add_argument(
        "--codes", type=Path, help="a MEDS dataset with hierarchical codes, for the lengths only"
    )
    parser.add_argument(
        "--patients", type=int, help="synthetic patients where there is no --data (default: 2000)"
    )
    parser.add_argument(
        "--work", type=Path, help="where finished runs are kept (default: a temporary folder)"
    )
    parser.add_argument("--thin", type=int, default=720, help="thin_minutes (default: 720, as the demo)")
    parser.add_argument("--depth", type=int, default=2, help="of the decoder (default: 2)")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes of 'same events' (default: 1)")
    parser.add_argument(
        "--batch-tokens", type=int, default=2048, help="of CoMET's scheme (default: 2048)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES), metavar="SCHEME")
    parser.add_argument("--without-same-flops", action="store_true", help="only 'same events'")
    parser.add_argument("--report", action="store_true", help="train nothing, print what is finished")
    return parser.parse_args()


def studied(given: argparse.Namespace, work: Path) -> Study:
    """The study that the command line asks for."""
    data = given.data
    if data is None:
        data = work / "synthetic"
        if not data.exists():
            synthetic.write(data, given.patients or (120 if given.quick else 2000))
    settings = TrainSettings(
        depth=1 if given.quick else given.depth,
        context=512,
        batch_tokens=given.batch_tokens,
        epochs=given.epochs,
        learning_rate=6e-3,
        matrix_rate=6e-3,
    )
    seeds = tuple(given.seeds[:1] if given.quick else given.seeds)
    schemes = tuple(dict.fromkeys([COMET, *given.schemes]))
    return Study(data.resolve(), work, given.thin, settings, schemes, seeds)


def main() -> None:
    """Train what is not trained yet, then print the tables and the JSON object."""
    given = arguments()
    print(f"commit {process.commit()}; {process.machine()}")
    if given.work is not None:
        given.work.mkdir(parents=True, exist_ok=True)
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as name:
        study = studied(given, Path(name).resolve())
        budgets = [SAME_EVENTS] if given.without_same_flops else [SAME_EVENTS, SAME_FLOPS]
        for budget in budgets if not given.report else []:
            for seed in study.seeds:
                for scheme in study.schemes:
                    if budget == SAME_EVENTS or study.differs(scheme, seed):
                        study.run(scheme, seed, budget)
        lengths(study, study.data, list(SCHEMES), study.thin)
        lengths(study, study.data, [*SCHEMES, *JOINT], 0)
        if given.codes is not None:
            lengths(study, given.codes.resolve(), [*SCHEMES, *JOINT], 0)
        print(f"\n{study.settings}")
        found = {budget: results(study, budget) for budget in budgets}
        print()
        print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
