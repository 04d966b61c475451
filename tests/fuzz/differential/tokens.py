"""Tokens of a record, and what they are fitted on, event by event: what tokenization has to agree with.

Written from docs/explain/tokens.md and docs/explain/codes.md.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from random import Random

from sequela.tokens.ehr.settings import COMET_EDGES, TokenSettings
from tests.fuzz.differential.events import Event, is_a, plain

MINUTE = dt.timedelta(minutes=1)
SILENT = ("MEDS_BIRTH", "FOLLOW_UP//END")
UNITS = (("mo", 43200), ("w", 10080), ("d", 1440), ("h", 60), ("min", 1))


def random_settings(rng: Random) -> TokenSettings:
    """Settings that matter for a few patients."""
    return TokenSettings(
        interval_edges=rng.choice([COMET_EDGES, (1, 1440), (5, 60, 43200)]),
        quantiles=rng.choice([2, 3, 10]),
        fused=rng.random() < 0.2,
        joint=rng.random() < 0.2,
        min_patients=rng.choice([1, 1, 2]),
        labs=rng.choice([2, 1000]),
        age_band_years=rng.choice([1, 5]),
        calendar_years=rng.choice([0, 1, 5]),
    )


def parts_of(code: str, joint: bool) -> list[str]:
    """The tokens of a code."""
    head, _, rest = code.partition("//")
    if joint or head != "ICD10CM" or not rest:
        return [code]
    rest = rest.replace(".", "")
    cut = [rest[:3], rest[3:5], rest[5:]]
    return [f"{head}//{place}//{piece}" for place, piece in enumerate(cut, 1) if piece]


def rank(code: str) -> int:
    """The order of events at one moment."""
    head = code.split("/", maxsplit=1)[0]
    if head in ("MEDS_DEATH", "DEATH"):
        return 5
    if "DISCHARGE" in head or head == "ENCOUNTER_END":
        return 4
    if "ADMISSION" in head or head == "ENCOUNTER_START":
        return 0
    return {"DEPARTMENT": 1, "CHIEF_COMPLAINT": 2}.get(head, 3)


def moving(events: list[Event]) -> list[Event]:
    """The events that may become tokens."""
    return [e for e in events if e.time and e.code not in SILENT]


@dataclass
class NaiveTokenizer:
    """What was fitted on training patients: tokens of codes, cut points by code, static tokens, first and last year."""

    settings: TokenSettings
    codes: set[str]
    whole: set[str]
    cuts: dict[str, list[float]]
    static: set[str]
    years: tuple[int, int] | None = None
    names: list[str] = field(default_factory=list)

    @staticmethod
    def fit(events: list[Event], settings: TokenSettings) -> NaiveTokenizer:
        """Count over the events of training patients."""
        events = [replace(event, code=plain(event.code)) for event in events]
        carriers, number = defaultdict(set), defaultdict(int)
        for event in moving(events):
            number[event.code] += 1
            for part in parts_of(event.code, settings.joint):
                carriers[part].add(event.patient)
        known = {
            code
            for code in number
            if len(carriers[parts_of(code, settings.joint)[0]]) >= settings.min_patients
        }
        labs = sorted((c for c in known if c.startswith("LAB//")), key=lambda c: (-number[c], c))
        known -= set(labs[settings.labs :])
        codes = {parts_of(code, settings.joint)[0] for code in known}
        codes |= {
            part
            for part, who in carriers.items()
            if part.split("//")[1:2] in (["2"], ["3"])
            and part.startswith("ICD10CM//")
            and not settings.joint
            and len(who) >= settings.min_patients
        }
        codes |= heads_of_rare(
            {c: len(carriers[c]) for c in number if c not in known}, codes, settings.min_patients
        )
        values = defaultdict(list)
        for event in moving(events):
            if event.code in known and event.number is not None:
                values[event.code].append(event.number)
        cuts = {code: quantiles(sorted(held), settings.quantiles) for code, held in values.items()}
        static = defaultdict(int)
        for event in events:
            if event.time is None:
                static[event.code] += 1
        frequent = {code for code, times in static.items() if times >= settings.min_patients}
        return NaiveTokenizer(settings, codes, known, cuts, frequent, years_of(events, settings))

    def row(self, record: list[Event]) -> list[str]:
        """The names of one patient's tokens; empty if no event has one."""
        record = [replace(event, code=plain(event.code)) for event in record]
        dated = [e for e in moving(record) if self.known(e.code)]
        dated.sort(key=lambda e: (e.time, rank(e.code), e.code, -math.inf if e.number is None else e.number))
        if not dated:
            return []
        born = min((e.time for e in record if e.time and e.code == "MEDS_BIRTH"), default=None)
        stated = [e.time for e in record if e.time and e.code == "FOLLOW_UP//END"]
        end = max(stated or [e.time for e in record if e.time])
        row = ["BOS"]
        for prefix in ("GENDER//", "RACE//"):
            mine = sorted(e.code for e in record if e.time is None and e.code.startswith(prefix))
            row += [code for code in mine[:1] if code in self.static]
        before, carried = dated[0].time, {}
        for event in dated:
            row += self.gap(math.floor((event.time - before) / MINUTE))
            before = event.time
            for name, token in (("age", self.age(born, event.time)), ("year", self.period(event.time))):
                if token and carried.get(name) != token:
                    row.append(token)
                    carried[name] = token
            row += self.code(event)
        if end > before and rank(dated[-1].code) != rank("MEDS_DEATH"):
            row += [self.interval(-1)] * ((end - before) // MINUTE // self.settings.interval_edges[-1])
        return row

    def known(self, code: str) -> list[str]:
        """The tokens of a code, up to the first part that has none."""
        out = []
        for part in parts_of(code, self.settings.joint):
            if part not in self.codes:
                break
            out.append(part)
        return out or ([head_of(code)] if head_of(code) in self.codes else [])

    def code(self, event: Event) -> list[str]:
        parts = self.known(event.code)
        if event.code not in self.cuts or event.number is None:
            return parts
        place = 1 + sum(cut < event.number for cut in self.cuts[event.code])
        if self.settings.fused and parts == [event.code]:
            return [f"{event.code}=Q{place}"]
        return [*parts, f"Q//{place}"]

    def gap(self, minutes: int) -> list[str]:
        edges = self.settings.interval_edges
        row = [self.interval(-1)] * (minutes // edges[-1])
        reached = [place for place, edge in enumerate(edges) if edge <= minutes % edges[-1]]
        return row + ([self.interval(reached[-1])] if reached else [])

    def interval(self, place: int) -> str:
        words = [_spoken(edge) for edge in self.settings.interval_edges]
        last = place in (-1, len(words) - 1)
        return f"TIME//{words[-1]}" if last else f"TIME//{words[place]}-{words[place + 1]}"

    def age(self, born: dt.datetime | None, now: dt.datetime) -> str | None:
        """The band of the completed years of life."""
        if born is None:
            return None
        years = (
            now.year - born.year - ((now.month, now.day, now.time()) < (born.month, born.day, born.time()))
        )
        width = self.settings.age_band_years
        low = min(max(years, 0), 119) // width * width
        return f"AGE//{low}-{low + width - 1}"

    def period(self, now: dt.datetime) -> str | None:
        width = self.settings.calendar_years
        if not width or self.years is None:
            return None
        low = min(max(now.year, self.years[0]), self.years[1]) // width * width
        return f"YEAR//{low}-{low + width - 1}"


def head_of(code: str) -> str | None:
    """What a code of a stay or of a death is without the part that can make it rare; None for other codes."""
    head, *rest = code.split("//")
    kept = (
        [head, *rest[:1]] if head.startswith("ENCOUNTER_") else [head]
    )  # visits are told apart by their class
    return "//".join(kept) if len(rest) >= len(kept) and rank(code) in (0, 4, 5) else None


def heads_of_rare(rare: dict[str, int], codes: set[str], min_patients: int) -> set[str]:
    """Tokens for rare codes of stays and deaths: enough of them together, or their kind has tokens already.

    Args:
        rare: such codes among others, and the patients of each.
    """

    def kinds(names: set[str]) -> set[tuple[str, ...]]:
        stays = ("HOSPITAL", "ED", "ICU", "ENCOUNTER")
        return {
            stay for stay in stays for name in names if rank(name) in (0, 4) and name.startswith(f"{stay}_")
        }

    together: dict[str, int] = defaultdict(int)
    for code, patients in rare.items():
        if rank(code) in (0, 4, 5):
            together[head_of(code) or code] += patients
    out = {head for head in together if kinds({head}) & kinds(codes)}
    out |= {head for head, patients in together.items() if patients >= min_patients}
    out |= {head for head in together if kinds({head}) & kinds(codes | out)}
    died = any(is_a(code, "MEDS_DEATH") for code in codes)
    return out | {head for head in together if died and is_a(head, "MEDS_DEATH")}


def years_of(events: list[Event], settings: TokenSettings) -> tuple[int, int] | None:
    """The first and the last year of the calendar periods that enough patients have an event in."""
    width, patients = settings.calendar_years or 1, defaultdict(set)
    for event in moving(events):
        patients[event.time.year // width].add(event.patient)
    held = [period for period, who in patients.items() if len(who) >= settings.min_patients]
    return (min(held) * width, max(held) * width + width - 1) if held else None


def quantiles(values: list[float], number: int) -> list[float]:
    """Cut points at the quantiles 1/number ... of sorted values, between neighbors in proportion."""
    out = []
    for place in range(1, number):
        at = place / number * (len(values) - 1)
        low = math.floor(at)
        below, above = values[low], values[min(low + 1, len(values) - 1)]
        out.append(below + (above - below) * (at - low) if at > low else below)
    return out


def _spoken(minutes: int) -> str:
    name, size = next((name, size) for name, size in UNITS if minutes % size == 0)
    return f"{minutes // size}{name}"
