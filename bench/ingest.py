"""How fast is `sequela ingest omop`, how much memory does it hold, and how do both grow with the patients?

    python bench/ingest.py              10^4, 10^5 and 10^6 synthetic patients of 39 rows
    python bench/ingest.py --quick      10^3 and 10^4
    python bench/ingest.py --form csv   from CSV.gz instead of Parquet

Memory is that of the command and all processes that it starts, looked at ten times a second and summed; beside it
stands the highest mark of any single process. `disk GB` is the most that was written at one moment, what does not last
included. `ratio` is the sum in GB (10^9 bytes) with the most patients, to stay below `target`; `slope` is that of log
time over log patients in the last step, which is 1 where time is proportional (start-up makes the smaller steps
flatter). The data are deleted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from measure import omop, process
from measure.growth import fitted, slope

TARGET = 4.0
LINEAR = 1.1


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """A list whose only number is the most bytes of files that the folder held meanwhile."""
    most, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            sizes = 0
            for path in folder.rglob("*"):
                with suppress(OSError):  # it went while we looked
                    sizes += path.stat().st_size
            most[0] = max(most[0], sizes)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def measure(patients: int, folder: Path, form: str, options: list[str]) -> dict:
    """Make the tables of so many patients, ingest them, print a row, delete everything, and return the numbers."""
    started = time.perf_counter()
    made = omop.write(folder / "raw", patients, form=form)
    making = time.perf_counter() - started
    out = folder / "made" / "meds"
    try:
        with watched(out.parent) as disk:
            spent = process.run(process.sequela("ingest", "omop", folder / "raw", out, "--quiet", *options))
        events = json.loads((out / "ingest.json").read_text())["events"]
    finally:
        shutil.rmtree(folder / "raw")
        shutil.rmtree(out.parent, ignore_errors=True)
    print(
        f"| {patients:,} | {made['rows']:,} | {made['bytes'] / 1e9:.2f} | {making:.0f} | {spent.seconds:.1f} "
        f"| {made['rows'] / spent.seconds:,.0f} | {spent.tree_bytes / 1e9:.2f} | {spent.process_bytes / 1e9:.2f} "
        f"| {spent.cpu_seconds:.0f} | {events:,} | {disk[0] / 1e9:.2f} |",
        flush=True,
    )
    return {
        "patients": patients,
        "rows": made["rows"],
        "events": events,
        "seconds": round(spent.seconds, 2),
        "rows_a_second": round(made["rows"] / spent.seconds),
        "cpu_seconds": round(spent.cpu_seconds, 1),
        "peak_gb": round(spent.tree_bytes / 1e9, 3),
        "process_gb": round(spent.process_bytes / 1e9, 3),
        "disk_gb": round(disk[0] / 1e9, 3),
    }


def summary(rows: list[dict], form: str, failed: str | None) -> dict:
    """The JSON object."""
    peak, steep = (rows[-1]["peak_gb"] if rows else None), slope(rows)
    ok = failed is None and peak is not None and peak < TARGET and (steep is None or steep <= LINEAR)
    return {
        "name": "ingest",
        "form": form,
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
    parser.add_argument("--quick", action="store_true", help="10^3 and 10^4 patients")
    parser.add_argument(
        "--patients", type=int, nargs="+", help="other numbers of patients, from small to large"
    )
    parser.add_argument("--form", choices=sorted(omop.FORMS), default="parquet", help="of the tables")
    parser.add_argument("--work", type=Path, help="a folder for scratch (default: a temporary one)")
    parser.add_argument("options", nargs="*", help="more options of `sequela ingest`, after --")
    given = parser.parse_args()
    sizes = given.patients or ([10**3, 10**4] if given.quick else [10**4, 10**5, 10**6])
    process.keep_to_cores(2)
    print(f"commit {process.commit()}; {process.machine()}; from {given.form}\n")
    print(
        "| patients | rows | data GB | making s | ingest s | rows/s | peak GB, all processes "
        "| peak GB, one process | CPU-s | events | disk GB |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    rows: list[dict] = []
    failed = None
    with tempfile.TemporaryDirectory(dir=given.work, prefix="sequela-bench-") as name:
        for size in sizes:
            try:
                rows.append(measure(size, Path(name), given.form, given.options))
            except process.Failed as error:
                failed = f"{size} patients: {error.reason}"
                print(f"| {size:,} | failed: {error.reason} |", flush=True)
                break
    print()
    print(json.dumps(summary(rows, given.form, failed)))


if __name__ == "__main__":
    main()
