"""The pictures are well-formed and put things where the numbers say."""

from xml.etree import ElementTree

import pytest

from sequela.serve.pages.chart import Axis, EventMark, PlotLine, TimelineRow, plot, timelines, unit_plot

KINDS = {"death": "#222", "visit": "#999"}


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(tag))


def test_unit_plot_is_well_formed_and_names_its_curves() -> None:
    svg = unit_plot([PlotLine("a < b", [(0, 0), (0.5, 1), (1, 1)], marks=True)], "x & y", "share")
    words = [node.text for node in elements(svg, "text")]
    assert "a < b" in words
    assert "x & y" in words
    assert len(elements(svg, "circle")) == 3


def test_a_point_lies_where_its_numbers_say() -> None:
    svg = unit_plot([PlotLine("one", [(0, 0), (1, 1)], marks=True)], "x", "y")
    frame = elements(svg, "rect")[0].attrib
    first, last = (node.attrib for node in elements(svg, "circle"))
    left, top, size = float(frame["x"]), float(frame["y"]), float(frame["width"])
    assert (float(first["cx"]), float(first["cy"])) == pytest.approx((left, top + size))
    assert (float(last["cx"]), float(last["cy"])) == pytest.approx((left + size, top))


def test_lanes_put_marks_in_order_and_leave_out_what_is_outside() -> None:
    marks = [EventMark(-1, "visit", "blood < 3"), EventMark(2, "death", "death"), EventMark(40, "visit", "too late")]
    svg = timelines(
        [TimelineRow("observed", -2, 2, marks, observed=True), TimelineRow("simulated 1", 0, 5, [])],
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
    assert {"observed", "simulated 1", "years"} <= {node.text for node in elements(svg, "text")}


@pytest.mark.parametrize(("start", "end"), [(-3.0, 5.5), (-0.2, 1.1), (-60, 110), (-900, 2000)])
def test_every_axis_has_a_few_round_ticks(start: float, end: float) -> None:
    svg = timelines([], KINDS, start, end, "days", None)
    ticks = [float(node.text) for node in elements(svg, "text") if node.text != "days"]
    assert 2 <= len(ticks) <= 11
    assert 0 in ticks
    assert start <= min(ticks)
    assert max(ticks) <= end


def test_on_a_log_axis_equal_ratios_are_equal_steps() -> None:
    points = [(1e3, 4.0), (1e4, 5.0), (1e5, 6.0)]
    axes = Axis.around("parameters", [1e3, 1e5], log=True), Axis.around("bits", [4.0, 6.0])
    svg = plot([PlotLine("isoFLOP", points, marks=True, line=False)], *axes)
    first, second, third = (float(node.attrib["cx"]) for node in elements(svg, "circle"))
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert elements(svg, "polyline") == []
    assert {"1000", "1e4", "1e5"} >= {node.text for node in elements(svg, "text")} & {"1000", "1e4", "1e5"}


def test_what_lies_outside_the_axes_is_not_drawn() -> None:
    svg = plot([PlotLine("one", [(0.5, 0.5), (3, 0.5)], marks=True)], Axis("x", 0, 1), Axis("y", 0, 1))
    assert len(elements(svg, "circle")) == 1


@pytest.mark.parametrize(
    "axis",
    [
        Axis("x", 0, 1),
        Axis("x", 3.71, 3.78),
        Axis("x", 2e5, 9e6, log=True),
        Axis("x", 2.1, 2.3, log=True),
        Axis("x", 1, 1e18, log=True),
        Axis.around("x", [5.0]),
        Axis.around("x", [5.0], log=True),
    ],
)
def test_every_axis_has_a_few_ticks_within(axis: Axis) -> None:
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 8
    assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value, _ in ticks)
    assert len({words for _, words in ticks}) == len(ticks)


def test_more_curves_than_colors_are_all_drawn() -> None:
    svg = plot([PlotLine(str(n), [(0, 0), (1, 1)]) for n in range(9)], Axis("x", 0, 1), Axis("y", 0, 1))
    assert len(elements(svg, "polyline")) == 9
