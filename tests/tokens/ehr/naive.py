"""The tokens of a patient, event by event: what the fast encoder must agree with."""

import math
from datetime import datetime, timedelta

import numpy as np

from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END, RACE_PREFIX, SEX_PREFIX
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.code import order_rank

MINUTE = 60_000_000


def rows_of(tokenizer, columns):
    """Patient -> names of the tokens, and the minutes that follow them without an event."""
    patients = {}
    for patient, time, code, number in zip(
        columns.patient.tolist(),
        columns.time.tolist(),
        columns.code.tolist(),
        columns.number.tolist(),
        strict=True,
    ):
        patients.setdefault(patient, []).append((time, columns.names[code], number))
    out = {}
    for patient, events in patients.items():
        names, rest = _one(tokenizer, events)
        if names:
            out[patient] = names, rest
    return out


def _one(tokenizer, events):
    index, names, settings = tokenizer.vocabulary.index, tokenizer.vocabulary.tokens, tokenizer.settings
    silent = (BIRTH, FOLLOW_UP_END)
    dated = [
        e
        for e in events
        if e[0] != STATIC
        and not e[1].startswith((SEX_PREFIX, RACE_PREFIX))
        and not any(e[1] == code or e[1].startswith(f"{code}//") for code in silent)
        and tokenizer.known(e[1])
    ]
    dated.sort(key=lambda e: (e[0], order_rank(e[1]), e[1], -math.inf if math.isnan(e[2]) else e[2]))
    if not dated:
        return [], None
    sexes = sorted(code for _, code, _ in events if code.startswith(SEX_PREFIX))
    races = sorted((time, code) for time, code, _ in events if code.startswith(RACE_PREFIX))
    races = [(time, code) for row, (time, code) in enumerate(races) if row == 0 or races[row - 1][0] != time]
    born = min((time for time, code, _ in events if code == BIRTH and time != STATIC), default=None)
    end = max((time for time, code, _ in events if code == FOLLOW_UP_END), default=max(e[0] for e in events))
    row = ["BOS"]
    row += [sexes[0]] if sexes and sexes[0] in index else []
    before, age, period, race = dated[0][0], None, None, None
    known = [code for time, code in races if time <= before and code in index]
    if known:
        race = known[-1]
        row.append(race)
    most = math.inf
    if settings.gap_years:
        edge = int(tokenizer.intervals.edges[-1])
        most = edge * max(int(settings.gap_years * 365.25 * 1440 / edge), 1)
    for time, code, number in dated:
        row += _gap(tokenizer, min((time - before) // MINUTE, most))
        before = time
        if born is not None:
            low = min(max(_age(born, time), 0), 119) // settings.age_band_years * settings.age_band_years
            if low != age:
                row.append(f"AGE//{low}-{low + settings.age_band_years - 1}")
                age = low
        if len(tokenizer.period_tokens):
            year = int(str(np.datetime64(time, "us"))[:4])
            bands = [names[token] for token in tokenizer.period_tokens]
            starts = [int(band.removeprefix("YEAR//").split("-")[0]) for band in bands]
            now = bands[max(sum(start <= year for start in starts) - 1, 0)]
            if now != period:
                row.append(now)
                period = now
        known = [name for when, name in races if when <= time and name in index]
        if known and known[-1] != race:
            race = known[-1]
            row.append(race)
        row += _code(tokenizer, code, number)
    if settings.time != "intervals":
        return row, None
    if any(code == DEATH for _, code, _ in dated):
        return row, -1
    longest = int(tokenizer.intervals.edges[-1])
    whole, rest = divmod(min(max(end - before, 0) // MINUTE, most), longest)
    return row + [tokenizer.intervals.names[-1]] * whole, rest


def _age(born, time):
    """By birthdays; a birth that lies so many times 365.25 days back was computed from the age."""
    birth, now = (datetime(1970, 1, 1) + timedelta(microseconds=moment) for moment in (born, time))
    birthdays = now.year - birth.year - ((now.month, now.day) < (birth.month, birth.day))
    return max(birthdays, int((time - born) / (365.25 * 1440 * MINUTE)))


def _gap(tokenizer, minutes):
    if tokenizer.settings.time != "intervals":
        return []
    edges, names = tokenizer.intervals.edges.tolist(), tokenizer.intervals.names
    row = []
    while minutes >= edges[-1]:
        row.append(names[-1])
        minutes -= edges[-1]
    kind = sum(edge <= minutes for edge in edges) - 1
    return row + ([names[kind]] if kind >= 0 else [])


def _code(tokenizer, code, number):
    parts = [tokenizer.vocabulary.tokens[token] for token in tokenizer.known(code)]
    if code not in tokenizer.bins.rows or math.isnan(number):
        return parts
    quantile = 1 + sum(cut < number for cut in tokenizer.bins.cuts[tokenizer.bins.rows[code]].tolist())
    if code in tokenizer.fused_base:
        return [f"{code}=Q{quantile}"]
    return [*parts, f"Q//{quantile}"]
