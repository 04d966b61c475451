"""The picture of the README: who is drawn, and that it shows what the futures say."""

import re
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

from docs.picture import COLORS, DIAGNOSES, Future, Mark, Story, choose, draw

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
AT = datetime(2000, 1, 2)


def predictions(*risks: float) -> pl.DataFrame:
    return pl.DataFrame({
        "subject_id": range(len(risks)),
        "prediction_time": [AT] * len(risks),
        "predicted_boolean_probability": risks,
    })  # fmt: skip


def diagnoses(patient: int, count: int, when: datetime) -> pl.DataFrame:
    return pl.DataFrame({
        "subject_id": [patient] * count,
        "time": [when] * count,
        "code": [f"DIAGNOSIS//{number}" for number in range(count)],
    })  # fmt: skip


def story(*ends: float) -> Story:
    """Futures that end in death after so many years, and one that does not."""
    died = [Future([Mark(end, "death", "death")], end) for end in ends]
    history = [Mark(-3.0, "heart", "stroke"), Mark(-1.0, "measured", "hdl"), Mark(-20.0, "diagnosis", "gout")]
    return Story(
        "a woman of 70", history, [*died, Future([Mark(2.0, "measured", "sbp")], 5.0)], 0.42, 0.3, 0.6
    )


def marks(svg: str, style: str) -> int:
    return len(ElementTree.fromstring(svg).findall(f".//{SVG}*[@class='{style}']"))


def test_the_patient_is_the_one_with_many_diagnoses_whose_risk_is_nearest() -> None:
    recent, old = datetime(1998, 1, 1), datetime(1980, 1, 1)
    events = pl.concat(
        [
            diagnoses(0, DIAGNOSES - 1, recent),  # the nearest risk, with too few diagnoses
            diagnoses(1, DIAGNOSES, old),  # the next, with all of them long ago
            diagnoses(2, DIAGNOSES, AT),  # the next, with all of them in the future
            diagnoses(3, DIAGNOSES, recent),
            diagnoses(4, DIAGNOSES, recent),
        ]
    )
    assert choose(predictions(0.25, 0.26, 0.24, 0.3, 0.9), events) == 3
    with pytest.raises(SystemExit, match="history long enough"):
        choose(predictions(0.25), events)


def test_it_shows_every_future_and_every_death() -> None:
    svg = draw(story(1.0, 2.0, 4.5))
    assert marks(svg, "future dead") == 3 and marks(svg, "future alive") == 1
    assert marks(svg, "death") == 3 + 1  # and one in the legend
    assert "3 of them end in death" in svg and "42%" in svg and "30% to 60%" in svg
    assert marks(draw(story(1.0)), "future dead") == 1


def test_names_stand_beside_diagnoses_of_the_years_shown() -> None:
    svg = draw(story(1.0))
    assert ">stroke<" in svg and ">gout<" not in svg and ">hdl<" not in svg


def test_every_color_has_a_light_and_a_dark_form() -> None:
    light, dark = re.search(r"<style>(.*)@media(.*)</style>", draw(story(1.0)), re.S).groups()
    for day, night in COLORS.values():
        assert day in light and night in dark and day != night


def test_the_file_in_the_repository_is_drawn_by_this_code() -> None:
    svg = (ROOT / "docs" / "picture.svg").read_text()
    assert (
        svg.split("</style>")[0].split("<style>")[1]
        == draw(story(1.0)).split("</style>")[0].split("<style>")[1]
    )
    assert marks(svg, "future alive") + marks(svg, "future dead") == 20
