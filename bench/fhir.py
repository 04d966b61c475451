"""How many lines of FHIR does `sequela ingest fhir` read in a second, and how much memory does it hold?

    python bench/fhir.py BUNDLES            the resources of the bundles (*.json.gz) in the folder, 100 and 500 times
    python bench/fhir.py BUNDLES --quick    5 and 25 times

Every copy has ids of its own, so its patients are others. Memory must not grow with the lines: see the two rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
from pathlib import Path

from measure import process

UUID = re.compile(r"\b([0-9a-f]{8})(-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b")


def lines(bundles: Path) -> str:
    """The resources of all bundles as NDJSON."""
    found = [json.loads(gzip.decompress(path.read_bytes())) for path in sorted(bundles.glob("*.json.gz"))]
    return "".join(json.dumps(entry["resource"]) + "\n" for bundle in found for entry in bundle["entry"])


def copied(text: str, number: int) -> str:
    """The same with other ids."""
    return UUID.sub(lambda id: f"{(int(id[1], 16) + number) % 2**32:08x}{id[2]}", text)


def measure(text: str, copies: int, memory: str) -> dict[str, float]:
    """Write so many copies, ingest them, print a row, and return its numbers."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        with (raw / "all.ndjson").open("w") as file:
            for number in range(copies):
                file.write(copied(text, number))
        spent = process.run(
            process.sequela("ingest", "fhir", raw, Path(folder) / "out", "--memory", memory, "--quiet")
        )
    rows = text.count("\n") * copies
    peak = spent.process_bytes / 2**20
    rate = rows / spent.cpu_seconds
    print(f"{rows:>12,} {spent.seconds:>8.1f} {spent.cpu_seconds:>8.1f} {rate:>12,.0f} {peak:>8.0f}")
    return {"lines": rows, "lines_a_cpu_second": round(rate), "peak_mib": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="?", help="folder of *.json.gz")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", default="500MB", help="what DuckDB keeps in memory")
    asked = parser.parse_args()
    if asked.bundles is None:
        print("no bundles: give a folder with *.json.gz to run this benchmark")
        return
    print(f"{process.machine()}; commit {process.commit()}; --memory {asked.memory}")
    print(f"{'lines':>12} {'seconds':>8} {'CPU s':>8} {'lines/CPU s':>12} {'peak MiB':>8}")
    text = lines(asked.bundles)
    rows = [measure(text, copies, asked.memory) for copies in ((5, 25) if asked.quick else (100, 500))]
    print(json.dumps({"fhir": rows}))


if __name__ == "__main__":
    main()
