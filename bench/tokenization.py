"""How fast is `sequela tokenize`, beside MEDS-EIC-AR's and cocoa's preprocessing, and beside just reading the files?

    bench/peers.sh                                       once: the peers' environments
    python bench/tokenization.py --data MEDS_FOLDER      real data and synthetic data, about 40 minutes on two cores
    python bench/tokenization.py --quick                 synthetic data so small that start-up dominates, under a minute

Every side is a whole process, start-up included, on the same two cores, and all sides run in turn. `ratio` is
MEDS-EIC-AR's time over ours, the median over the pairs, and the smaller one of the data sets. `scan_share` is the time
in which Polars reads the four columns over our time: 1 would be as fast as reading. What the sides do differently:

* MEDS-EIC-AR runs with MIN_SUBJECTS_PER_CODE=10, as we do: as shipped (1000) it drops almost every event of a small
  data set. That run is the row "as shipped". One time token a gap, value and code in one token, no age bands.
* MEDS-EIC-AR's memory grows with the largest file (6 GB for 0.8 million events, killed by the system at 1.6 million on
  24 GB), so its synthetic data come in files of 2,000 patients, for all sides.
* "kept" counts for us the events of timelines: not sex, race, birth and the end of follow-up, which become the prefix
  and tokens of time.
* cocoa wants one file, which is made before the clock starts; it drops nothing, and as shipped it has no time tokens
  (the row "with times" has them: insert_spacers=true). It holds all events in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import yaml
from measure import process, synthetic
from measure.process import Spent

TARGET = 20
OURS, SCAN = "sequela", "Polars, reading only"
EIC, EIC_SHIPPED = "MEDS-EIC-AR", "MEDS-EIC-AR as shipped"
COCOA, COCOA_TIMES = "cocoa", "cocoa with times"
COLUMNS = ["subject_id", "time", "code", "numeric_value"]
READ = f"""
import sys, time
from pathlib import Path
import polars as pl
files = sorted(Path(sys.argv[1]).glob("data/**/*.parquet"))
start = time.perf_counter()
frame = pl.read_parquet(files, columns={COLUMNS})
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Done:
    """What one side made of a data set: events that it kept, tokens that it wrote, words in its vocabulary."""

    kept: int
    tokens: int
    words: int


@dataclass(frozen=True)
class Side:
    """One of those that are measured: how to run it once, and how to count what it made."""

    run: Callable[[], Spent]
    count: Callable[[], Done] | None = None


def ours(data: Path, work: Path) -> Side:
    """`sequela tokenize`, of the interpreter that runs this file."""
    out = work / "sequela"

    def run() -> Spent:
        shutil.rmtree(out, ignore_errors=True)
        return process.run(process.sequela("tokenize", data, out, "--quiet"))

    def count() -> Done:
        about = json.loads((out / "corpus.json").read_text())
        splits = about["splits"].values()
        return Done(
            sum(split["events"] for split in splits),
            sum(split["tokens"] for split in splits),
            about["tokens_in_vocabulary"],
        )

    return Side(run, count)


def eic(data: Path, work: Path, binaries: Path, settings: dict[str, str]) -> Side:
    """All of MEDS-EIC-AR's `MEICAR_process_data`."""
    out = work / "eic"
    environment = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", **settings}

    def run() -> Spent:
        shutil.rmtree(out, ignore_errors=True)
        folders = [
            f"input_dir={data}",
            f"intermediate_dir={out / 'between'}",
            f"output_dir={out / 'tensors'}",
        ]
        return process.run([str(binaries / "MEICAR_process_data"), *folders], environment)

    def count() -> Done:
        words = pl.read_parquet(out / "tensors/metadata/codes.parquet", columns=["code", "code/vocab_index"])
        times = words.filter(pl.col("code").str.starts_with("TIMELINE//"))["code/vocab_index"].cast(pl.Int64)
        kept = tokens = 0
        for path in (out / "tensors/normalization").glob("*/*.parquet"):
            codes = pl.read_parquet(path, columns=["code"])["code"].cast(pl.Int64)
            tokens += len(codes)
            kept += len(codes) - int(codes.is_in(times.implode()).sum())
        return Done(kept, tokens, len(words))

    return Side(run, count)


def cocoa(data: Path, work: Path, binaries: Path, *settings: str) -> Side:
    """`cocoa tokenize`, after giving it the events as the one file that it wants."""
    home = work / "cocoa"
    if not home.exists():
        home.mkdir()
        files = sorted(data.glob("data/**/*.parquet"))
        frame = pl.scan_parquet(files).select(*COLUMNS, text_value=pl.lit(None, pl.String))
        frame.sink_parquet(home / "meds.parquet")
        shutil.copyfile(data / "metadata/subject_splits.parquet", home / "subject_splits.parquet")

    def run() -> Spent:
        return process.run([str(binaries / "cocoa"), "tokenize", "-p", str(home), *settings])

    def count() -> Done:
        rows = pl.scan_parquet(home / "tokens_times.parquet").select(pl.col("tokens").list.len().sum())
        tokens = int(rows.collect().item())
        words = yaml.safe_load((home / "tokenizer.yaml").read_text())["lookup"]
        return Done(_events(data), tokens, len(words))

    return Side(run, count)


def sides(data: Path, work: Path, peers: Path, wanted: set[str]) -> dict[str, Side]:
    """Those of the wanted sides whose environments are there, in the order in which they run."""
    work.mkdir()
    every: dict[str, Callable[[], Side]] = {
        SCAN: lambda: Side(partial(process.run, [sys.executable, "-c", READ, str(data)])),
        OURS: partial(ours, data, work),
        EIC: partial(eic, data, work, peers / "meds-eic-ar/bin", {"MIN_SUBJECTS_PER_CODE": "10"}),
        EIC_SHIPPED: partial(eic, data, work, peers / "meds-eic-ar/bin", {}),
        COCOA: partial(cocoa, data, work, peers / "cocoa/bin"),
        COCOA_TIMES: partial(cocoa, data, work, peers / "cocoa/bin", "insert_spacers=true"),
    }
    homes = {EIC: "meds-eic-ar", EIC_SHIPPED: "meds-eic-ar", COCOA: "cocoa", COCOA_TIMES: "cocoa"}
    return {
        name: make()
        for name, make in every.items()
        if name in wanted and (name not in homes or (peers / homes[name] / "installed").exists())
    }


def compare(label: str, data: Path, chosen: dict[str, Side], repeats: int) -> dict:
    """Run the sides in turn on one data set, print a row for each, and return its part of the JSON object."""
    counts: dict[str, Done] = {}

    def once(name: str) -> Spent:
        spent = chosen[name].run()
        if name not in counts and (count := chosen[name].count) is not None:
            counts[name] = count()
        return spent

    runs, failed = process.in_turn({name: partial(once, name) for name in chosen}, repeats)
    events = _events(data)
    for name, own in runs.items():
        print(_row(label, name, events, own, counts.get(name)), flush=True)
    for name, words in failed.items():
        print(f"| {label} | {name} | failed: {words} |", flush=True)
    facts: dict = {"events": events, "failed": failed}
    if OURS not in runs:
        return facts
    facts["seconds"] = round(process.median(runs[OURS]).seconds, 3)
    facts["events_per_second"] = round(events / facts["seconds"])
    for key, name in {"ratio": EIC, "cocoa_ratio": COCOA, "cocoa_times_ratio": COCOA_TIMES}.items():
        if name in runs:
            own, their = process.median_pair(runs[OURS], runs[name])
            facts[key] = round(their.seconds / own.seconds, 2)
            facts[f"{key}_of_seconds"] = [round(their.seconds, 2), round(own.seconds, 2)]
    own, scan = process.median_pair(runs[OURS], runs[SCAN])
    facts["scan_share"] = round(float(scan.output) / own.seconds, 4)
    facts["scan_share_with_start"] = round(scan.seconds / own.seconds, 3)
    return facts


def _row(label: str, name: str, events: int, runs: list[Spent], done: Done | None) -> str:
    middle = process.median(runs)
    times = " ".join(f"{one.seconds:.1f}" for one in runs)
    made = (
        f"{done.kept:,} | {done.tokens:,} | {done.words:,}"
        if done
        else f"reading alone: {_reading(runs)} | |"
    )
    return (
        f"| {label} | {name} | {middle.seconds:.2f} | {events / middle.seconds:,.0f} | {events:,} | {made} "
        f"| {middle.tree_bytes / 1e9:.2f} | {middle.cpu_seconds:.1f} | {times} |"
    )


def _reading(runs: list[Spent]) -> str:
    return f"{statistics.median(float(one.output) for one in runs):.3f} s"


def _events(data: Path) -> int:
    return int(pl.scan_parquet(sorted(data.glob("data/**/*.parquet"))).select(pl.len()).collect().item())


def summary(parts: dict[str, dict]) -> dict:
    """The JSON object: of every number the worst over the data sets in which it was measured."""

    def worst(key: str) -> float | None:
        return min((facts[key] for facts in parts.values() if key in facts), default=None)

    ratio = worst("ratio")
    return {
        "name": "tokenization",
        "ratio": ratio,
        "target": TARGET,
        "ok": ratio is not None and ratio >= TARGET,
        **{
            key: worst(key)
            for key in ("cocoa_ratio", "cocoa_times_ratio", "scan_share", "scan_share_with_start")
        },
        "commit": process.commit(),
        "machine": process.machine(),
        "datasets": parts,
    }


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one pair on 250 synthetic patients")
    parser.add_argument("--data", type=Path, help="a MEDS dataset with data/{train,tuning,held_out}")
    parser.add_argument(
        "--patients", type=int, nargs="*", default=None, help="synthetic patients (default: 10000 100000)"
    )
    parser.add_argument("--repeats", type=int, default=None, help="how often every side runs (default: 3)")
    parser.add_argument(
        "--eic-patients",
        type=int,
        default=10_000,
        help="no MEDS-EIC-AR on more synthetic patients (default: 10000)",
    )
    parser.add_argument("--without", nargs="*", default=[], metavar="SIDE", help="sides to leave out")
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--peers", type=Path, default=root / ".peers", help="where bench/peers.sh put them")
    parser.add_argument("--work", type=Path, help="a folder for scratch (default: a temporary one)")
    return parser.parse_args()


def main() -> None:
    """Measure all data sets and print the table and the JSON object."""
    given = arguments()
    repeats = given.repeats or (1 if given.quick else 3)
    sizes = given.patients if given.patients is not None else ([250] if given.quick else [10_000, 100_000])
    process.keep_to_cores(2)
    peers = given.peers.resolve()
    for name in ("meds-eic-ar", "cocoa"):
        if not (peers / name / "installed").exists():
            print(f"{peers / name} is missing, so this peer is left out: run bench/peers.sh first.")
    print(f"commit {process.commit()}; {process.machine()}\n")
    print(
        "| data | side | seconds | events/s | events in | kept | tokens | words | peak GB | CPU-s | all runs, s |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    wanted = {SCAN, OURS, EIC, COCOA, COCOA_TIMES} - set(given.without)
    parts: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(dir=given.work, prefix="sequela-bench-") as name:
        folder = Path(name)
        if given.data is not None:
            data, label = given.data.resolve(), given.data.resolve().name
            parts[label] = compare(label, data, sides(data, folder / "real", peers, wanted), repeats)
            if EIC in wanted:
                compare(label, data, sides(data, folder / "shipped", peers, {EIC_SHIPPED}), 1)
        for size in sizes:
            data, label = folder / "meds", f"synthetic, {size:,} patients"
            small = size <= given.eic_patients
            synthetic.write(data, size, patients_a_shard=2_000 if small else synthetic.PATIENTS_A_SHARD)
            here = wanted if small else wanted - {EIC}
            parts[label] = compare(label, data, sides(data, folder / "work", peers, here), repeats)
            shutil.rmtree(data)
            shutil.rmtree(folder / "work")
    print()
    print(json.dumps(summary(parts)))


if __name__ == "__main__":
    main()
