"""Extracts one figure of a report.html as an SVG file, for example for a README.

python benchmarks/figure_of_report.py runs/verifier/report.html "Pass rate" docs/verifier.svg
"""

import re
import sys
from pathlib import Path

STYLE = """<style>
svg { --ink: #1d2023; --muted: #666b70; --rule: #e4e2dc; --series-1: #14706f; --series-2: #c8693a; }
svg { background: #fbfaf8; }
text { font: 11px sans-serif; }
</style>"""


def figure(page: str, label: str) -> str:
    """Return the SVG whose label begins with `label`, with the colours of the page."""
    found = re.search(rf'<svg ([^>]*aria-label="{re.escape(label)}[^"]*"[^>]*)>(.*?)</svg>', page, re.DOTALL)
    if found is None:
        labels = re.findall(r'aria-label="([^"]+)"', page)
        raise SystemExit(f"no figure {label!r}; there are: {', '.join(labels)}")
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="640" {found[1]}>{STYLE}{found[2]}</svg>\n'


def main() -> None:
    page, label, target = sys.argv[1:]
    Path(target).write_text(figure(Path(page).read_text(encoding="utf-8"), label), encoding="utf-8")


if __name__ == "__main__":
    main()
