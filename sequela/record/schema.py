"""What MEDS calls things: folders, files, splits, and the few codes that mean something to the program.

The names are those of the package `meds`, which takes a while to import and is only needed to write a dataset. All
codes but the ones here are only data.
"""

DATA = "data"
SPLITS_FILE = "metadata/subject_splits.parquet"
CODES_FILE = "metadata/codes.parquet"
FACTS_FILE = "metadata/dataset.json"
TRAIN, TUNING, HELD_OUT = SPLITS = ("train", "tuning", "held_out")
FRACTIONS = (0.7, 0.1, 0.2)  # of the patients, in the splits, unless somebody says otherwise


# The payload of an event, both optional: free text (MEDS 0.4), and, a column of our own, the path of a file below the
# dataset's folder (an image, a signal).
TEXT, MEDIA = PAYLOAD = ("text_value", "media")

BIRTH = "MEDS_BIRTH"
DEATH = "MEDS_DEATH"
# The record is complete until this event and silent after it (censoring). It is known to labels and to the
# encoding of silent time; it is never a token, never sampled and never an outcome.
FOLLOW_UP_END = "FOLLOW_UP//END"
SEX_PREFIX = "GENDER//"
RACE_PREFIX = "RACE//"
