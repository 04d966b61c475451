"""The few codes that mean something to the program; all other codes are only data."""

BIRTH = "MEDS_BIRTH"
DEATH = "MEDS_DEATH"
# The record is complete until this event and silent after it (censoring). It is known to labels and to the
# encoding of silent time; it is never a token, never sampled and never an outcome.
FOLLOW_UP_END = "FOLLOW_UP//END"
SEX_PREFIX = "GENDER//"
RACE_PREFIX = "RACE//"
