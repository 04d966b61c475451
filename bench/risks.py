"""How right are simulated risks? Several training seeds on a split of its own, beside tuned baselines.

    python bench/risks.py --work FOLDER --physionet RAW --json docs/records/risks.json      hours on two cores
    python bench/risks.py --work FOLDER --data nafld --seeds 0 1                            one source, fewer seeds
    python bench/risks.py --work FOLDER --quick                                             a minute: no result
    python bench/risks.py --work FOLDER --development --config FILE     other settings, on patients to choose them with

Patients are split anew by a hash of their number and `--salt`: what was chosen while the package was built was chosen
with other held-out patients in view. For each seed a model is trained, its risks are recalibrated on tuning patients,
and the held-out patients are simulated, with the settings of the demo but 60 futures on NAFLD; what the first 16, the
demo's number, are worth is a row too. The mean of the seeds' risks is a model of its own, with intervals over patients
and seeds. NAFLD is simulated once more for ten years, with few rollouts, for the calibration of other horizons. Every
finished step stays in --work and is not run again.

--development leaves the held-out patients out and splits the others once more, to choose settings without a look at
those whose scores are published; --config is a TOML file with sections tokenize, train and simulate.

The last line is JSON, and --json keeps it: one row for each claim. `value` is the mean over the single models unless
the claim says "mean risk"; `low` and `high` are then the lowest and the highest of them, and for the mean risk the 95 %
interval over patients and seeds. `must` and `aim` are thresholds, or null; `met` says whether the value reaches `must`.
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

import yaml
from measure.split import SALT, split_anew

import sequela
from sequela.record.cohort import nafld
from sequela.serve.presets import Preset, preset, quick, with_file
from sequela.task.answers.prediction import SIMULATION, recalibrated_name
from sequela.task.catalog import CATALOG

HORIZONS = {"90d": "90 days", "1y": "1 year", "2y": "2 years", "10y": "10 years"}
FUTURES = 60  # of each patient on NAFLD; the demo has fewer, to be done within minutes
ENOUGH = 5  # rollouts for the sum of all patients' risks
TENTH = (0.85, 1.15)
MUST = {
    ("death_5y", "auroc"): (0.870, None),
    ("new_diabetes_5y", "auroc"): (0.735, None),
    ("new_hypertension_5y", "auroc"): (0.750, None),
    ("new_cardiovascular_5y", "auroc"): (0.785, None),
    ("in_hospital_death", "auroc"): (0.840, 0.855),
    ("in_hospital_death", "oe"): ((0.9, 1.1), None),
    ("remaining_stay", "mae"): (6.70, 6.50),
}
RECALIBRATED = recalibrated_name("logistic")
BEST = 0.01  # of the best baseline's AUROC: the aim


@dataclass(frozen=True)
class Study:
    """One source, and how it is studied."""

    source: str
    raw: Path | None
    work: Path
    salt: str
    seeds: tuple[int, ...]
    quick: bool
    development: bool
    config: Path | None

    @property
    def preset(self) -> Preset:
        """The settings of the demo with more futures, or others."""
        chosen = preset(self.source)
        if self.source == "nafld":
            chosen = replace(chosen, simulate=replace(chosen.simulate, rollouts=FUTURES))
        if self.config:
            chosen = with_file(chosen, self.config)
        return quick(chosen) if self.quick else chosen

    @property
    def meds(self) -> Path:
        """The dataset, with its patients split anew."""
        out = self.work / "meds"
        if not out.exists():
            whole = nafld()
            if self.source != "nafld":
                whole = self.work / "ingested"
                sequela.ingest(self.source, str(self.raw), whole)
            unfinished = self.work / "meds unfinished"
            split_anew(whole, unfinished, self.salt, development=self.development)
            unfinished.rename(out)
        return out

    def model(self, seed: int) -> Path:
        """The model of a seed, trained."""
        corpus, out = self.work / "corpus", self.work / f"model-{seed}"
        sequela.tokenize(self.meds, corpus, settings=self.preset.tokenize)
        sequela.train(corpus, out, settings=replace(self.preset.train, seed=seed))
        return out

    def answers(self, seed: int, tasks: tuple[str, ...], name: str, rollouts: int) -> Path:
        """The scores of a seed's risks, raw and recalibrated."""
        asked = {"task": tasks, "settings": replace(self.preset.simulate, seed=seed, rollouts=rollouts)}
        model, patients = self.model(seed), self.preset.patients
        calibration = self.work / f"calibration-{name}-{seed}"
        sequela.calibrate(model, self.meds, calibration, **asked)
        simulated = self.work / f"simulated-{name}-{seed}"
        sequela.simulate(model, self.meds, simulated, patients=patients, **asked)
        predictions, out = self.work / f"predictions-{name}-{seed}", self.work / f"evaluation-{name}-{seed}"
        sequela.predict(simulated, self.meds, predictions, calibration=calibration, baselines=False, **asked)
        sequela.evaluate(predictions, out)
        return out / "metrics.json"

    def fewer(self, seed: int) -> Path | None:
        """The scores of as many of a seed's futures as the demo has; None if it has all."""
        futures = preset(self.source).simulate.rollouts
        if futures >= self.preset.simulate.rollouts:
            return None
        simulated = self.work / f"simulated-{self.source}-{seed}"
        predictions, out = self.work / f"predictions-fewer-{seed}", self.work / f"evaluation-fewer-{seed}"
        sequela.predict(
            simulated, self.meds, predictions, task=self.preset.tasks, seed=seed, rollouts=futures, baselines=False
        )
        sequela.evaluate(predictions, out)
        return out / "metrics.json"

    def together(self, tasks: tuple[str, ...]) -> Path:
        """The scores of the mean of the seeds' risks, beside the baselines."""
        first, *others = (self.work / f"simulated-{self.source}-{seed}" for seed in self.seeds)
        predictions, out = self.work / "predictions", self.work / "evaluation"
        asked = {"task": tasks, "settings": replace(self.preset.simulate, seed=self.seeds[0])}
        sequela.predict(first, self.meds, predictions, also=tuple(others), **asked)
        sequela.evaluate(predictions, out)
        return out / "metrics.json"

    def horizons(self) -> tuple[str, ...]:
        """Task files for other horizons than five years."""
        folder = self.work / "tasks"
        folder.mkdir(exist_ok=True)
        for name in self.preset.tasks:
            fields = yaml.safe_load((CATALOG / f"{name}.yaml").read_text(encoding="utf-8"))
            for word, horizon in HORIZONS.items():
                other = {**fields, "name": name.replace("5y", word), "horizon": horizon}
                (folder / f"{other['name']}.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
        return tuple(str(path) for path in sorted(folder.glob("*.yaml")))


@dataclass(frozen=True)
class Row:
    """A claim."""

    claim: str
    values: tuple[float, ...]
    must: float | tuple[float, float] | None = None
    aim: float | tuple[float, float] | None = None
    better: str = "higher"
    span: tuple[float, float] | None = None

    def as_dict(self) -> dict:
        """As records have it; between two thresholds, `met` says whether the value lies between them."""
        value = fmean(self.values)
        low, high = self.span or (min(self.values), max(self.values))
        return {
            "claim": self.claim, "value": value, "low": low, "high": high, "must": self.must, "aim": self.aim,
            "better": self.better, "met": None if self.must is None else reaches(value, self.must, self.better),
            "each": list(self.values),
        }  # fmt: skip


def reaches(value: float, threshold: float | tuple[float, float], better: str) -> bool:
    """Whether a value is as good as a threshold, or lies between two."""
    if isinstance(threshold, tuple):
        return threshold[0] <= value <= threshold[1]
    return value >= threshold if better == "higher" else value <= threshold


def scores(path: Path, name: str = "") -> dict:
    """The tasks of a metrics.json, or one of them."""
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    return tasks[name] if name else tasks


def rows_of(study: Study) -> Iterator[Row]:
    """Run what is not there yet, and say what came of it."""
    tasks = study.preset.tasks
    singles = [study.answers(seed, tasks, study.source, study.preset.simulate.rollouts) for seed in study.seeds]
    together = study.together(tasks)
    fewer = [path for path in map(study.fewer, study.seeds) if path]
    for task in tasks:
        found = [scores(path, task)["models"] for path in singles]
        models = scores(together, task)["models"]
        headline = "auroc" if "auroc" in models[SIMULATION] else "mae"
        better = "higher" if headline == "auroc" else "lower"
        rivals = {
            name: score[headline]["value"]
            for name, score in models.items()
            if not name.startswith(SIMULATION)
        }
        best = (max if better == "higher" else min)(rivals.values())
        must, aim = MUST.get((task, headline), (None, None))
        if aim is None and headline == "auroc":
            aim = best - BEST
        head = f"{study.source}/{task}"
        yield Row(f"{head} {headline}", each(found, SIMULATION, headline), must, aim, better)
        mean = models[SIMULATION][headline]
        yield Row(
            f"{head} {headline}, mean risk", (mean["value"],), must, aim, better, (mean["low"], mean["high"])
        )
        if fewer:
            demo = [scores(path, task)["models"] for path in fewer]
            futures = preset(study.source).simulate.rollouts
            yield Row(f"{head} {headline}, {futures} futures", each(demo, SIMULATION, headline), better=better)
        for name in rivals:
            rival = models[name][headline]
            span = rival["low"], rival["high"]
            yield Row(f"{head} {headline}, {name}", (rival["value"],), better=better, span=span)
        if headline == "auroc":
            yield from calibration_of(task, head, found, {name: models[name] for name in (SIMULATION, *rivals)})
    if study.source == "nafld":
        yield from other_horizons(study)


def calibration_of(task: str, head: str, found: list[dict], models: dict) -> Iterator[Row]:
    """O/E and slope of the single models, raw and recalibrated, and of `models`: the mean risk and the baselines."""
    for metric, words in (("oe", "O/E"), ("calibration_slope", "slope")):
        must, _ = MUST.get((task, metric), (TENTH if head.startswith("nafld") else None, None))
        yield Row(f"{head} {words}", each(found, SIMULATION, metric), better="near 1")
        yield Row(f"{head} {words}, recalibrated", each(found, RECALIBRATED, metric), must, better="near 1")
        for name, score in models.items():
            if "value" in score.get(metric, {}):
                span = score[metric]["low"], score[metric]["high"]
                whose = "mean risk" if name == SIMULATION else name
                yield Row(f"{head} {words}, {whose}", (score[metric]["value"],), better="near 1", span=span)


def counts_of(path: Path) -> dict[str, dict[str, int | None]]:
    """Of each task how many were asked, had the outcome, and were lost before it was known."""
    names = {"questions": "n", "events": "positives", "censored": "undecidable"}
    return {task: {word: score[key] for word, key in names.items()} for task, score in scores(path).items()}


def other_horizons(study: Study) -> Iterator[Row]:
    """Whether as many have an event by other times as expected."""
    files = study.horizons()
    found = [scores(study.answers(seed, files, "horizons", ENOUGH)) for seed in study.seeds]
    for task in found[0]:
        for model, words in ((SIMULATION, "O/E"), (RECALIBRATED, "O/E, recalibrated")):
            models = [one[task]["models"] for one in found]
            if all(model in those for those in models):  # with few cases among the tuning patients there is no map
                yield Row(f"nafld/{task} {words}", each(models, model, "oe"), None, TENTH, "near 1")


def each(found: list[dict], model: str, metric: str) -> tuple[float, ...]:
    """A metric of a model, of each seed."""
    return tuple(one[model][metric]["value"] for one in found)


def folder_name(source: str, salt: str, quick: bool, development: bool, config: Path | None) -> str:
    """Where a study keeps its steps: another split, or other settings, have a folder of their own."""
    marks = [(development, "development"), (quick, "quick"), (salt != SALT, salt), (config, config and config.stem)]
    return " ".join([source, *(str(mark) for given, mark in marks if given)])


def main(given: argparse.Namespace) -> None:
    """Run the studies, and print what came of them."""
    rows: list[dict] = []
    verdicts: dict[str, str] = {}
    counts: dict[str, dict[str, int | None]] = {}
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as folder:
        for source in given.data:
            if source != "nafld" and given.physionet is None:
                print(f"{source} is left out: give its raw files with --physionet.")
                continue
            chosen = given.quick, given.development, given.config
            work = Path(folder) / folder_name(source, given.salt, *chosen)
            work.mkdir(parents=True, exist_ok=True)
            study = Study(source, given.physionet, work, given.salt, tuple(given.seeds), *chosen)
            found = [row.as_dict() for row in rows_of(study)]
            if given.quick or given.development or given.config:  # thresholds are for the study itself
                found = [row | {"must": None, "aim": None, "met": None} for row in found]
            rows += found
            horizons = sorted(work.glob("evaluation-horizons-*/metrics.json"))[:1]
            for path in (study.together(study.preset.tasks), *horizons):
                counts |= {f"{source}/{task}": count for task, count in counts_of(path).items()}
            for task, score in scores(study.together(study.preset.tasks)).items():
                verdicts[f"{source}/{task}"] = score["verdict"]
    print(f"{'claim':<64}{'value':>8}{'low':>8}{'high':>8}  must, aim")
    for row in rows:
        wanted = ", ".join(str(row[key]) for key in ("must", "aim") if row[key] is not None)
        print(f"{row['claim']:<64}{row['value']:8.3f}{row['low']:8.3f}{row['high']:8.3f}  {wanted}")
    for task, count in counts.items():
        print(f"{task:<64}" + ", ".join(f"{number:,} {word}" for word, number in count.items() if number is not None))
    print("\nOf the mean risk, over patients and seeds:")
    for task, words in verdicts.items():
        print(f"{task}: {words}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    record = {
        "name": "risks", "command": " ".join(["python", *sys.argv]), "commit": commit, "machine": platform.platform(),
        "salt": given.salt, "seeds": given.seeds, "ok": all(row["met"] in (True, None) for row in rows), "rows": rows,
        "verdicts": verdicts, "counts": counts, "quick": given.quick, "development": given.development,
        "config": given.config.read_text(encoding="utf-8") if given.config else None,
    }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", choices=("nafld", "physionet2012"), default=["nafld", "physionet2012"]
    )
    parser.add_argument("--physionet", type=Path, help="the raw files of PhysioNet 2012")
    parser.add_argument(
        "--work", type=Path, help="where finished steps are kept (default: a temporary folder)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--salt", default=SALT, help="another word gives another split")
    parser.add_argument("--json", type=Path, help="also write the last line to this file")
    parser.add_argument("--quick", action="store_true", help="the quick demo's settings: a look, no result")
    parser.add_argument("--development", action="store_true", help="leave out the held-out patients, split the others")
    parser.add_argument("--config", type=Path, help="a TOML file with other settings than the demo's")
    main(parser.parse_args())
