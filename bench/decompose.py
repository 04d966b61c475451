"""Where is accuracy lost: in the tokens, in what the model holds of them, in decoding, or in sampling?

    python bench/decompose.py --demo demo-output                       a demo, made if not there; half an hour
    python bench/decompose.py --demo demo-output --rollouts 300        nearer to the model's own risk
    python bench/decompose.py --demo demo-output-quick --quick         a minute: a look, no result

For every question with a probability, AUROC on the held-out patients of
* record: the strong baseline, tuned on tuning patients, on the record as it is;
* tokens: the same baseline on what the model's tokens say of it;
* probe: the same kinds of models, tuned alike, on the model's last hidden state at the prediction time;
* own risk: the model's risk from --rollouts simulated futures;
* sampled: its risk from as few futures as the demo simulates, the mean over disjoint batches of them.
What is lost from one line to the next is lost by the tokens, by the representation, by decoding and by sampling;
negative is a gain. The intervals of the AUROCs, over patients, say how much of that is luck. Everything is kept in
decompose/ inside the demo and not made again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import polars as pl
import torch
from measure.demo import finished

import sequela
from sequela.model import checkpoint
from sequela.record.dataset import read_events
from sequela.record.questions import QUESTION
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.forecast import load_words
from sequela.rollout.prompts import prompts_of
from sequela.rollout.settings import SimulateSettings
from sequela.serve.folder import manifest
from sequela.task.answers.estimate import estimate
from sequela.task.answers.prediction import SIMULATION, write_predictions
from sequela.task.baselines.rivals import STRONG, TOKENS, Cohorts
from sequela.task.baselines.strong import sample_of
from sequela.task.baselines.tuned import fit_tuned
from sequela.task.catalog import load_task
from sequela.task.label import labels
from sequela.task.task import Task
from sequela.tokens.maps.recode import recoded_events

PROBE, SAMPLED = "probe", "sampled"
STEPS = {STRONG: "record", TOKENS: "tokens", PROBE: "probe", SIMULATION: "own risk"}
TOGETHER = 64  # histories read at once


def states_of(model: Path, events: pl.DataFrame, times: pl.DataFrame) -> pl.DataFrame:
    """The questions of `times` that have a history, with the model's last hidden `state` at each."""
    tokenizer, grammar, window = load_words(model)
    decoder = checkpoint.load(model)
    kept, prompts = prompts_of(tokenizer, grammar, events, times.unique().sort(QUESTION), 0)
    read = [np.asarray(window.cut(prompts.ids[row], window.context), np.int64) for row in range(len(kept))]
    states = np.zeros((len(kept), decoder.config.hidden_size), np.float32)
    order = sorted(range(len(read)), key=lambda row: len(read[row]))
    with torch.no_grad():
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            longest = len(read[rows[-1]])
            ids = np.stack([np.pad(read[row], (0, longest - len(read[row]))) for row in rows])
            hidden = decoder.hidden(
                torch.from_numpy(ids)
            )  # causal: the padding behind a history changes nothing
            for place, row in enumerate(rows):
                states[row] = hidden[place, len(read[row]) - 1].numpy()
    return kept.with_columns(state=pl.Series(states))


def answered_by_probe(demo: Path, simulated: SimulatedFolder, tasks: list[Task], out: Path) -> None:
    """Answer the tasks from hidden states; write the predictions beside the others."""
    meds, asked = demo / "meds", read_events(demo / "meds", "held_out")
    cohorts = Cohorts.read(meds, asked, simulated.maps(), tasks, True, print)
    held_out = recoded_events(asked, simulated.maps())
    for task in tasks:
        truth = labels(task, held_out, simulated.questions(task.name))
        frames = (cohorts.train[task.name], cohorts.tuning[task.name], truth)
        states = states_of(
            demo / "model", cohorts.events, pl.concat([frame.select(QUESTION) for frame in frames])
        )
        train, tuning, values = (
            frame.join(states, on=QUESTION, how="inner", maintain_order="left") for frame in frames
        )
        samples = (sample_of(frame, frame["state"].to_numpy()) for frame in (train, tuning))
        tuned = fit_tuned(task, *samples)
        if tuned is None:
            print(f"{task.name}: too few patients for a probe.")
            continue
        answer = values.drop("state").with_columns(
            prediction=pl.Series(tuned.predict(values["state"].to_numpy()))
        )
        write_predictions(answer, task.kind, out / task.name / f"{PROBE}.parquet")


def answered_by_few(simulated: SimulatedFolder, demo: Path, tasks: list[Task], few: int, out: Path) -> int:
    """Answer the tasks from each disjoint batch of so many rollouts; returns how many batches there are."""
    rollouts = simulated.rollouts()
    batches = (int(rollouts["rollout"].max()) + 1) // few
    events = recoded_events(read_events(demo / "meds", "held_out"), simulated.maps())
    for task in tasks:
        truth = labels(task, events, simulated.questions(task.name))
        for batch in range(batches):
            chosen = rollouts.filter(pl.col("rollout") // few == batch).with_columns(pl.col("rollout") % few)
            found = estimate(task, simulated, chosen, simulated.estimator())
            answer = truth.join(found, on=QUESTION, how="left", maintain_order="left")
            write_predictions(answer, task.kind, out / task.name / f"{SAMPLED}_{batch + 1}.parquet")
    return batches


def decomposed(demo: Path, rollouts: int) -> dict:
    """The AUROC of every step, by task, and what is lost between them."""
    made = manifest.read(demo / "simulated")["settings"]
    tasks = [task for task in map(load_task, [fields["name"] for fields in made["tasks"]]) if task.has_hazard]
    names, work = tuple(task.name for task in tasks), demo / "decompose"
    chosen = {key: value for key, value in made.items() if key in SimulateSettings.__dataclass_fields__}
    settings = replace(SimulateSettings(**chosen), rollouts=rollouts)
    many, predictions = work / "simulated", work / "predictions"
    asked = {"task": names, "settings": settings}
    sequela.simulate(demo / "model", demo / "meds", many, patients=made.get("patients"), **asked)
    sequela.predict(many, demo / "meds", predictions, **asked)
    simulated, further = SimulatedFolder(many), work / "further"
    answered_by_probe(demo, simulated, tasks, further)
    batches = answered_by_few(simulated, demo, tasks, made["rollouts"], further)
    sequela.evaluate(predictions, work / "evaluation", also=(further,))
    scores = json.loads((work / "evaluation" / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    table = {}
    for task in names:
        models = scores[task]["models"]
        row = {step: models[name]["auroc"] for name, step in STEPS.items() if name in models}
        each = [models[f"{SAMPLED}_{number + 1}"]["auroc"]["value"] for number in range(batches)]
        row[SAMPLED] = {"value": fmean(each), "deviation": stdev(each) if len(each) > 1 else None}
        line = [row[step]["value"] if step in row else np.nan for step in (*STEPS.values(), SAMPLED)]
        lost = dict(zip(("tokens", "representation", "decoding", "sampling"), -np.diff(line), strict=True))
        table[task] = {"auroc": row, "lost": {name: float(x) for name, x in lost.items() if np.isfinite(x)}}
    return {
        "name": "decompose",
        "rollouts": rollouts,
        "sampled": made["rollouts"],
        "tasks": table,
        "ok": True,
    }


def main(demo: Path, rollouts: int) -> None:
    """Print the table and the result."""
    found = decomposed(demo, rollouts)
    columns = (*STEPS.values(), SAMPLED)
    heads = "".join(f"{column:>22}" for column in columns)
    print(f"{'AUROC':<26}{heads}   lost by tokens, representation, decoding, sampling")
    for task, row in found["tasks"].items():
        cells = []
        for column in columns:
            score = row["auroc"].get(column)
            text = "" if score is None else f"{score['value']:.3f}"
            if score and "low" in score:
                text += f" ({score['low']:.3f}-{score['high']:.3f})"
            cells.append(f"{text:>22}")
        print(f"{task:<26}{''.join(cells)}   " + ", ".join(f"{lost:+.3f}" for lost in row["lost"].values()))
    print(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--demo", type=Path, help="the folder of a demo (default: demo-output, or demo-output-quick)"
    )
    parser.add_argument("--rollouts", type=int, default=60, help="futures a patient for the model's own risk")
    parser.add_argument(
        "--quick", action="store_true", help="ten futures a patient; make a quick demo if there is none"
    )
    given = parser.parse_args()
    main(finished(given.demo, quick=given.quick), 10 if given.quick else given.rollouts)
