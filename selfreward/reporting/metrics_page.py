"""Print the glossary as a page: `python -m selfreward.reporting.metrics_page > docs/metrics.md` updates the docs."""

from selfreward.reporting.glossary import groups
from selfreward.reporting.templating import render

if __name__ == "__main__":
    print(render("metrics.md.j2", groups=groups()), end="")
