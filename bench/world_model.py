"""Does foreseeing futures beside next tokens give states that know more? Linear probes along the course of patients.

    python bench/world_model.py --work FOLDER --physionet RAW --json docs/records/world_model.json     many hours
    python bench/world_model.py --work FOLDER --data latent --seeds 0 1                                a part of it
    python bench/world_model.py --work FOLDER --quick                                                  no result

Each arm is the same decoder, trained on the same patients with the same settings and token count but for its
objective; `matched` is next tokens alone for as much longer as the dearest of the joint objectives takes. Sources:

    latent          synthetic patients whose hidden course is known, and how much of it can be known: how much of the
                    gap between next tokens and that ceiling an arm closes, for severity, velocity, and death within
                    three visits, at the third, fifth and seventh visit
    physionet2012   death in hospital and remaining stay, 6, 12, 24, 36 and 48 hours into intensive care
    nafld           the demo's four five-year questions at the index date and 1, 2 and 3 years after it

Heads are linear, fitted on training patients, chosen on tuning patients and scored on held-out ones, split by a hash of
their own. Intervals are 95 %, over patients and seeds, paired. Every finished step stays in --work and is not run
again, so sources and seeds may run side by side (--models trains without probing).

The last line is JSON, and --json keeps it: one row for each claim, and the CPU-seconds of each arm's training.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
from measure.arms import ARMS, REFERENCE, Trained, trained
from measure.latent import Cohort, answers, closed, embedded
from measure.split import SALT, split_anew

import sequela
from sequela.record.cohort import nafld
from sequela.record.dataset import read_frames
from sequela.serve.presets import Preset, preset, quick
from sequela.task.scoring.bootstrap import Estimate
from sequela.training.settings import TrainSettings

SOURCES = ("latent", "physionet2012", "nafld")
SEEDS = (0, 1, 2, 3, 4)
# What the objectives foresee, in days
FORESEEN = {
    "latent": {"state_jepa": "horizons=[0,30,60,90,120]", "time_to_event": "edges=[0,30,60,90]"},
    "physionet2012": {"state_jepa": "horizons=[0,0.25,0.5,1,2]", "time_to_event": "edges=[0,0.25,0.5,1,2,7]"},
    "nafld": {"state_jepa": "horizons=[0,180,365,730,1826]", "time_to_event": "edges=[0,180,365,730,1826]"},
}
LONGER = {"latent": 1.7, "physionet2012": 1.3, "nafld": 1.3}
"""Times the tokens of `matched`: the CPU-seconds of `at_once` over those of next tokens, rounded up."""
HOURS = (6, 12, 24, 36, 48)
YEARS = (0, 1, 2, 3)
LATENT = Preset(
    title="known course",
    tasks=(),
    limits=(),
    train=TrainSettings(
        layers=2, width=64, heads=4, kv_heads=4, head_dim=16, intermediate=256, context=256, row_tokens=2048,
        batch_tokens=4096, epochs=4.0, learning_rate=6e-3, matrix_rate=6e-3,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One source, and how it is studied."""

    source: str
    raw: Path | None
    work: Path
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    quick: bool

    @property
    def preset(self) -> Preset:
        """The settings of the demo, or for the known course its own."""
        chosen = LATENT if self.source == "latent" else preset(self.source)
        return quick(chosen) if self.quick else chosen

    @property
    def cohort(self) -> Cohort:
        """The patients whose course is known."""
        return Cohort(counts=(("train", 400), ("tuning", 200), ("held_out", 400))) if self.quick else Cohort()

    @property
    def labels(self) -> Path | None:
        """The times that are asked, if they are not so long after those of the tasks."""
        return None if self.source == "nafld" else self.work / "labels.parquet"

    @property
    def meds(self) -> Path:
        """The dataset, with its patients split anew."""
        out = self.work / "meds"
        if out.exists():
            return out
        unfinished = self.work / "meds unfinished"
        if self.source == "latent":
            self.cohort.write(unfinished, self.labels)
        elif self.source == "nafld":
            split_anew(nafld(), unfinished, SALT)
        else:
            whole = self.work / "ingested"
            sequela.ingest(self.source, str(self.raw), whole)
            split_anew(whole, unfinished, SALT)
            hours_in(unfinished).write_parquet(self.labels)
        unfinished.rename(out)
        return out

    @property
    def asked(self) -> dict:
        """What is asked when, as stages take it."""
        landmarks = tuple(f"{365 * year} days" for year in YEARS) if self.source == "nafld" else ()
        return {"task": self.preset.tasks, "landmark": landmarks, "labels": self.labels}

    def model(self, name: str, seed: int) -> Trained:
        """The model of an arm and a seed."""
        corpus, arm = self.work / "corpus", ARMS[name]
        sequela.tokenize(self.meds, corpus, settings=self.preset.tokenize)
        foreseen = FORESEEN[self.source].get(arm.objective)
        arm = replace(
            arm,
            options=(*arm.options, *([foreseen] if foreseen else [])),
            longer=LONGER[self.source] if name == "matched" else 1.0,
        )
        settings = replace(self.preset.train, seed=seed)
        return trained(corpus, self.work / f"model-{name}-{seed}", settings, arm)

    def embeddings(self, name: str, seed: int) -> Path:
        """The states of its questions."""
        out = self.work / "embeddings" / f"{name}-seed{seed}"
        out.parent.mkdir(exist_ok=True)
        sequela.embed(self.model(name, seed).folder, self.meds, out, **self.asked)
        return out


def hours_in(meds: Path) -> pl.DataFrame:
    """Questions so many hours into the stays of PhysioNet 2012, with `landmark`; the last one is that of its tasks."""
    done = pl.concat(read_frames(meds)).filter(pl.col("code") == "RECORD//48H").select("subject_id", "time")
    moments = [
        done.select(
            "subject_id",
            prediction_time=pl.col("time") - pl.duration(hours=48 - hours) + pl.duration(minutes=1),
            landmark=pl.lit(f"{hours} hours"),
        )
        for hours in HOURS
    ]
    return pl.concat(moments).sort("subject_id", "prediction_time")


@dataclass(frozen=True)
class Claim:
    """A number with its interval; this study has no thresholds."""

    words: str
    estimate: Estimate
    better: str = "higher"

    def as_dict(self) -> dict:
        """As records have it; null where it is not defined."""
        known = self.estimate.as_dict()
        return {
            "claim": self.words, **{key: known.get(key) for key in ("value", "low", "high")}, "must": None,
            "aim": None, "better": self.better, "met": None,
        }  # fmt: skip


def courses(study: Study) -> Iterator[Claim]:
    """The known course: scores, and the share of the gap between next tokens and the ceiling that each arm closes."""
    cohort = study.cohort
    told = {
        name: [answers(cohort, embedded(cohort, study.embeddings(name, seed))) for seed in study.seeds]
        for name in study.arms
    }
    told["last values"] = [answers(cohort, cohort.last_values())]
    for name, each in told.items():
        for question, metric, mine, known in closed(cohort, each, told[REFERENCE]):
            head = f"latent/{question} {metric.name}"
            if name == REFERENCE:
                yield Claim(f"{head}, ceiling", known.ceiling)
            yield Claim(f"{head}, {name}", known.model)
            if name != REFERENCE:
                yield Claim(f"{head}, {name} less {REFERENCE}", mine.gain)
                yield Claim(f"{head}, share of the gap, {name}", mine.share)


def probes(study: Study) -> tuple[list[Claim], dict]:
    """Recorded patients: scores of arms and baselines at each landmark, and differences to next tokens; and the rest of
    what the probe says."""
    first, *others = [study.embeddings(name, seed) for name in study.arms for seed in study.seeds]
    out = study.work / f"probed-{len(study.arms)}-{len(study.seeds)}"
    beside = {"also": tuple(others), "reference": REFERENCE, "baselines": not study.quick}
    sequela.probe(first, study.meds, out, **beside, **study.asked)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    claims = []
    for cell, task in metrics["tasks"].items():
        name = "auroc" if task["kind"] == "binary" else "mae"
        better = "higher" if name == "auroc" else "lower"
        for model, scores in task["models"].items():
            claims.append(Claim(f"{study.source}/{cell} {name}, {model}", estimate_of(scores[name]), better))
        for model, less in task["difference"].items():
            claims.append(Claim(f"{study.source}/{cell} {name}, {model} less {REFERENCE}", estimate_of(less), better))
    return claims, {"comparisons": metrics["comparisons"], "verdicts": verdicts(metrics), **metrics["probe"]}


def estimate_of(numbers: dict) -> Estimate:
    """From JSON."""
    return Estimate(*(np.nan if numbers.get(key) is None else numbers[key] for key in ("value", "low", "high")))


def verdicts(metrics: dict) -> dict[str, dict[str, str]]:
    """Of every arm and baseline against next tokens, corrected for the number of comparisons, by task and landmark."""
    return {
        cell: {model: less["word"] for model, less in task["difference"].items()}
        for cell, task in metrics["tasks"].items()
    }


def costs(study: Study) -> dict[str, dict[str, float]]:
    """Of every arm the mean CPU-seconds of its training, and what next tokens cost its model in bits."""
    models = {name: [study.model(name, seed) for seed in study.seeds] for name in study.arms}
    return {
        name: {
            "cpu_seconds": fmean(model.cpu_seconds for model in each),
            "bits_per_token": fmean(model.bits_per_token for model in each),
        }
        for name, each in models.items()
    }


def main(given: argparse.Namespace) -> None:
    """Run the study, and print what came of it."""
    claims: list[Claim] = []
    about: dict[str, dict] = {}
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as folder:
        for source in given.data:
            if source == "physionet2012" and given.physionet is None:
                print(f"{source} is left out: give its raw files with --physionet.")
                continue
            work = Path(folder) / (f"{source} quick" if given.quick else source)
            work.mkdir(parents=True, exist_ok=True)
            study = Study(source, given.physionet, work, tuple(given.seeds), tuple(given.arms), given.quick)
            for seed in study.seeds:
                for name in study.arms:
                    study.embeddings(name, seed)
            if given.models:
                continue
            about[source] = {"costs": costs(study)}
            if source == "latent":
                claims += courses(study)
            else:
                found, details = probes(study)
                claims += found
                about[source] |= details
    rows = [claim.as_dict() for claim in claims]
    for row in rows:
        numbers = " ".join("       -" if row[key] is None else f"{row[key]:8.3f}" for key in ("value", "low", "high"))
        print(f"{row['claim']:<84}{numbers}")
    for source, details in about.items():
        for name, cost in details["costs"].items():
            seconds, bits = cost["cpu_seconds"], cost["bits_per_token"]
            print(f"{source:<16}{name:<16}{seconds:8.0f} CPU-seconds{bits:8.3f} bits a token")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    record = {
        "name": "world_model", "command": " ".join(["python", *sys.argv]), "commit": commit,
        "machine": platform.platform(), "salt": SALT, "seeds": given.seeds, "ok": True, "rows": rows, "about": about,
        "quick": given.quick,
    }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SOURCES, default=SOURCES)
    parser.add_argument("--physionet", type=Path, help="the raw files of PhysioNet 2012")
    parser.add_argument("--work", type=Path, help="where finished steps are kept (default: a temporary folder)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--models", action="store_true", help="train and embed, but leave probes for later")
    parser.add_argument("--json", type=Path, help="also write the last line to this file")
    parser.add_argument("--quick", action="store_true", help="too little training to mean much: a look, no result")
    main(parser.parse_args())
