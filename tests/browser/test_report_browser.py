"""report.html in a real browser: hostile text is escaped, nothing is fetched, narrow and dark screens are supported."""

import functools
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cases.reporting import HOSTILE, make_run, write
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")

# CONTROL shows that the browser fetches and runs unprotected content; RULER shows the page in a frame to measure it.
CONTROL = "<!doctype html><title>control</title><img src=/leak.png><script>document.title = 'owned'</script>"
RULER = """<!doctype html><title>waiting</title>
<iframe src="/report.html" style="width:{width}px;height:900px;border:0">
</iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const inner = frame.contentDocument;
  document.title = `wide ${{inner.documentElement.scrollWidth}} of ${{inner.documentElement.clientWidth}}`;
}};
</script>"""


@dataclass(frozen=True)
class Site:
    """A folder served on this machine, and every path that was requested."""

    folder: Path
    url: str
    requested: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    requested: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            requested.append(self.path)

    folder = tmp_path_factory.mktemp("site") / "run"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    url = f"http://127.0.0.1:{server.server_port}"
    leaks = (
        f'<img src="{url}/leak.png"><link rel=stylesheet href="{url}/leak.css"><script src="{url}/leak.js"></script>'
    )
    write(make_run(folder, num_iterations=2, hostile=HOSTILE + leaks, rich=True), banner=HOSTILE + leaks)
    (folder / "control.html").write_text(CONTROL)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(folder, url, requested)
    server.shutdown()
    thread.join()
    server.server_close()


def browse(profile: Path, *arguments: str) -> str:
    assert CHROMIUM
    quiet = ("--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-sync")
    command = [CHROMIUM, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_hostile_text_does_not_become_elements(site: Site, tmp_path: Path) -> None:
    dom = browse(tmp_path, "--dump-dom", f"file://{site.folder}/report.html")
    assert "<title>made · selfreward</title>" in dom
    for tag in ("script", "iframe", "img"):
        assert f"<{tag}" not in dom
    assert dom.count("<style") == dom.count("<h1") == dom.count("<main") == 1
    assert "&lt;script&gt;document.title='owned'&lt;/script&gt;" in dom
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', dom))


def test_nothing_is_fetched(site: Site, tmp_path: Path) -> None:
    site.requested.clear()
    browse(tmp_path / "a", "--dump-dom", f"{site.url}/control.html")
    assert "/leak.png" in site.requested  # the browser fetches the content of an unprotected page
    site.requested.clear()
    browse(tmp_path / "b", "--dump-dom", f"{site.url}/report.html")
    assert site.requested == ["/report.html"]


@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_is_never_wider_than_the_window(site: Site, tmp_path: Path, width: int) -> None:
    (site.folder / "ruler.html").write_text(RULER.format(width=width))
    dom = browse(tmp_path, "--dump-dom", "--virtual-time-budget=10000", f"{site.url}/ruler.html")
    found = re.search(r"<title>wide (\d+) of (\d+)</title>", dom)
    assert found, dom[:200]
    assert int(found[1]) <= int(found[2]) <= width


def test_the_page_follows_the_preferred_colour_scheme(site: Site, tmp_path: Path) -> None:
    brightness = {}
    for scheme in (0, 1):  # Chromium's numbers for dark and light
        picture = tmp_path / f"{scheme}.png"
        browse(
            tmp_path / str(scheme), f"--blink-settings=preferredColorScheme={scheme}", "--window-size=800,600",
            f"--screenshot={picture}", f"file://{site.folder}/report.html",
        )  # fmt: skip
        with Image.open(picture) as image:
            grey = image.convert("L")
            assert grey.size == (800, 600)
            low, high = grey.getextrema()
            assert high - low > 150  # the text contrasts with the background
            brightness[scheme] = grey.getpixel((2, 2))
    assert brightness[0] < 50 < 200 < brightness[1]
