"""Synthetic MEDS datasets of any size, shard by shard, in bounded memory. Nothing in them is about anybody.

    python -m measure.synthetic OUT --patients 10000        (in the folder bench/)

A patient has some 200 events in visits: a visit opens with an encounter, its events are moments to hours apart, and the
next visit comes days to years later. Codes are as frequent as Zipf's law says within each family (laboratory with
values, vital signs with values, diagnoses, drugs, procedures). The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MEAN_EVENTS = 205
PATIENTS_A_SHARD = 10_000
SPLITS = {"train": 0.8, "tuning": 0.1, "held_out": 0.1}
MINUTE, DAY = 60_000_000, 86_400_000_000  # microseconds
BORN_FROM, OPENS_FROM = np.datetime64("1930-01-01", "us").astype(np.int64), 18 * 365 * DAY
LONGEST = 30 * 365 * DAY  # a record is at most so long
FIXED = [
    "GENDER//F",
    "GENDER//M",
    "RACE//A",
    "RACE//B",
    "RACE//C",
    "MEDS_BIRTH",
    "MEDS_DEATH",
    "FOLLOW_UP//END",
    "ENCOUNTER_START//OUTPATIENT",
    "HOSPITAL_ADMISSION//EMERGENCY",
    "ENCOUNTER_END//OUTPATIENT",
    "HOSPITAL_DISCHARGE//HOME",
]
AT = {code: number for number, code in enumerate(FIXED)}
SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Codes:
    """All codes, how frequent those of visits are, and the size and spread of their values (spread 0: no value)."""

    names: list[str]
    share: np.ndarray
    size: np.ndarray
    spread: np.ndarray


def code_book() -> Codes:
    """Some 4,000 codes, the same for every dataset."""
    rng = np.random.default_rng(0)
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    families = [
        # share of all events, share of the codes with a value, names
        (0.45, 0.9, [f"LOINC//{1000 + 7 * n}-{n % 10}" for n in range(800)]),
        (0.20, 1.0, [f"VITAL//SIGN_{n}" for n in range(20)]),
        (0.12, 0.0, _some(rng, 1600, lambda: "ICD10CM//" + rng.choice(letters) + _digits(rng, 2, 6))),
        (
            0.15,
            0.0,
            _some(
                rng,
                700,
                lambda: (
                    f"ATC//{rng.choice(letters[:14])}{_digits(rng, 2, 2)}"
                    f"{''.join(rng.choice(letters[:6], 2))}{_digits(rng, 2, 2)}"
                ),
            ),
        ),
        (0.08, 0.0, [f"CPT4//{10000 + 113 * n}" for n in range(780)]),
    ]
    names, shares, valued = list(FIXED), [np.zeros(len(FIXED))], [np.zeros(len(FIXED), bool)]
    for share, with_value, own in families:
        zipf = 1 / np.arange(1, len(own) + 1)
        shares.append(share * zipf / zipf.sum())
        valued.append(rng.random(len(own)) < with_value)
        names += own
    spread = np.where(np.concatenate(valued), rng.uniform(0.05, 0.6, len(names)), 0)
    return Codes(names, np.concatenate(shares), rng.lognormal(3, 1.5, len(names)), spread)


def write(out: Path, patients: int, *, seed: int = 0, patients_a_shard: int = PATIENTS_A_SHARD) -> dict:
    """Write a MEDS dataset of so many patients, at least one in each split, to the folder `out`.

    Returns:
        {"patients", "events", "shards", "codes", "bytes"} of what was written.
    """
    codes, events, shards, first = code_book(), 0, 0, 1
    sizes = {name: max(1, round(share * patients)) for name, share in SPLITS.items() if name != "train"}
    sizes = {"train": patients - sum(sizes.values()), **sizes}
    members: dict[str, tuple[int, int]] = {}
    for split, size in sizes.items():
        members[split] = (first, first + size)
        folder = out / "data" / split
        folder.mkdir(parents=True)
        for number, start in enumerate(range(0, size, patients_a_shard)):
            own = np.arange(first + start, first + min(size, start + patients_a_shard))
            table = _shard(own, codes, np.random.default_rng([seed, int(own[0])]))
            pq.write_table(table, folder / f"{number}.parquet", compression="zstd", store_schema=False)
            events, shards = events + len(table), shards + 1
        first += size
    _write_metadata(out, codes, members)
    written = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    return {
        "patients": patients,
        "events": events,
        "shards": shards,
        "codes": len(codes.names),
        "bytes": written,
    }


def _shard(patients: np.ndarray, codes: Codes, rng: np.random.Generator) -> pa.Table:
    """The events of these patients, sorted: static, birth, the visits, and the death or end of follow-up."""
    sigma = 0.9
    counts = np.clip(
        rng.lognormal(np.log(MEAN_EVENTS - 4) - sigma**2 / 2, sigma, len(patients)), 3, 5000
    ).astype(int)
    code, value, time, last = _visits(counts, codes, rng)
    born = BORN_FROM + (rng.random(len(patients)) * 60 * 365 * DAY).astype(np.int64) // DAY * DAY
    opens = (
        born + OPENS_FROM + (rng.random(len(patients)) * 50 * 365 * DAY).astype(np.int64) // MINUTE * MINUTE
    )
    died = rng.random(len(patients)) < 0.1

    whole = counts + 4
    begin = np.cumsum(whole) - whole
    end = begin + whole - 1
    middle = np.ones(whole.sum(), bool)
    for place in (begin, begin + 1, begin + 2, end):
        middle[place] = False
    all_codes = np.empty(len(middle), np.int32)
    all_codes[begin] = rng.integers(AT["GENDER//F"], AT["GENDER//M"] + 1, len(patients))
    all_codes[begin + 1] = rng.integers(AT["RACE//A"], AT["RACE//C"] + 1, len(patients))
    all_codes[begin + 2] = AT["MEDS_BIRTH"]
    all_codes[end] = np.where(died, AT["MEDS_DEATH"], AT["FOLLOW_UP//END"])
    all_codes[middle] = code
    times = np.zeros(len(middle), np.int64)
    times[begin + 2] = born
    times[middle] = time + np.repeat(opens, counts)
    times[end] = (
        opens + last + (rng.exponential(200, len(patients)) * DAY).astype(np.int64) // MINUTE * MINUTE
    )
    values = np.full(len(middle), np.nan, np.float32)
    values[middle] = value
    static = np.zeros(len(middle), bool)
    static[begin] = static[begin + 1] = True
    return pa.table(
        [
            pa.array(np.repeat(patients, whole)),
            pa.array(times, pa.int64(), mask=static).cast(pa.timestamp("us")),
            pa.DictionaryArray.from_arrays(pa.array(all_codes), pa.array(codes.names)),
            pa.array(values, mask=np.isnan(values)),
        ],
        SCHEMA.names,
    )


def _visits(counts: np.ndarray, codes: Codes, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Codes, values (NaN for none) and microseconds since the record opened of all events; and each patient's last."""
    total, begin = counts.sum(), np.cumsum(counts) - counts
    opening = rng.random(total) < 1 / 12
    opening[begin] = True
    same = rng.random(total) < 0.35
    gap = np.where(same, 0, rng.lognormal(np.log(20), 1.5, total)) * MINUTE
    days = rng.lognormal(np.log(30), 1.6, total)
    gap = np.where(opening, np.minimum(days, 5 * 365) * DAY, gap)
    gap[begin] = 0
    length = np.add.reduceat(gap, begin)
    gap *= np.repeat(np.minimum(1, LONGEST / np.maximum(length, 1)), counts)
    since = np.cumsum(gap.astype(np.int64) // MINUTE * MINUTE)
    since -= np.repeat(since[begin], counts)

    likely = np.cumsum(codes.share)
    code = np.searchsorted(likely, rng.random(total) * likely[-1], side="right").astype(np.int32)
    noise = rng.standard_normal(total).astype(np.float32)
    value = codes.size[code] * np.exp(codes.spread[code] * noise)
    # three digits, as laboratories report
    digits = 10.0 ** (np.floor(np.log10(value)) - 2)
    value = np.where(codes.spread[code] > 0, np.round(value / digits) * digits, np.nan)

    hospital = (rng.random(total) < 0.2)[_latest(opening)]
    closing = np.append(opening[1:], True) & ~opening
    code = np.where(opening, AT["ENCOUNTER_START//OUTPATIENT"] + hospital, code)
    code = np.where(closing, AT["ENCOUNTER_END//OUTPATIENT"] + hospital, code)
    return code, np.where(opening | closing, np.nan, value), since, since[begin + counts - 1]


def _latest(flags: np.ndarray) -> np.ndarray:
    """For each place the place of the latest flag at or before it."""
    return np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))


def _some(rng: np.random.Generator, number: int, draw) -> list[str]:
    """So many different draws, in the order of their first."""
    found: dict[str, None] = {}
    while len(found) < number:
        found[draw()] = None
    return list(found)


def _digits(rng: np.random.Generator, least: int, most: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, rng.integers(least, most + 1)))


def _write_metadata(out: Path, codes: Codes, members: dict[str, tuple[int, int]]) -> None:
    folder = out / "metadata"
    folder.mkdir()
    nothing = [None] * len(codes.names)
    pq.write_table(
        pa.table(
            {
                "code": pa.array(codes.names),
                "description": pa.array(nothing, pa.string()),
                "parent_codes": pa.array(nothing, pa.list_(pa.string())),
            }
        ),
        folder / "codes.parquet",
    )
    splits = [
        pa.table(
            {
                "subject_id": np.arange(*bounds),
                "split": pa.array([split]).take(pa.array(np.zeros(bounds[1] - bounds[0], np.int8))),
            }
        )
        for split, bounds in members.items()
    ]
    pq.write_table(pa.concat_tables(splits), folder / "subject_splits.parquet", compression="zstd")
    facts = {"dataset_name": "synthetic", "etl_name": "sequela bench", "meds_version": "0.4.1"}
    (folder / "dataset.json").write_text(json.dumps(facts))


def main() -> None:
    """Write one dataset and print what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(write(given.out, given.patients, seed=given.seed)))


if __name__ == "__main__":
    main()
