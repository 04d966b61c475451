"""Where things lie in a MEDS dataset, and what its splits are called.

The names are those of the package `meds`, which takes a while to import and is only needed to write a dataset.
"""

DATA = "data"
SPLITS_FILE = "metadata/subject_splits.parquet"
CODES_FILE = "metadata/codes.parquet"
FACTS_FILE = "metadata/dataset.json"
TRAIN, TUNING, HELD_OUT = SPLITS = ("train", "tuning", "held_out")
