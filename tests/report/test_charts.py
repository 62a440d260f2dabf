"""Charts: their content, that drawing is deterministic, and that names and values of any kind are drawn safely."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from landscale.report.charts import COLOURS, GREY, Chart, ChartLine, chart_figure, svg_element, svg_file

HOSTILE = "<script>alert('x')</script>\" onload=\"alert(2) $\\frac$ \x00 _"
NAMESPACE = "{http://www.w3.org/2000/svg}"


def one(*lines: ChartLine, **how: object) -> Chart:
    return Chart("F1", "epoch", lines, **how)  # type: ignore[arg-type]


def axes_of(chart: Chart):
    return chart_figure([[chart]]).axes[0]


def test_lines_are_drawn_as_they_are_given():
    points = [(1.0, 0.2), (2.0, 0.4), (5.0, 0.3)]
    solid, dashed, ideal = axes_of(
        one(
            ChartLine("a", points, COLOURS[1], width=3.0),
            ChartLine("b", points[:2], dashed=True),
            ChartLine("c", points, COLOURS[2], reference=True),
        )
    ).get_lines()
    assert [tuple(point) for point in solid.get_xydata()] == points
    assert (to_hex(solid.get_color()), solid.get_linewidth()) == (COLOURS[1], 3.0)
    assert [line.get_linestyle() for line in (solid, dashed, ideal)] == ["-", "--", "--"]
    assert [line.get_marker() for line in (solid, dashed, ideal)] == ["o", "o", ""]
    assert to_hex(ideal.get_color()) == GREY


def test_a_long_line_has_no_markers():
    assert axes_of(one(ChartLine("a", [(k, k) for k in range(20)]))).get_lines()[0].get_marker() == "o"
    assert axes_of(one(ChartLine("a", [(k, k) for k in range(21)]))).get_lines()[0].get_marker() == ""


def test_error_bars_have_their_length_and_stay_above_zero_on_a_logarithmic_axis():
    line = ChartLine("a", [(1, 10.0), (2, 1.0)], deviations=[2.0, 3.0])
    for log_y, lowest in ((False, -2.0), (True, 0.1)):
        (bars,) = axes_of(one(line, log_y=log_y)).collections
        ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert ends[0] == [8.0, 12.0]
        assert ends[1] == pytest.approx([lowest, 4.0])


def test_error_bars_of_intervals_end_where_these_do():
    line = ChartLine("a", [(1, 0.9), (2, 0.5), (3, 0.7)], intervals=[(0.6, 1.0), (0.5, 0.5), (0.71, 0.8)])
    (bars,) = axes_of(one(line)).collections
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx(pair) for pair in ([0.6, 1.0], [0.5, 0.5], [0.7, 0.8])]


def test_axes():
    line = ChartLine("a", [(1, 0.3), (4, 300.0)])
    plain = axes_of(one(line))
    assert (plain.get_xscale(), plain.get_yscale(), plain.get_xlabel()) == ("linear", "linear", "epoch")
    axes = axes_of(one(line, log_x=True, log_y=True, ticks=(1, 4)))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xticks().tolist() == [1, 4]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert {"0.5", "1", "2", "5", "100", "200"} <= set(labels)
    near = axes_of(one(ChartLine("a", [(1, 0.7), (4, 0.9)]), log_y=True))
    assert len([tick for tick in near.get_yticks() if 0.7 <= tick <= 0.9]) >= 2
    whole = axes_of(one(ChartLine("a", [(1, 1), (2, 2)]), whole_x=True))
    assert all(tick == round(tick) for tick in whole.get_xticks())


def test_the_legend_names_every_line_once():
    lines = [ChartLine("a", [(1, 1), (2, 0.125)]), ChartLine("b" * 50, [(1, 1)]), ChartLine("empty", [])]
    rows = [[one(*lines), one(*lines)], [one(*lines), one(*lines)]]
    (legend,) = chart_figure(rows).legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b" * 35 + "…", "empty"]
    (legend,) = chart_figure([[one(*lines, last_values=True)]]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["a: 0.125", "b" * 35 + "…: 1", "empty"]


def test_a_file_stands_alone_and_is_the_same_every_time():
    rows = [[one(ChartLine("a", [(1, 1), (2, 3)], deviations=[1, 1])), one(ChartLine("b", [(1, 2)]))]]
    text = svg_file("Speed & size", rows)
    assert text == svg_file("Speed & size", rows)
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") == "0 0 840 280"
    assert root.find(f"{NAMESPACE}title").text == "Speed & size"
    description = root.find(f"{NAMESPACE}desc").text
    assert description == "F1 by epoch. a: 1 at 1 to 3 at 2. F1 by epoch. b: 2 at 1."
    assert [element.text for element in root.iter(f"{NAMESPACE}text")].count("F1") == 2  # the titles of both charts
    assert "url(" not in text


def test_an_element_of_a_page_takes_the_pages_colours_and_shares_no_ids():
    text = str(svg_element(one(ChartLine("a", [(1, 1), (2, 3)]))))
    assert text.startswith('<svg class="chart"')
    assert text.endswith("</svg>")
    assert "currentColor" in text
    assert "#010203" not in text
    assert ">F1</text>" not in text  # the page has it as a caption
    for part in ("xmlns", "<style", "http:", '<g id="', "clip"):
        assert part not in text


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(-1e9, 1e9)), max_size=8, unique_by=lambda point: point[0]),
    st.sampled_from(["loss", HOSTILE, "损失", ""]),
)
@settings(max_examples=10)
def test_names_and_values_of_any_kind_are_drawn(points, name):
    chart = Chart(name, name, [ChartLine(name, sorted(points)), ChartLine("other", sorted(points))], last_values=True)
    root = ElementTree.fromstring(svg_file(name, [[chart]]))
    assert not list(root.iter(f"{NAMESPACE}script"))
    assert not [key for element in root.iter() for key in element.attrib if key.startswith("on")]
