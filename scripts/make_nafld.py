"""Make the bundled NAFLD cohort anew from the public R package survival.

First write its three tables as CSV files, with R (any recent version of the package):

    Rscript -e 'library(survival); for (n in c("nafld1", "nafld2", "nafld3"))
                write.csv(get(n), paste0(n, ".csv"), row.names = FALSE)'

then turn them into the MEDS dataset that the package ships:

    python scripts/make_nafld.py FOLDER_WITH_THE_CSV_FILES
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from sequela.record.cohort import nafld
from sequela.record.ingest.run import ingest


def main() -> None:
    """Ingest, then put the result in the place of the bundled data; its README, licence and citation stay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "raw", type=Path, help="the folder with nafld1.csv, nafld2.csv and nafld3.csv (or .csv.gz)"
    )
    raw = parser.parse_args().raw
    with tempfile.TemporaryDirectory() as made:
        report = ingest("nafld", raw, Path(made))
        for part in ("data", "metadata"):
            shutil.rmtree(nafld() / part, ignore_errors=True)
            shutil.copytree(Path(made) / part, nafld() / part)
        shutil.copy(Path(made) / "ingest.json", nafld() / "ingest.json")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
