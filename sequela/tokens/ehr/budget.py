"""Which codes get a token: those that enough training patients have, within the budget of their family."""

from __future__ import annotations

import numpy as np
import polars as pl

from sequela.record.schema import RACE_PREFIX, SEX_PREFIX
from sequela.tokens.ehr.code import part_place, split_code
from sequela.tokens.ehr.family import PROCEDURE_UNKNOWN, keep
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.statistics import Statistics


def chosen(statistics: Statistics, settings: TokenSettings) -> tuple[set[str], list[str]]:
    """The codes that have a token, at least for their first part, and the names of all tokens of codes, sorted.

    A hierarchical code is as frequent as its first part, and each later part by itself.
    """
    carriers = dict(zip(statistics.parts, statistics.part_carriers.tolist(), strict=True))
    # Sex and race are tokens of the head; where a source dates them they are no events.
    head = np.array([name.startswith((SEX_PREFIX, RACE_PREFIX)) for name in statistics.names], bool)
    rows = np.flatnonzero(np.where(head, 0, statistics.events))
    codes = [statistics.names[row] for row in rows]
    first = [code if settings.joint else split_code(code)[0] for code in codes]
    counts = pl.DataFrame(
        {
            "code": codes,
            "events": statistics.events[rows],
            "patients": [carriers[part] for part in first],
        },
        schema_overrides={"code": pl.String, "patients": pl.Int64},
    )
    limits = {"lab": settings.labs, "procedure": settings.procedures}
    kept, unknown = keep(counts, limits, settings.min_patients)
    held = set(kept)
    names = {part for part, code in zip(first, codes, strict=True) if code in held}
    if not settings.joint:
        names |= {
            part for part, many in carriers.items() if part_place(part) > 1 and many >= settings.min_patients
        }
    return held, sorted(names | ({PROCEDURE_UNKNOWN} if unknown else set()))
