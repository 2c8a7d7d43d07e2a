# SPDX-License-Identifier: GPL-3.0-or-later
"""The page in headless Chromium, at widths from a phone to a desktop. Skipped where no Chromium is installed."""

import html
import json
import re
import shutil
import subprocess

import pytest

WIDTHS = (320, 390, 840, 980, 1280)  # a phone and a desktop, and on both sides of where the wide tables turn into cards
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# As root there is no sandbox; the rest keeps it from asking the network.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
]
# The page stands in a frame of each width, which its media queries see as the width of the screen.
SCRIPT = """
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, root = page.documentElement, wide = frame.clientWidth;
  const box = element => element.getBoundingClientRect();
  const seen = [...page.querySelectorAll("body *")].filter(element => box(element).width > 0);
  found[wide] = {
    viewport: root.clientWidth,
    scroll: root.scrollWidth,
    outside: seen.filter(e => box(e).right > wide + 0.5 || box(e).left < -0.5).map(e => e.tagName + "." + e.className),
    bars: [...page.querySelectorAll(".gpu:not(.unused)")].map(bar => ({
      width: box(bar).width,
      parts: [...bar.querySelectorAll(".part")].map(part => ({gib: Number(part.dataset.gib), width: box(part).width})),
    })),
    cut: seen.filter(e => !e.matches(".part *, .part, .gpu, .range") && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden").length,
    labels: [...page.querySelectorAll(".part span")].filter(e => box(e).width > box(e.parentElement).width + 0.5 && box(e).width > 0).map(e => e.textContent),
    smallest: Math.min(...seen.filter(e => e.childNodes.length && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
      .map(e => parseFloat(getComputedStyle(e).fontSize))),
    background: getComputedStyle(page.body).backgroundColor,
    ranges: [...page.querySelectorAll(".range")].map(e => ({track: [box(e).left, box(e).right], bar: [box(e.firstChild).left, box(e.firstChild).right]})),
  };
}
document.title = "measured";
document.body.innerHTML = "<pre id=measures></pre>";
document.getElementById("measures").textContent = JSON.stringify(found);
"""


@pytest.fixture(scope="module")
def measured(planned, render, tmp_path_factory):
    """Measures by width of the frame."""
    if not CHROMIUM:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium): the page is not looked at in a browser")
    folder = tmp_path_factory.mktemp("browser")
    page = html.escape(render(*planned))
    frames = "".join(f'<iframe style="width: {width}px; height: 800px; border: 0" srcdoc="{page}"></iframe>' for width in WIDTHS)
    shell = folder / "shell.html"
    shell.write_text(f'<!doctype html><meta charset="utf-8"><body>{frames}<script>addEventListener("load", () => {{{SCRIPT}}});</script>', encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=4000,900", "--dump-dom", shell.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    answer = re.search(r'<pre id="measures">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer, f"chromium measured nothing: {done.stdout[-500:]}{done.stderr[-2000:]}"
    return {int(width): measures for width, measures in json.loads(html.unescape(answer[1])).items()}


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(measured, width):
    seen = measured[width]
    assert seen["scroll"] <= seen["viewport"] <= width
    assert seen["outside"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_to_scale(measured, width):
    bars = measured[width]["bars"]
    assert len(bars) == 1 + 4, "one GPU of the first model, four of the second"
    for bar in bars:
        total = sum(part["gib"] for part in bar["parts"])
        assert len(bar["parts"]) >= 5
        assert bar["width"] > 0.8 * min(width, 1088) - 32
        assert sum(part["width"] for part in bar["parts"]) == pytest.approx(bar["width"], abs=0.5)
        for part in bar["parts"]:
            # data-gib has two digits: half of the last one is an error of its own.
            assert part["width"] == pytest.approx(part["gib"] / total * bar["width"], abs=0.1 + 0.01 * bar["width"] / total)


@pytest.mark.parametrize("width", WIDTHS)
def test_text_is_readable(measured, width):
    seen = measured[width]
    assert seen["smallest"] >= 12
    assert (seen["cut"], seen["labels"]) == (0, [])


@pytest.mark.parametrize("width", WIDTHS)
def test_cost_bars_lie_in_their_tracks_and_the_dearest_reaches_the_end(measured, width):
    ranges = measured[width]["ranges"]
    assert len(ranges) >= 2
    assert all(r["track"][0] <= r["bar"][0] < r["bar"][1] <= r["track"][1] + 0.5 for r in ranges)
    assert min(r["track"][1] - r["bar"][1] for r in ranges) == pytest.approx(0, abs=0.5)
