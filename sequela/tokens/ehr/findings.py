"""What deserves a look in a dataset that was tokenized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sequela.record.events import NEVER, Events, births
from sequela.record.finding import ENOUGH, NO_SEX, Finding
from sequela.record.schema import DEATH, TRAIN, means
from sequela.record.spelling import SEXES, spelled
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.maps.code_map import CodeMap

MANY = 0.1  # share of the events of a code system that deserves a look
MANY_RARE = 0.2  # share of the training patients' events; a hundred patients lose 15 % with good reason
EXAMPLES = 3  # codes named in a finding


def persons(events: Events) -> dict[str, int]:
    """How many patients there are, and how many of them have no birth, have no sex, and died.

    Args:
        events: translated, of whole patients.
    """
    return {
        "patients": len(events.starts),
        "no birth": int((births(events) == NEVER).sum()),
        "no sex": len(events.starts) - _patients_with(events, lambda code: spelled(code) in SEXES),
        "deaths": _patients_with(events, lambda code: means(code, DEATH)),
    }


def _patients_with(events: Events, wanted: Callable[[str], bool]) -> int:
    """How many patients have a code that is wanted."""
    patients = events.patient[events.called(wanted)]
    return int((np.diff(patients) != 0).sum()) + (len(patients) > 0)


def findings_of(
    index: Mapping, counts: Mapping[str, int], settings: TokenSettings, maps: tuple[CodeMap, ...]
) -> list[Finding]:
    """The findings about a corpus.

    Args:
        index: what `corpus.json` holds.
        counts: `persons`, summed over the dataset.
        maps: the code maps that were applied.
    """
    lists = {code_map.name: code_map.lists for code_map in maps}
    return [
        *_of_patients(index, counts),
        *_of_maps(index["maps"], lists),
        *_of_rare(index["splits"][TRAIN], settings),
    ]


def _of_patients(index: Mapping, counts: Mapping[str, int]) -> Iterator[Finding]:
    everyone = counts["patients"]
    words = {
        "no split": (
            "in none of the splits train, tuning and held_out, so in no corpus",
            "Add them to the table of splits if they should take part.",
        ),
        "no birth": ("no birth, so no age", "Give them an event MEDS_BIRTH if the source knows it."),
        "far dates": (
            f"a date far from the years of the data, {_span(index['years'])}",
            "Such a date often means that it is not known: leave it out where the data are made.",
        ),
        "no sex": NO_SEX,
        "no death": ("no death", "If the source knows who died, give the dead an event MEDS_DEATH."),
    }
    amounts = {
        **counts,
        "no split": index["patients_without_split"],
        "far dates": index["patients_with_far_dates"],
    }
    amounts["no death"] = 0 if counts["deaths"] or everyone < ENOUGH else everyone
    for name, (what, do) in words.items():
        if amounts[name]:
            yield Finding(amounts[name], "patients", what, do, everyone)


def _span(years: tuple[int, int] | None) -> str:
    return "which are not known" if years is None else f"{years[0]} to {years[1]}"


def _of_maps(
    maps: Mapping[str, Mapping[str, Mapping]], lists: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    for name, heads in maps.items():
        for head, row in heads.items():
            left = row["events"] - row["events_mapped"]
            if head in lists[name] and left > MANY * row["events"]:
                what = f"a code that the map {name} does not translate, such as {_some(row['unmapped'])}"
                do = "Correct their spelling, or give a map of your own that has them."
                yield Finding(left, "events", what, do, row["events"], f"codes {head}")


def _of_rare(train: Mapping, settings: TokenSettings) -> Iterator[Finding]:
    dropped = train["dropped_events"]
    lost, codes = sum(dropped.values()), sorted(dropped, key=lambda code: (-dropped[code], code))
    total = train["events"] + lost
    if lost > MANY_RARE * total:
        what = (
            f"no token, since fewer than {settings.min_patients} training patients have the code "
            f"({len(codes):,} codes such as {_some(codes)})"
        )
        do = "Lower `min_patients`, translate the codes to more common ones, or tokenize more patients."
        yield Finding(lost, "events", what, do, total, "training patients")


def _some(codes: list[str]) -> str:
    return ", ".join(codes[:EXAMPLES])
