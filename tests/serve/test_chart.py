"""The pictures are well-formed and put things where the numbers say."""

from xml.etree import ElementTree

import pytest

from sequela.serve.chart import Curve, Lane, Mark, lanes, unit_plot

KINDS = {"death": "#222", "visit": "#999"}


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(tag))


def test_unit_plot_is_well_formed_and_names_its_curves() -> None:
    svg = unit_plot([Curve("a < b", [(0, 0), (0.5, 1), (1, 1)], marks=True)], "x & y", "share")
    words = [node.text for node in elements(svg, "text")]
    assert "a < b" in words
    assert "x & y" in words
    assert len(elements(svg, "circle")) == 3


def test_a_point_lies_where_its_numbers_say() -> None:
    svg = unit_plot([Curve("one", [(0, 0), (1, 1)], marks=True)], "x", "y")
    frame = elements(svg, "rect")[0].attrib
    first, last = (node.attrib for node in elements(svg, "circle"))
    left, top, size = float(frame["x"]), float(frame["y"]), float(frame["width"])
    assert (float(first["cx"]), float(first["cy"])) == pytest.approx((left, top + size))
    assert (float(last["cx"]), float(last["cy"])) == pytest.approx((left + size, top))


def test_lanes_put_marks_in_order_and_leave_out_what_is_outside() -> None:
    marks = [Mark(-1, "visit", "blood < 3"), Mark(2, "death", "death"), Mark(40, "visit", "too late")]
    svg = lanes(
        [Lane("observed", -2, 2, marks, observed=True), Lane("imagined 1", 0, 5, [])],
        KINDS,
        -2,
        5.5,
        "years",
        5,
    )
    circles = elements(svg, "circle")
    assert [node[0].text for node in circles] == ["blood < 3", "death"]
    assert float(circles[0].attrib["cx"]) < float(circles[1].attrib["cx"])
    assert circles[1].attrib["style"] == "fill:#222"
    assert {"observed", "imagined 1", "years"} <= {node.text for node in elements(svg, "text")}


@pytest.mark.parametrize(("start", "end"), [(-3.0, 5.5), (-0.2, 1.1), (-60, 110), (-900, 2000)])
def test_every_axis_has_a_few_round_ticks(start: float, end: float) -> None:
    svg = lanes([], KINDS, start, end, "days", None)
    ticks = [float(node.text) for node in elements(svg, "text") if node.text != "days"]
    assert 2 <= len(ticks) <= 11
    assert 0 in ticks
    assert start <= min(ticks)
    assert max(ticks) <= end
