"""Implausible records are counted, not changed."""

from __future__ import annotations

import polars as pl

from sequela.record.ingest.leakage import boundaries
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END, means
from sequela.record.spelling import SEXES, among, is_sex, spelled


def count_implausible(events: pl.DataFrame) -> dict[str, int]:
    """Implausible finding -> number of patients with it, zeros included.

    "discharge before admission": at some time, more stays of one kind had ended than begun, although at the end of the
    record at least as many had begun as ended. A record that starts in the middle of a stay is therefore not counted.

    Args:
        events: a MEDS frame in any order, without duplicates.
    """
    code, patient = events["code"].unique(), pl.col("subject_id")
    births = events.filter(among(code, lambda code: means(code, BIRTH))).select(patient)["subject_id"]
    died = events.filter(among(code, lambda code: means(code, DEATH)))
    deaths = died.group_by(patient).agg(pl.len(), death=pl.col("time").min())
    sex = events.filter(among(code, is_sex)).with_columns(pl.col("code").cast(pl.String))
    sex = sex.with_columns(pl.col("code").replace({code: spelled(code) for code in sex["code"].unique()}))
    sex = sex.group_by(patient).agg(pl.col("code").n_unique(), known=pl.col("code").is_in(SEXES).any())
    alive = events.filter(~among(code, lambda code: means(code, FOLLOW_UP_END)))
    late = alive.join(deaths.select("subject_id", "death"), on="subject_id")
    balance = (pl.col("opens").cast(pl.Int64) - pl.col("closes")).cum_sum()
    stays = boundaries(events).group_by("subject_id", "stay", maintain_order=True)
    stays = stays.agg(least=balance.min(), last=balance.last())
    turned = stays.filter((pl.col("least") < 0) & (pl.col("last") >= 0))
    return {
        "no birth": events["subject_id"].n_unique() - births.n_unique(),
        "two births": births.filter(births.is_duplicated()).n_unique(),
        "no sex": events["subject_id"].n_unique() - sex["known"].sum(),
        "two sexes": sex.filter(pl.col("code") > 1).height,
        "two deaths": deaths.filter(pl.col("len") > 1).height,
        "events after death": late.filter(pl.col("time") > pl.col("death"))["subject_id"].n_unique(),
        "discharge before admission": turned["subject_id"].n_unique(),
    }
