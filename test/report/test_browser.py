"""A page in a real browser: tables fit its width, and players keep their place."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from audiorl.report.media import AudioClip
from audiorl.report.page import TEMPLATES, render
from audiorl.report.tables import Table

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")

SYSTEMS = ["sft", "grpo", "supervised", "grpo_reweighted", "grpo_with_beta", "grpo_diverse"]
RATE = "147.93 [131.46, 170.12]\n+130.70 [+76.51, +197.83]*"
SOUND = ["natural", "24", "88.9 [88.7, 89.1]", "+10.7 [+6.6, +11.9]*", *["123.4"] * 8]
TABLES = [
    Table("Rates", ["dataset", *SYSTEMS], [["test_keyword", *[RATE] * 6]]),
    Table("Sound", [f"column {n}" for n in range(12)], [SOUND]),
]
TEXT = Table("Text", ["key", *SYSTEMS], [["rl.rewards", *["[{name: wer, weight: 1.0}]"] * 6]])
# Plays half of the first recording, then the second; writes what it measures into the title.
PROBE = """
<script>
const [long, short] = document.querySelectorAll("audio"), page = document.documentElement;
for (const [player, duration, at] of [[long, 1.0, 0.5], [short, 0.5, 0]]) {
  const value = {duration: {value: duration}, currentTime: {value: at, writable: true}};
  Object.defineProperties(player, value);
  player.dispatchEvent(new Event("play"));
}
const boxes = [page, ...document.querySelectorAll(".scroll")];
document.title = JSON.stringify({
  width: innerWidth, place: short.currentTime,
  overflow: boxes.map(box => box.scrollWidth - box.clientWidth),
});
</script>
"""


@pytest.mark.parametrize("width", [1300, 420])
def test_nothing_scrolls_sideways_and_players_keep_their_place(tmp_path: Path, width: int) -> None:
    empty = {"differences": [], "pictures": [], "curves": []}
    page = render(
        "experiments", name="x", about="", means=TABLES[0], seeds=TABLES[1], rows=TEXT, **empty
    )
    macros = TEMPLATES.get_template("macros.html.j2").module
    row = f"<article>{2 * str(macros.player(AudioClip('x', audio='x')))}</article>"
    page = page.replace("</main>", f"{row}</main>{macros.players()}{PROBE}")
    # A window of a headless browser is 500 pixels wide or more; a frame within it may be less.
    frame = f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
    title = "<script>onload = () => document.title = frames[0].document.title</script>"
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><title></title>{frame}{title}")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    options += ["--virtual-time-budget=5000", "--dump-dom"]
    command = [BROWSER, *options, f"file://{tmp_path}/page.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(re.search("<title>(.*)</title>", shown)[1])
    assert found["width"] == width
    assert found["place"] == pytest.approx(0.25)  # half of the way, as the other
    assert found["overflow"] == [0] * 4
