import numpy as np
import polars as pl
import pytest

from sequela.task.baselines import windows
from sequela.task.baselines.histories import Histories
from sequela.task.baselines.windows import FEWEST_HISTORIES, WindowTable

VALUES = [(8.0, "LAB//A", 4.0), (4.0, "LAB//A", 1.0), (2.0, "LAB//A", 3.0), (1.0, "DIAGNOSIS//X", None)]


def made(count: int = FEWEST_HISTORIES, history: list[tuple] = VALUES) -> Histories:
    rows = [(row, ago, code, number) for row in range(count) for ago, code, number in history]
    schema = {"row": pl.UInt32, "ago": pl.Float64, "code": pl.String, "number": pl.Float32}
    return Histories(pl.DataFrame(rows, schema=schema, orient="row"), np.full((count, 3), 50, np.float32))


def test_the_columns_of_a_history():
    table = WindowTable.of(made())
    row = dict(zip(table.names, table.values(made())[0].tolist(), strict=True))
    assert table.look_backs == (1.0, 2.0, 4.0)
    log = np.log1p
    expected = {
        "age": 50, "events": log(4), "codes": 2, "last event": log(1), "first event": log(8),
        "LAB//A count": log(3), "LAB//A since": log(2), "DIAGNOSIS//X count": log(1),
        "LAB//A last": 3, "LAB//A mean": 8 / 3, "LAB//A min": 1, "LAB//A max": 4,
        "LAB//A std": np.std([4, 1, 3], ddof=1),
        "LAB//A slope": np.polyfit([-8, -4, -2], [4, 1, 3], 1)[0], "LAB//A change": -1, "LAB//A step": 2,
        "LAB//A count, 2 days": log(1), "LAB//A mean, 2 days": 3, "LAB//A count, 1 days": 0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert np.isnan(row["LAB//A mean, 1 days"])


def test_an_empty_history_has_counts_of_0_and_nothing_else():
    table = WindowTable.of(made())
    nothing = Histories(made().events.clear(), made(1).person)
    row = dict(zip(table.names, table.values(nothing)[0].tolist(), strict=True))
    known = {name for name, value in row.items() if not np.isnan(value)}
    assert known == {"age", "sex", "year"} | {name for name in table.names if " count" in name}
    assert all(row[name] == 0 for name in known if "count" in name)


def test_training_histories_decide_on_the_columns_and_the_frequent_codes_come_first(monkeypatch):
    more = made(FEWEST_HISTORIES + 5, [(3.0, "DIAGNOSIS//X", None)])
    both = Histories(pl.concat([made().events, more.events]), more.person)
    assert WindowTable.of(both).codes["code"].to_list() == ["DIAGNOSIS//X", "LAB//A"]
    assert WindowTable.of(made(FEWEST_HISTORIES - 1)).codes.is_empty()
    monkeypatch.setattr(windows, "MOST_COLUMNS", 15)
    assert WindowTable.of(both).codes["code"].to_list() == ["DIAGNOSIS//X"]
    assert len(WindowTable.of(both).names) <= 15
