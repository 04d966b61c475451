"""How long do the futures of a cohort take, from its events on disk to trajectories on disk, beside MEDS-EIC-AR?

    bench/peers.sh                             once: the peer's environment
    python bench/cohort.py                     1,000 synthetic patients, 25 rollouts each of up to 256 tokens
    python bench/cohort.py --data MEDS_FOLDER --task TASK
    python bench/cohort.py --quick             a few patients; under a minute without the peer, two with it

Every run is a whole process on the same cores (two), start-up included. Both models are Llamas of 4 layers of 384 with
tied embeddings, context 1,024, 256 of it for what is generated; they were trained for two or three steps, so almost
every rollout goes on to its limit. The vocabularies are each side's own, so the parameters differ a little. Tokenizing
and training are not counted. The patients, and the times from which they are continued, are the same. The sides:

* sequela: `sequela simulate`, on all patients and on the few that the peer gets. A rollout ends at death.
* MEDS-EIC-AR: `MEICAR_generate_trajectories` with its own backend, `generate` of `transformers`, on few patients, since
  all would take hours. A rollout ends at the end of the timeline. It runs in the precisions of --peer-precision, and
  ratios are against the fastest; 16-mixed is as shipped, which on a CPU becomes bf16-mixed. Its batch is of
  --peer-batch rows. Its data are processed with MIN_SUBJECTS_PER_CODE=10, as ours.

Counted are the tokens generated, as each side finds them in the files it wrote. A token of the peer is a code with its
value, of ours a code or a value. `tokens_ratio` and `rollouts_ratio` are our rates on all patients over theirs on few;
`..._without_start` are the same after taking away the seconds of a run of one token for one patient, which is what
the start takes; `same_patients_ratio` is their seconds over ours on the same few patients;
`cpu_tokens_ratio_without_start` is of the processor's time. Run it where nothing else runs (`busy`): the peer's two
threads wait for each other after every operation, so other work slows it down several times and flatters us. With
--cores 1 nothing waits, and the processor's time means something on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import polars as pl
from measure import process, synthetic
from measure.process import Failed, Spent

from sequela.model.config import ModelConfig
from sequela.record.dataset import read_events
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.settings import SimulateSettings
from sequela.task.catalog import load_task

OURS, EIC = "sequela", "MEDS-EIC-AR"
CONTEXT = 1024
TASK = """
name: later_death
title: Time to death, asked three years after the first visit
dataset: synthetic
kind: time
at: {after: "ENCOUNTER_START//OUTPATIENT", offset: 3 years}
outcome: [MEDS_DEATH]
"""
PARAMETERS = """
import sys, torch
weights = torch.load(sys.argv[1], map_location="cpu", weights_only=False)["state_dict"].values()
print(sum({weight.data_ptr(): weight.numel() for weight in weights}.values()))
"""
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Work:
    """What is generated: of whom, and how much.

    Attributes:
        meds: the dataset; `split` the part of it, `task` the name or file of the task that says when to begin.
        rollouts: of each patient; `limit` tokens at most of each.
    """

    meds: Path
    split: str
    task: str
    rollouts: int
    limit: int


@dataclass(frozen=True)
class Made:
    """What one run wrote and took."""

    spent: Spent
    patients: int
    rollouts: int
    tokens: int


@dataclass(frozen=True)
class Side:
    """One of those that are measured: how to generate for so many patients, so many rollouts of so many tokens."""

    run: Callable[[int, int, int], Made]
    parameters: int


def make_ours(work: Work, folder: Path) -> Path:
    """Tokenize and train a little; the folder of the model."""
    process.run(process.sequela("tokenize", work.meds, folder / "corpus", "--quiet"))
    shape = {
        "family": "llama", "layers": 4, "width": 384, "heads": 6, "head-dim": 64, "intermediate": 1536,
        "context": CONTEXT, "tokens": 8192, "batch-tokens": 4096,
    }  # fmt: skip
    flags = [part for name, one in shape.items() for part in (f"--{name}", str(one))]
    process.run(process.sequela("train", folder / "corpus", folder / "model", *flags, "--quiet"))
    return folder / "model"


def ours(work: Work, folder: Path, model: Path, flags: list[str]) -> Side:
    """`sequela simulate` of the environment that runs this file."""

    def run(patients: int, rollouts: int, limit: int) -> Made:
        out = folder / "simulated"
        shutil.rmtree(out, ignore_errors=True)
        asked = {
            "task": work.task,
            "split": work.split,
            "patients": patients,
            "rollouts": rollouts,
            "limit": limit,
        }
        given = [part for name, one in asked.items() for part in (f"--{name}", str(one))]
        spent = process.run(process.sequela("simulate", model, work.meds, out, *given, *flags, "--quiet"))
        about = SimulatedFolder(out).rollouts()
        return Made(spent, about["subject_id"].n_unique(), len(about), int(about["tokens"].sum()))

    return Side(run, ModelConfig.load(model).parameters)


def make_eic(work: Work, folder: Path, binaries: Path) -> Path:
    """MEDS-EIC-AR's own preprocessing and two steps of its own training; the folder of both."""
    folder.mkdir()
    environment = _environment(binaries) | {"MIN_SUBJECTS_PER_CODE": "10"}
    places = [
        f"input_dir={work.meds}",
        f"intermediate_dir={folder / 'between'}",
        f"output_dir={folder / 'tensors'}",
    ]
    process.run([str(binaries / "MEICAR_process_data"), *places], environment)
    settings = [
        "lightning_module=micro", "lightning_module.model.gpt_kwargs.num_attention_heads=6",
        "+lightning_module.model.gpt_kwargs.tie_word_embeddings=true", "lightning_module.metrics.top_k=[1]",
        f"datamodule.config.tensorized_cohort_dir={folder / 'tensors'}", f"output_dir={folder / 'model'}",
        f"max_seq_len={CONTEXT}", "datamodule.batch_size=4", "seed=1", "trainer.max_steps=2",
        "trainer.val_check_interval=1", "trainer.limit_val_batches=1", "trainer.precision=32-true",
        "trainer.accelerator=cpu", "trainer.devices=1",
    ]  # fmt: skip
    process.run([str(binaries / "MEICAR_pretrain"), *settings], environment)
    return folder


def eic(work: Work, folder: Path, binaries: Path, precision: str, batch: int) -> Side:
    """`MEICAR_generate_trajectories` on the first of the patients that our side is asked about."""
    times = load_task(work.task).prediction_times(read_events(work.meds, split=work.split)).sort("subject_id")

    def run(patients: int, rollouts: int, limit: int) -> Made:
        out, labels = folder / "generated", folder / "labels"
        for made in (out, labels):
            shutil.rmtree(made, ignore_errors=True)
        labels.mkdir()
        some = times.head(patients).with_columns(boolean_value=pl.lit(False))
        some.write_parquet(labels / "0.parquet")
        # Without rolling_generation a batch of short histories would go on to the end of the context
        settings = [
            f"output_dir={out}", f"model_initialization_dir={folder / 'model'}",
            f"datamodule.config.tensorized_cohort_dir={folder / 'tensors'}",
            f"datamodule.config.task_labels_dir={labels}", f"datamodule.batch_size={batch}",
            "seq_lens.frac_seq_len_as_context=null", f"seq_lens.max_generated_trajectory_len={work.limit}",
            f"rolling_generation.max_new_tokens={limit}", f"inference.generate_for_splits=[{work.split}]",
            f"inference.N_trajectories_per_task_sample={rollouts}", f"trainer.precision={precision}",
            "trainer.accelerator=cpu", "trainer.devices=1", "seed=1",
        ]  # fmt: skip
        spent = process.run(
            [str(binaries / "MEICAR_generate_trajectories"), *settings], _environment(binaries)
        )
        made = [pl.read_parquet(path) for path in sorted((out / work.split).glob("*.parquet"))]
        # It says nothing of a rollout without a token, so patients are counted where they appear at all
        found = pl.concat([one["subject_id"] for one in made]).n_unique()
        return Made(spent, found, found * len(made), sum(len(one) for one in made))

    counted = process.run(
        [str(binaries / "python"), "-c", PARAMETERS, str(folder / "model/best_model.ckpt")]
    ).output
    return Side(run, int(counted.strip().splitlines()[-1]))


def _environment(binaries: Path) -> dict[str, str]:
    return {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}


def row(name: str, made: Made, first: Spent, parameters: int) -> dict:
    """Print a row of the table and return its numbers."""
    seconds, start = made.spent.seconds, first.seconds
    net, cpu = seconds - start, made.spent.cpu_seconds - first.cpu_seconds
    told = {
        "patients": made.patients,
        "rollouts": made.rollouts,
        "tokens": made.tokens,
        "parameters": parameters,
        "seconds": round(seconds, 2),
        "start": round(start, 2),
        "tokens_per_second": round(made.tokens / seconds, 1),
        "tokens_per_second_without_start": _rate(made.tokens, net),
        "tokens_per_cpu_second_without_start": _rate(made.tokens, cpu),
        "rollouts_per_second": round(made.rollouts / seconds, 3),
        "rollouts_per_second_without_start": _rate(made.rollouts, net),
        "patients_per_second": round(made.patients / seconds, 4),
    }
    print(
        f"| {name} | {made.patients:,} | {made.rollouts:,} | {made.tokens:,} | {parameters:,} | {seconds:.1f} "
        f"| {start:.1f} | {told['tokens_per_second']:,.0f} | {told['tokens_per_second_without_start'] or 0:,.0f} "
        f"| {told['patients_per_second']:.3f} | {made.spent.tree_bytes / 1e9:.2f} | {made.spent.cpu_seconds:.0f} |",
        flush=True,
    )
    return told


def _rate(number: int, seconds: float) -> float | None:
    """None where the run took no longer than the start alone: it is too short to tell."""
    return round(number / seconds, 3) if seconds > 0 else None


def _over(own: float | None, their: float | None) -> float | None:
    return round(own / their, 2) if own and their else None


def measure(given: argparse.Namespace, work: Work, folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Prepare both sides, run them, and say what each did and why those failed that did."""
    told: dict[str, dict] = {}
    failed: dict[str, str] = {}
    few = min(given.peer_patients, given.patients)
    (folder / "ours").mkdir()
    model = make_ours(work, folder / "ours")
    able = "precision" in {one.name for one in fields(SimulateSettings)}
    wanted = {f"{OURS}, {kind}": ["--precision", kind] for kind in given.precision} if able else {OURS: []}
    some = {
        name: partial(ours, work, folder / "ours", model, flags) for name, flags in wanted.items()
    }  # fmt: skip
    binaries = given.peers.resolve() / "meds-eic-ar/bin"
    if (binaries.parent / "installed").exists():
        try:
            home = make_eic(work, folder / "eic", binaries)
            for kind in given.peer_precision:
                some[f"{EIC}, {kind}"] = partial(eic, work, home, binaries, kind, given.peer_batch)
        except Failed as error:
            failed[EIC] = error.reason
    for name, make in some.items():
        sizes = [few] if name.startswith(EIC) else sorted({few, given.patients})
        try:
            side = make()
            # the first of all reads files that the others find in memory
            start = min((side.run(1, 1, 1).spent for _ in range(2)), key=lambda one: one.seconds)
            for patients in sizes:
                made = side.run(patients, work.rollouts, work.limit)
                told[f"{name}, {patients} patients"] = row(name, made, start, side.parameters)
        except Failed as error:
            failed[name] = error.reason
            print(f"| {name} | failed: {error.reason} |", flush=True)
    return told, failed


def ratios(told: dict[str, dict], patients: int, few: int) -> dict:
    """Ours on all patients over the fastest of the peer, and on the same patients."""

    def best(side: str, many: int) -> dict | None:
        own = [
            one for name, one in told.items() if name.startswith(side) and name.endswith(f", {many} patients")
        ]
        return max(own, key=lambda one: one["tokens_per_second"], default=None)

    own, their, same = best(OURS, patients), best(EIC, few), best(OURS, few)
    if own is None or their is None or same is None:
        return {"tokens_ratio": None}
    kinds = ("tokens", "rollouts")
    found = {
        f"{kind}_ratio{end}": _over(own[f"{kind}_per_second{end}"], their[f"{kind}_per_second{end}"])
        for kind in kinds
        for end in ("", "_without_start")
    }
    cpu = "tokens_per_cpu_second_without_start"
    return found | {
        "cpu_tokens_ratio_without_start": _over(own[cpu], their[cpu]),
        "same_patients_ratio": round(their["seconds"] / same["seconds"], 2),
    }


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="6 patients, 2 rollouts of at most 16 tokens")
    parser.add_argument("--data", type=Path, help="a MEDS dataset (default: synthetic patients)")
    parser.add_argument("--task", help="with --data: a task's name or file, which says when rollouts begin")
    parser.add_argument("--split", default="train", help="whose patients (default: train)")
    parser.add_argument("--patients", type=int, help="of our side (default: 1000)")
    parser.add_argument("--peer-patients", type=int, help="of the peer (default: 10)")
    parser.add_argument("--rollouts", type=int, help="of each patient (default: 25)")
    parser.add_argument("--limit", type=int, help="tokens of a rollout at most (default: 256)")
    parser.add_argument(
        "--precision", nargs="*", default=["bf16", "fp32"], help="of our side, where it can be chosen"
    )
    parser.add_argument(
        "--peer-precision", nargs="*", default=["bf16-true", "32-true", "16-mixed"], help="of the peer"
    )
    parser.add_argument(
        "--peer-batch", type=int, default=100, help="rows the peer computes at once (default: 100)"
    )
    parser.add_argument("--cores", type=int, default=2, help="that each side may use (default: 2)")
    parser.add_argument(
        "--peers", type=Path, default=HERE.parent / ".peers", help="where bench/peers.sh put them"
    )
    parser.add_argument("--work", type=Path, help="a folder for scratch (default: a temporary one)")
    given = parser.parse_args()
    if (given.data is None) != (given.task is None):
        parser.error("--data and --task go together")
    if given.quick and len(given.peer_precision) > 1:
        given.peer_precision = given.peer_precision[:1]
    for name, short, usual in (
        ("patients", 6, 1000), ("peer_patients", 2, 10), ("rollouts", 2, 25), ("limit", 16, 256),
    ):  # fmt: skip
        setattr(given, name, getattr(given, name) or (short if given.quick else usual))
    return given


def main() -> None:
    """Run both sides and print the table and the JSON object."""
    given = arguments()
    process.keep_to_cores(given.cores)
    busy = os.getloadavg()[0] > 1
    given.precision = process.computable(given.precision)
    if not (given.peers / "meds-eic-ar/installed").exists():
        print(f"{given.peers / 'meds-eic-ar'} is missing, so the peer is left out: run bench/peers.sh first.")
    print(f"commit {process.commit()}; {process.machine()}\n")
    print(
        "| side | patients | rollouts | tokens | parameters | seconds | start | tokens/s | without start | patients/s "
        "| peak GB | CPU-s |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory(dir=given.work, prefix="sequela-bench-") as name:
        folder = Path(name)
        if given.data is None:
            task, meds = folder / "later_death.yaml", folder / "meds"
            task.write_text(TASK)
            # of which four fifths are for training, and some of those died before they could be asked
            synthetic.write(meds, max(100, given.patients * 3 // 2), patients_a_shard=2_000)
        else:
            task, meds = given.task, given.data.resolve()
        work = Work(meds, given.split, str(task), given.rollouts, given.limit)
        told, failed = measure(given, work, folder)
    few = min(given.peer_patients, given.patients)
    print()
    print(
        json.dumps(
            {
                "name": "cohort",
                **ratios(told, given.patients, few),
                "busy": busy,
                "cores": given.cores,
                "context": CONTEXT,
                "limit": given.limit,
                "runs": told,
                "failed": failed,
                "commit": process.commit(),
                "machine": process.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
