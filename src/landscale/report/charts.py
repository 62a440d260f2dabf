"""Line charts as SVG, and sheets of pictures as PNG, drawn by matplotlib.

The same input gives the same bytes. Colours are from Okabe and Ito (2008) and can be distinguished with any common colour
blindness; further lines are dashed. Text and axes take the colour of the text around an inline chart.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from xml.sax.saxutils import escape

import numpy as np
from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, RED, PINK, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
GREY = "#888888"
COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, GREY)
SIZE = (420, 280)  # points, of one chart in a file
PAGE_SIZE = (340, 240)  # points, of a chart in a page, where columns are narrower
POINTS_PER_INCH = 72
MOST_MARKERS = 20  # a line of more points has no markers
LONGEST_NAME = 36  # characters of a line's name

INK = "#010203"  # stands for the colour of text in matplotlib's output, where it is replaced by currentColor
STYLE = {
    "svg.fonttype": "none",  # text as text elements, not as outlines
    "svg.hashsalt": "landscale",
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,  # names of runs may contain dollar signs
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


@dataclass(frozen=True)
class ChartLine:
    """One line of a chart.

    Args:
        points: (x, y), x ascending.
        deviations: half the length of the error bar at each point; empty for none.
        intervals: lower and upper end of the error bar at each point, where its halves differ; empty for none.
        reference: what would be ideal: dashed and grey, without markers.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = BLUE
    width: float = 1.5
    deviations: Sequence[float] = ()
    intervals: Sequence[tuple[float, float]] = ()
    reference: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over a common x axis.

    Args:
        ticks: where the x axis has numbers; empty: matplotlib chooses.
        whole_x: only whole numbers on the x axis.
        last_values: the legend gives the last value of every line.
    """

    title: str
    x_name: str
    lines: Sequence[ChartLine]
    log_x: bool = False
    log_y: bool = False
    ticks: Sequence[float] = ()
    whole_x: bool = False
    last_values: bool = False

    @property
    def description(self) -> str:
        """The chart in words, for screen readers: first and last point of every line."""
        texts = [
            f"{line.name}: {line.points[0][1]:.4g} at {line.points[0][0]:.4g}"
            + (f" to {line.points[-1][1]:.4g} at {line.points[-1][0]:.4g}" if len(line.points) > 1 else "")
            for line in self.lines
            if line.points
        ]
        return f"{self.title} by {self.x_name}. {'; '.join(texts) or 'No points'}."


def svg_file(title: str, rows: Sequence[Sequence[Chart]]) -> str:
    """An SVG document of charts in rows, with a white background and one legend for all of them."""
    title, description = _printable(title), " ".join(chart.description for row in rows for chart in row)
    attributes = (
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" style="background: #fff"'
    )
    return f"{_svg(chart_figure(rows), title, description, attributes)}\n"


def png_file(rows: Sequence[Sequence[Chart]]) -> bytes:
    """A PNG file of charts in rows, with one legend for all of them."""
    buffer = BytesIO()
    chart_figure(rows).savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def svg_element(chart: Chart) -> Markup:
    """An `<svg>` element for an HTML page: without a title in the picture, which the page has as a caption."""
    figure = chart_figure([[chart]], PAGE_SIZE, titles=False)
    return Markup(
        _svg(figure, chart.title, chart.description, 'class="chart"')
    )  # matplotlib and `_svg` escape all names


@dataclass(frozen=True)
class Picture:
    """One picture of a sheet: (height, width, 3) uint8, and the lines of text below it."""

    pixels: NDArray[np.uint8]
    lines: Sequence[str]


def picture_sheet(pictures: Sequence[Picture], columns: int = 4) -> bytes:
    """A PNG file of pictures in rows, each with its lines below it."""
    rows = -(-len(pictures) // columns)
    most_lines = max(len(picture.lines) for picture in pictures)
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(2.4 * columns, (2.3 + 0.2 * most_lines) * rows), layout="constrained")
        for k, picture in enumerate(pictures):
            axes = figure.add_subplot(rows, columns, k + 1)
            axes.imshow(picture.pixels, interpolation="nearest")
            axes.set_axis_off()
            text = "\n".join(_shortened(_printable(line)) for line in picture.lines)
            axes.text(0, -0.04, text, transform=axes.transAxes, va="top", fontsize=8, color="black")
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def chart_figure(rows: Sequence[Sequence[Chart]], size: tuple[int, int] = SIZE, *, titles: bool = True) -> Figure:
    """The charts as a matplotlib figure: a grid of axes, row by row, and below it a legend of all lines' names."""
    columns = max(len(row) for row in rows)
    with style.context(["default", STYLE]):
        inches = (columns * size[0] / POINTS_PER_INCH, len(rows) * size[1] / POINTS_PER_INCH)
        figure = Figure(figsize=inches, layout="constrained")
        for axes, chart in _places(figure, rows, columns):
            _draw(axes, chart, title=titles)
        lines = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
        figure.legend(list(lines.values()), list(lines), loc="outside lower left", ncols=4 if columns > 1 else 2)
    return figure


def _places(figure: Figure, rows: Sequence[Sequence[Chart]], columns: int) -> Iterator[tuple[Axes, Chart]]:
    for row, charts in enumerate(rows):
        for column, chart in enumerate(charts):
            yield figure.add_subplot(len(rows), columns, row * columns + column + 1), chart


def _draw(axes: Axes, chart: Chart, *, title: bool) -> None:
    if title:
        axes.set_title(_printable(chart.title))
    axes.set_xlabel(_printable(chart.x_name))
    for line in chart.lines:
        _draw_line(axes, line, chart)
    if chart.log_x:
        axes.set_xscale("log")
        _label_logarithmic(axes.xaxis)
    if chart.log_y:
        axes.set_yscale("log")
        _label_logarithmic(axes.yaxis)
    if chart.ticks:
        axes.xaxis.set_major_locator(FixedLocator(list(chart.ticks)))
    elif chart.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_line(axes: Axes, line: ChartLine, chart: Chart) -> None:
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    (drawn,) = axes.plot(
        xs,
        ys,
        color=GREY if line.reference else line.colour,
        linewidth=line.width,
        linestyle="--" if line.reference or line.dashed else "-",
        marker="" if line.reference or len(xs) > MOST_MARKERS else "o",
        markersize=4,
        clip_on=False,
    )
    name = _printable(line.name)
    name = _shortened(name)
    drawn.set_label(f"{name}: {ys[-1]:.4g}" if chart.last_values and ys else name)
    if line.deviations:
        below = [min(d, 0.9 * y) if chart.log_y else d for d, (_, y) in zip(line.deviations, line.points, strict=True)]
        axes.errorbar(xs, ys, yerr=[below, list(line.deviations)], fmt="none", ecolor=line.colour, label="_bars")
    if line.intervals:
        # matplotlib refuses negative lengths; a figure can lie just outside the interval of its bootstrap samples.
        halves = [(max(y - low, 0.0), max(high - y, 0.0)) for y, (low, high) in zip(ys, line.intervals, strict=True)]
        axes.errorbar(xs, ys, yerr=list(zip(*halves, strict=True)), fmt="none", ecolor=line.colour, label="_bars")


def _label_logarithmic(axis: Axis) -> None:
    """Plain numbers: at 1, 2 and 5 times powers of ten, or at even steps if the axis covers less than one power."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high >= 10 * low else MaxNLocator(5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, title: str, description: str, attributes: str) -> str:
    """matplotlib's SVG without the parts that are wrong in a page with other charts.

    These are the XML prologue, metadata, style rules for all elements, and ids, which several charts would share. Clipping is
    not needed, because nothing lies outside the axes.
    """
    buffer = StringIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's fonts draw the text
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    content = re.sub(r"\s*<(metadata|style|clipPath)\b.*?</\1>", "", buffer.getvalue(), flags=re.DOTALL)
    content = re.sub(r' clip-path="[^"]*"|(?<=<g) id="[^"]*"', "", content).replace(INK, "currentColor")
    start = re.search(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', content)
    assert start is not None
    texts = f"<title>{escape(_printable(title))}</title><desc>{escape(_printable(description))}</desc>"
    return f'<svg {attributes} viewBox="{start[1]}" role="img">{texts}{content[start.end() :].rstrip()}'


def _printable(text: str) -> str:
    """Without control characters, which XML does not allow. Tabs and line breaks become spaces."""
    return "".join(c if c.isprintable() else " " for c in text)
