"""Patterns of codes: an exact code, or a prefix that ends with `*`."""

from __future__ import annotations

from functools import reduce
from operator import or_

import polars as pl


def matches_code(code: str, patterns: tuple[str, ...]) -> bool:
    """Whether `code` matches any of `patterns`.

    >>> matches_code("ICD10CM//I214", ("MEDS_DEATH", "ICD10CM//I21*"))
    True
    """
    return any(code.startswith(p[:-1]) if p.endswith("*") else code == p for p in patterns)


def matches(patterns: tuple[str, ...]) -> pl.Expr:
    """Whether the column `code` matches any of `patterns`: `matches_code` for frames."""
    code = pl.col("code")
    exact = [p for p in patterns if not p.endswith("*")]
    return reduce(or_, (code.str.starts_with(p[:-1]) for p in patterns if p.endswith("*")), code.is_in(exact))
