"""How much memory does `sequela tokenize` hold, and how does its time grow, from 10^4 to 10^6 synthetic patients?

    python bench/memory.py              10^4, 10^5 and 10^6 patients (2 x 10^8 events, some 2 GB of disk)
    python bench/memory.py --quick      10^3, 10^4 and 10^5

Memory is that of the command and all processes that it starts, looked at ten times a second and summed, so that
pages which they share count more than once; beside it stands the highest mark of any single process. `ratio` is the sum
in GB (10^9 bytes) with the most patients, to stay below `target`; `slope` is that of log time over log patients in the
last step, which is 1 where time is proportional (start-up makes the smaller steps flatter). The data are deleted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from measure import process, synthetic
from measure.growth import fitted, slope

TARGET = 4.0
LINEAR = 1.1


def measure(patients: int, folder: Path, options: list[str]) -> dict:
    """Make the data of so many patients, tokenize them, print a row, delete everything, and return the numbers."""
    started = time.perf_counter()
    made = synthetic.write(folder / "meds", patients)
    making = time.perf_counter() - started
    command = process.sequela("tokenize", folder / "meds", folder / "corpus", "--quiet", *options)
    try:
        spent = process.run(command)
        splits = json.loads((folder / "corpus/corpus.json").read_text())["splits"].values()
        tokens = sum(split["tokens"] for split in splits)
        written = sum(path.stat().st_size for path in (folder / "corpus").rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder / "meds")
        shutil.rmtree(folder / "corpus", ignore_errors=True)
    print(
        f"| {patients:,} | {made['events']:,} | {made['bytes'] / 1e9:.2f} | {making:.0f} | {spent.seconds:.1f} "
        f"| {made['events'] / spent.seconds:,.0f} | {spent.tree_bytes / 1e9:.2f} | {spent.process_bytes / 1e9:.2f} "
        f"| {spent.cpu_seconds:.0f} | {tokens:,} | {written / 1e9:.2f} |",
        flush=True,
    )
    return {
        "patients": patients,
        "events": made["events"],
        "tokens": tokens,
        "seconds": round(spent.seconds, 2),
        "peak_gb": round(spent.tree_bytes / 1e9, 3),
        "process_gb": round(spent.process_bytes / 1e9, 3),
    }


def summary(rows: list[dict], failed: str | None) -> dict:
    """The JSON object."""
    peak, steep = (rows[-1]["peak_gb"] if rows else None), slope(rows)
    ok = failed is None and peak is not None and peak < TARGET and (steep is None or steep <= LINEAR)
    return {
        "name": "memory",
        "ratio": peak,
        "target": TARGET,
        "ok": ok,
        "slope": None if steep is None else round(steep, 3),
        "slope_of_all": None if len(rows) < 2 else round(fitted(rows), 3),
        "failed": failed,
        "commit": process.commit(),
        "machine": process.machine(),
        "runs": rows,
    }


def main() -> None:
    """Measure all sizes and print the table and the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10^3, 10^4 and 10^5 patients")
    parser.add_argument(
        "--patients", type=int, nargs="+", help="other numbers of patients, from small to large"
    )
    parser.add_argument("--work", type=Path, help="a folder for scratch (default: a temporary one)")
    parser.add_argument("options", nargs="*", help="more options of `sequela tokenize`, after --")
    given = parser.parse_args()
    sizes = given.patients or ([10**3, 10**4, 10**5] if given.quick else [10**4, 10**5, 10**6])
    process.keep_to_cores(2)
    print(f"commit {process.commit()}; {process.machine()}\n")
    print(
        "| patients | events | data GB | making s | tokenize s | events/s | peak GB, all processes "
        "| peak GB, one process | CPU-s | tokens | corpus GB |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    rows: list[dict] = []
    failed = None
    with tempfile.TemporaryDirectory(dir=given.work, prefix="sequela-bench-") as name:
        for size in sizes:
            try:
                rows.append(measure(size, Path(name), given.options))
            except process.Failed as error:
                failed = f"{size} patients: {error.reason}"
                print(f"| {size:,} | failed: {error.reason} |", flush=True)
                break
    print()
    print(json.dumps(summary(rows, failed)))


if __name__ == "__main__":
    main()
