"""Conversion of plots to inline SVG, with the same bytes for the same numbers.

Colours are names of CSS variables, so one figure serves the light and the dark page. Text remains text.
"""

import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib needs colours, the page uses CSS variables: each placeholder colour is replaced in the SVG.
_PLACEHOLDERS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    **{f"#0404{i:02x}": f"var(--series-{i})" for i in range(1, 10)},
}
INK, MUTED, RULE = "#010101", "#020202", "#030303"
_WIDTH, _HEIGHT = 4.4, 2.5  # inches at 100 px each
_FONT_PX = 11


def series(index: int) -> str:
    """Return the colour of a series, 1 to 9."""
    return f"#0404{index:02x}"


def legend(axes: "Axes") -> None:
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, handlelength=1.2, borderaxespad=0.1,
        columnspacing=1.4, handletextpad=0.5, labelcolor=INK,
    )  # fmt: skip


def line_at(axes: "Axes", value: float, *, dashed: bool = True) -> None:
    """Draw a horizontal reference line."""
    axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (3, 3)) if dashed else "-")


def render_plot(plot: Callable[["Axes"], None], *, alt: str, width: float = _WIDTH, height: float = _HEIGHT) -> Markup:
    """Return the SVG of what `plot` draws on one pair of axes; `width` and `height` in inches of 100 pixels."""
    return render_figure(lambda figure: plot(figure.subplots()), alt=alt, width=width, height=height)


def render_figure(
    draw: Callable[["Figure"], None], *, alt: str, width: float = _WIDTH, height: float = _HEIGHT
) -> Markup:
    """Return the SVG of what `draw` draws on an empty figure."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "svg.hashsalt": "selfreward", "font.size": _FONT_PX * 0.72,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.edgecolor": MUTED,
        "axes.linewidth": 0.8, "axes.labelcolor": MUTED, "axes.grid": True, "axes.grid.axis": "y",
        "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.8, "xtick.color": MUTED,
        "ytick.color": MUTED, "xtick.major.size": 0, "ytick.major.size": 0, "legend.fontsize": _FONT_PX * 0.72,
        "text.parse_math": False, "axes.unicode_minus": True, "axes.formatter.useoffset": False,
        "axes.titlecolor": INK, "axes.titlesize": _FONT_PX * 0.72, "axes.titlelocation": "left", "text.color": INK,
    }  # fmt: skip
    out = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), alt)


def _inline(document: str, alt: str) -> Markup:
    """Return an SVG document as an element of the page: unique ids, CSS colours, the page's font, no fixed size."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\s*<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    # Ids must be unique across the figures of a page: each figure prefixes the ids that something refers to.
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for placeholder, variable in _PLACEHOLDERS.items():
        svg = svg.replace(placeholder, variable)
    box = re.search(r'viewBox="([^"]*)"', svg)
    view_box = box.group(1) if box else ""
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box, alt)
    body = re.sub(r"\s+", " ", svg[svg.index(">") + 1 :]).replace("> <", "><").replace("xlink:href", "href")
    # Not escaped again: matplotlib produced it from our own numbers and labels.
    return opening + Markup(body)
