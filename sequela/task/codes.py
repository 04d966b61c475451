"""Patterns of codes for frames."""

from __future__ import annotations

import polars as pl

from sequela.record.spelling import among, matches_code


def matches(patterns: tuple[str, ...]) -> pl.Expr:
    """Whether the column `code` matches any of `patterns`: `matches_code` for frames. Not for use within groups.

    Each distinct code is looked at once.
    """

    def found(codes: pl.Series) -> pl.Series:
        wanted = among(codes, lambda code: matches_code(code, patterns))
        return codes.rename("code").to_frame().select(wanted).to_series()

    return pl.col("code").map_batches(found, return_dtype=pl.Boolean, is_elementwise=True)
