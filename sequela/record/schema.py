"""MEDS names: folders, files, columns, splits, and the few codes that mean something to Sequela.

`data/<split>/*.parquet` holds the events, sorted by patient and time: `subject_id`, `time` (empty for an event without
a date), `code`, `numeric_value`, and, where a dataset has them, `text_value` and `media` (the path of a file below the
dataset's folder). `metadata/subject_splits.parquet` says who is in train, tuning and held_out,
`metadata/codes.parquet` what the codes mean, `metadata/dataset.json` where the data come from.

The names equal those of the package `meds`, which is slow to import and only needed to write a dataset.
"""

DATA = "data"
SPLITS_FILE = "metadata/subject_splits.parquet"
CODES_FILE = "metadata/codes.parquet"
FACTS_FILE = "metadata/dataset.json"
TRAIN, TUNING, HELD_OUT = SPLITS = ("train", "tuning", "held_out")
FRACTIONS = (0.7, 0.1, 0.2)  # default shares of patients in the splits


# Optional payload columns: free text (MEDS 0.4), and the path of a file (an image, a signal) relative to the dataset's
# folder (our extension).
TEXT, MEDIA = PAYLOAD = ("text_value", "media")

BIRTH = "MEDS_BIRTH"
DEATH = "MEDS_DEATH"
# The record is complete up to this event and empty after it (censoring). Labels and the encoding of empty time use it;
# it is never a token, never sampled and never an outcome.
FOLLOW_UP_END = "FOLLOW_UP//END"
SEX_PREFIX = "GENDER//"
RACE_PREFIX = "RACE//"
# Codes that may go on: MEDS_DEATH//IN_HOSPITAL is a death too.
EXTENDED = (BIRTH, DEATH, FOLLOW_UP_END)


def means(code: str, event: str) -> bool:
    """Whether a code is `event`, one of `EXTENDED`, or that code followed by // and anything.

    >>> means("MEDS_DEATH//IN_HOSPITAL", DEATH), means("MEDS_DEATH_CERTIFICATE", DEATH)
    (True, False)
    """
    return code == event or code.startswith(f"{event}//")
