"""A large population whose entropy is known, as a MEDS dataset: what scaling studies are tried on.

    python -m measure.population OUT --patients 1000000        (in the folder bench/)

Prints the entropy in bits per event, for `sequela scale --floor`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sequela.record.worlds.zipf import ZipfWorld


def main() -> None:
    """Write one dataset and print what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    population = ZipfWorld.known()
    population.write(given.out, given.patients, given.seed, fractions=(0.985, 0.005, 0.01))
    print(json.dumps({"patients": given.patients, "bits_per_event": population.bits_per_event}))


if __name__ == "__main__":
    main()
