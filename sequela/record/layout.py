"""Where things lie in a MEDS dataset, what its splits are called, and how large they are.

The names are those of the package `meds`, which takes a while to import and is only needed to write a dataset.
"""

DATA = "data"
SPLITS_FILE = "metadata/subject_splits.parquet"
CODES_FILE = "metadata/codes.parquet"
FACTS_FILE = "metadata/dataset.json"
TRAIN, TUNING, HELD_OUT = SPLITS = ("train", "tuning", "held_out")
FRACTIONS = (0.7, 0.1, 0.2)  # of the patients, in the splits, unless somebody says otherwise
