"""Tables, pictures and the page."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from deaths import a_dead_process
from fake_systems import make_systems

from audiorl.config import dump_config
from audiorl.config.rewards import reward_options
from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.report import breakdown, charts
from audiorl.report.examples import Card, CardGroup
from audiorl.report.media import AudioClip
from audiorl.report.page import TEMPLATES
from audiorl.report.report import config_differences, environment_table, write_report
from audiorl.report.tables import Table, as_markdown, as_text, error_table, overview, verdict
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.metrics import measures_of
from audiorl.score.significance import Comparison
from audiorl.text.align import align

SYSTEMS = ("sft", "supervised", "grpo")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A recipe folder with three decoded systems, and its config."""
    root = tmp_path_factory.mktemp("a recipe")
    rates = {"sft": 0.35, "supervised": 0.3, "grpo": 0.1}
    return root, make_systems(root, utterances=24, seconds=0.05, error_rates=rates)


@pytest.fixture(scope="module")
def systems(recipe: tuple[Path, Config]) -> list[SystemScore]:
    root, cfg = recipe
    return score_systems(
        [root / "exp" / name for name in SYSTEMS], root / "dump", cfg, measures_of(cfg.task)
    )


@pytest.fixture(scope="module")
def report(recipe: tuple[Path, Config]) -> Path:
    """The folder with RESULTS.md and report.html; a hypothesis tries to break out of the page."""
    root, cfg = recipe
    text = root / "exp" / "sft" / "decode_greedy" / "test_clean" / "text"
    lines = text.read_text().splitlines()
    lines[0] = lines[0].split()[0] + ' <script>alert("x")</script> & | * ' + "boom " * 30
    text.write_text("\n".join(lines) + "\n")
    exps = [root / "exp" / name for name in SYSTEMS]
    mine = Config()
    mine.rl.rewards = [reward_options("file", reward_file="local/mine.py")]
    (exps[-1] / "config.yaml").write_text(dump_config(mine))
    (exps[-1] / "local").mkdir()
    (exps[-1] / "local" / "mine.py").write_text("def reward(samples):\n    return [1 < 2]\n")
    assert write_report(
        exps,
        root / "dump",
        exps[-1],
        cfg,
        measures_of(cfg.task),
        "python -m audiorl.bin.report 'a b'",
    )
    return exps[-1]


# Tables


def test_overview(systems: list[SystemScore]) -> None:
    table = overview(systems, "word")
    assert table.header == [
        "dataset",
        "sft",
        "supervised",
        "supervised - sft",
        "grpo",
        "grpo - sft",
    ]
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows)[:3] == ["test_clean", "test_noisy", "pooled"]
    assert {"empty", "looping", "insertion burst", "truncated"} < rows.keys()
    assert {"keyword F1 %", "B-WER %", "U-WER %", "other language"} < rows.keys()
    assert {"test_nospeech output %", "test_nospeech words/min"} < rows.keys()
    wer = systems[2].pooled.summary["wer"]
    low, high = wer["interval"]
    assert rows["pooled"][3] == f"{100 * wer['rate']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    assert re.fullmatch(r"-\d+\.\d\d \[-\d+\.\d\d, -\d+\.\d\d\]\*", rows["pooled"][4])
    # On the page a system has one column, so that many systems fit.
    narrow = overview(systems, "word", apart=False)
    assert narrow.header == ["dataset", "sft", "supervised", "grpo"]
    cells = next(row for row in narrow.rows if row[0] == "pooled")
    assert cells[3] == f"{rows['pooled'][3]}\n{rows['pooled'][4]}"


def test_text_fits_a_terminal(systems: list[SystemScore]) -> None:
    lines = as_text(overview(systems, "word")).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("pooled") for line in lines) == 2  # two blocks, names in both
    cells = [cell for row in overview(systems, "word").rows for cell in row if cell]
    assert all(cell in "\n".join(lines) for cell in cells)


def test_errors_in_espnets_style(systems: list[SystemScore]) -> None:
    table = error_table(systems[:1], "word")
    assert table.header == ["dataset", "Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err"]
    name, sentences, words, corr, sub, dele, ins, err, _ = table.rows[0]
    wer = systems[0].sets["test_clean"].summary["wer"]
    assert (name, sentences, words) == ("sft/decode_greedy/test_clean", "24", str(wer["units"]))
    assert float(corr) + float(sub) + float(dele) == pytest.approx(100, abs=0.16)
    assert float(sub) + float(dele) + float(ins) == pytest.approx(float(err), abs=0.16)


def test_markdown_escapes() -> None:
    text = as_markdown(Table("t", ["a|b"], [["1*"]], "note"))
    assert text == "### t\n\nnote\n\n|a\\|b|\n|---|\n|1\\*|\n"


def with_comparison(system: SystemScore, low: float, high: float) -> SystemScore:
    middle = (low + high) / 2
    c = Comparison(middle, (low, high), 2 * middle, (2 * low, 2 * high), 0.01, 0.01, 1, 1)
    return replace(system, against={"test_clean": c, "pooled": c})


def test_verdict(systems: list[SystemScore]) -> None:
    first, second = systems[0], systems[1]

    def said(low: float, high: float) -> list[str]:
        return verdict([first, system := with_comparison(second, low, high)], system, "word")

    assert "supervised lowers the pooled WER from" in said(-0.2, -0.1)[0]
    assert "by 15.00 points (30.0 % relative, 95 % interval 20.0 to 40.0 %)" in said(-0.2, -0.1)[0]
    assert said(-0.2, -0.1)[1] == "Set by set, supervised is better on test_clean."
    assert "supervised raises the pooled WER" in said(0.1, 0.2)[0]
    assert said(0.1, 0.2)[1] == "Set by set, supervised is worse on test_clean."
    assert "includes zero: no change is shown" in said(-0.1, 0.2)[0]
    assert said(-0.1, 0.2)[1] == "Set by set, supervised is not clearly different on test_clean."
    assert said(0.1, 0.2)[2].startswith("Without speech (test_nospeech), supervised outputs")
    assert verdict([first], first, "word")[0].startswith("sft has a pooled WER of ")


def test_the_verdict_tells_of_a_start_that_nothing_was_better_than(
    systems: list[SystemScore], tmp_path: Path
) -> None:
    system = with_comparison(replace(systems[1], exp=tmp_path), -0.1, 0.2)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best_00000000.safetensors").touch()
    said = verdict([systems[0], system], system, "word")
    assert said[0].startswith("supervised is the model that it began with")
    (tmp_path / "checkpoints" / "best_00000020.safetensors").touch()
    assert "takes the pooled WER" in verdict([systems[0], system], system, "word")[0]


def test_config_differences(tmp_path: Path) -> None:
    for name, text in (("a", "rl: {beta: 0, train: [llm]}"), ("b", "rl: {beta: 1}"), ("d", "x: [")):
        (tmp_path / name).write_text(text)
    table = config_differences({name: tmp_path / name for name in ("a", "b", "absent")})
    assert table.header == ["key", "a", "b"]
    assert table.rows == [["rl.train", "[llm]", "[adaptor, llm]"], ["rl.beta", "0.0", "1.0"]]
    assert config_differences({"a": tmp_path / "a"}).note == "The configs do not differ."
    assert config_differences({}).rows == []
    with pytest.raises(UserError, match=str(tmp_path / "d")):
        config_differences({"d": tmp_path / "d"})


def test_environment(tmp_path: Path) -> None:
    path = tmp_path / "env.json"
    path.write_text('{"python": "3.0", "torch": "1.0", "gpu": "a GPU"}')
    table = environment_table(path)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["python"] == ["3.0", platform.python_version()]
    assert rows["torch"] == ["1.0", metadata.version("torch")]
    assert rows["processor"][0] == "-"
    assert rows["gpu"] == ["a GPU", "-"]  # what only one of them knows
    assert {"date", "audiorl_commit", "cores", "machine"} < rows.keys()
    assert all(rows[name][1] != "-" for name in ("date", "espnet", "processor", "cores"))
    absent = environment_table(tmp_path / "absent").rows
    assert [row[1] for row in absent] == ["-"] * len(rows)


# Pictures


def test_read_metrics(tmp_path: Path) -> None:
    assert charts.read_metrics(tmp_path) == {}
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 2, "loss": 5, "note": "x"}, {"step": 1, "loss": 9}, {"step": 2, "loss": 4}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = charts.read_metrics(tmp_path)
    assert list(metrics) == ["loss"]
    assert [values.tolist() for values in metrics["loss"]] == [[1, 2], [9, 4]]
    for bad in (b"{", b"[]", b'{"loss": 1}', b'{"step": "1"}', b"\xff\x00\x93", b"[" * 99999):
        path.write_bytes(json.dumps(lines[0]).encode() + b"\n" + bad + b"\n")
        with pytest.raises(UserError, match=r"metrics.jsonl:2 (is not a JSON object|has no)"):
            charts.read_metrics(tmp_path)


def test_bins_take_every_value_once() -> None:
    assert breakdown.bins([5.0, 0.0, 5.0, 10.0]) == [(0, 0), (5, 5), (10, 10)]
    values = [float(v) for v in np.random.default_rng(0).gamma(2, 3, 500).round(1)]
    bins = breakdown.bins(values)
    assert len(bins) == breakdown.BINS
    inside = [[v for v in values if low <= v <= high] for low, high in bins]
    assert sum(map(len, inside)) == 500
    assert min(map(len, inside)) > 50
    skewed = [1.0] * 100 + [float(v) for v in range(2, 12)]
    assert sum(len([v for v in skewed if a <= v <= b]) for a, b in breakdown.bins(skewed)) == 110


def test_rate_by_snr(recipe, systems: list[SystemScore], tmp_path: Path) -> None:
    by_snr, by_length = charts.rate_charts(systems, recipe[1].score, tmp_path)
    assert by_snr.title == "WER by SNR (dB)"
    assert "24 utterances have no SNR (dB) and are left out." in by_snr.description  # `clean`
    chosen = [u for u in systems[0].sets["test_noisy"].utterances if u.utterance.tags["snr"] == "0"]
    rate = sum(u.errors for u in chosen) / sum(u.alignment.counts.units for u in chosen)
    assert f"sft: 0 {100 * rate:.1f} %" in by_snr.description
    assert "left out" not in by_length.description
    assert {p.name for p in tmp_path.iterdir()} == {"by_snr.png", "by_length.png"}


def test_curves_and_phases(recipe, tmp_path: Path) -> None:
    metrics = charts.read_metrics(recipe[0] / "exp" / "grpo")
    titles = [chart.title for chart in charts.training_curves("grpo", metrics, tmp_path)]
    assert titles[:3] == ["Reward", "Error rate on the dev set", "Groups without variance (share)"]
    assert "KL to the start model" not in titles  # not logged
    phases = charts.phase_times({"grpo": metrics, "sft": {}}, tmp_path)
    assert "grpo: encode 0.10 s, rollout 0.60 s, reward 0.02 s, update 0.90 s, other 0.08 s" in (
        phases.description
    )
    sft = charts.read_metrics(recipe[0] / "exp" / "sft")
    assert "timing_s/eval" in sft  # evaluation is no phase of a step
    assert charts.phase_times({"sft": sft}, tmp_path) is None


def test_svg_follows_the_page(recipe, tmp_path: Path) -> None:
    metrics = charts.read_metrics(recipe[0] / "exp" / "sft")
    made = charts.training_curves("sft", metrics, tmp_path)
    ids = [set(re.findall(r'\sid="([^"]+)"', chart.svg)) for chart in made]
    assert not set.intersection(*ids)
    for chart in made:
        assert chart.svg.startswith("<svg")
        assert "currentColor" in chart.svg and charts.INK not in chart.svg
        assert "http" not in chart.svg
        references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', chart.svg))
        assert references <= set(re.findall(r'\sid="([^"]+)"', chart.svg))


# Markup and page


def test_templates_escape(systems: list[SystemScore]) -> None:
    """Ids, speakers, texts, titles, paths and code of users never become markup."""
    evil = "<script>'\"&"
    u = systems[0].pooled.utterances[0]
    alignment = align([evil, "a", evil], ["b", evil, evil])
    u = replace(u, flags=(evil,), alignment=replace(alignment, ops=[*alignment.ops]))
    utterance = replace(u.utterance, id=evil, speaker=evil)
    cards = [
        Card(utterance, [evil], evil, [(evil, u)], made)
        for made in (AudioClip(evil, error=evil), AudioClip(evil, audio=evil), None)
    ]
    table = Table(evil, [evil, evil], [[evil, evil]], evil)
    macros = TEMPLATES.get_template("macros.html.j2").module
    shown = [
        macros.examples([CardGroup(evil, evil, cards)], [table]),
        macros.code(evil),
        macros.sentences([evil]),
        macros.headline({evil: []}),
        macros.charts(evil, evil, [charts.Chart(evil, evil, "<svg></svg>")]),
    ]
    page = Page("".join(shown))
    assert page.open == [] and not page.all("script") and "<script" not in "".join(shown)
    assert [a["aria-label"] for a in page.all("audio")] == [f"audio of {evil}"]
    assert page.all("mark") and page.all("article")[2:] == [{}]


class Page(HTMLParser):
    """Balanced tags, attributes that load something, ids, and what each element is."""

    VOID = ("meta", "br", "hr", "img", "path", "use", "rect", "stop", "line")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "report.html").read_text())


def test_page_is_balanced_and_self_contained(report: Path, page: Page) -> None:
    assert page.open == []
    assert page.all("script") == [{}]  # ours, of the players
    assert not page.all("link") and not page.all("img")
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:audio/mpeg;base64,"))
    text = (report / "report.html").read_text()
    assert not re.search(r"@import|url\((?!#)|https?://", text)


def test_page_is_accessible(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for attributes in page.all("a")]
    assert links and set(links) <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))
    pictures = [a for tag, a in page.tags if a.get("role") == "img"]
    assert len(pictures) == len(page.all("svg")) >= 10
    assert all(len(a["aria-label"]) > 20 for a in pictures)
    players = page.all("audio")
    assert 5 <= len(players) <= 20
    assert all(a["aria-label"].startswith("audio of ") and "controls" in a for a in players)


def test_page_escapes_text(report: Path) -> None:
    text = (report / "report.html").read_text()
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text
    assert "# &lt;b&gt;&amp;" in text  # of run.sh


def test_page_content(report: Path) -> None:
    text = (report / "report.html").read_text()
    for title in (
        "Changed most for the better", "Changed most for the worse", "Most errors of grpo",
        "Output without speech", "Training of sft", "Training of grpo", "Time by phase",
        "WER by SNR (dB)", "WER by length (s)", "Config of grpo", "Environment",
        "looping, insertion burst", "Reward local/mine.py", "return [1 &lt; 2]",
    ):  # fmt: skip
        assert title in text
    assert '<ins title="inserted">boom</ins>' in text
    assert re.search(r'<mark title="instead of: \S+">', text)
    assert '<del title="left out">' in text
    assert "prefers-color-scheme: dark" in text


def test_contrast_of_the_style() -> None:
    """WCAG AA: text 4.5:1 on both backgrounds, in light and dark."""
    css = (Path(charts.__file__).parent / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{([^}]*)\}", css)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
        for ground in ("paper", "card"):
            for ink in ("ink", "soft", "accent", "del", "ins"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
            for line in charts.COLOURS:
                assert contrast(line, colours[ground]) >= 3.0, (line, ground)
        assert contrast(colours["ink"], colours["sub"]) >= 4.5


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_results_markdown(report: Path) -> None:
    text = (report / "RESULTS.md").read_text()
    assert text.startswith("# RESULTS\n- grpo lowers the pooled WER from")
    assert text.count("|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|") == 2
    assert "### Paired comparison with sft" in text
    assert "|torch|1.0|" in text and "|audiorl_commit|" in text
    assert "python -m audiorl.bin.report 'a b'" in text
    assert "|rl.algorithm|grpo|supervised|grpo|" in text
    assert "|[{name: wer}]|[{name: wer}]|[{name: file, reward_file: local/mine.py}]|" in text
    assert "Reward `local/mine.py`:\n\n```python\ndef reward(samples):" in text
    for line in text.splitlines():
        if line.startswith("|grpo/"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (8, 10, 12)


def test_one_system_without_audio(tmp_path: Path) -> None:
    cfg = make_systems(tmp_path, utterances=4, seconds=0.05, error_rates={"only": 0.5})
    for wav in (tmp_path / "audio").iterdir():
        wav.unlink()
    exp = tmp_path / "exp" / "only"
    (exp / "metrics.jsonl").unlink()

    def run() -> bool:
        return write_report([exp], tmp_path / "dump", exp, cfg, measures_of(cfg.task), "report")

    dead = a_dead_process()
    left = [exp / f".RESULTS.md.{dead}.tmp", exp / f"decode_greedy/test/.ref.trn.{dead}.tmp"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert run()
    assert not any(path.exists() for path in left)
    text = (exp / "report.html").read_text()
    assert Page(text).open == []
    assert "No audio: " in text and "<audio" not in text
    assert "Changed most" not in text and "Paired comparison" not in text
    assert 'href="#training-0"' not in text
    assert "only has a pooled WER of" in text
    # Written again when an input changes, and only then.
    assert not run()
    (exp / "metrics.jsonl").write_text('{"step": 1, "reward": 1.0}\n')
    os.utime(exp / "metrics.jsonl", (0, 0))  # put back with an old date
    assert run()
    assert 'href="#training-0"' in (exp / "report.html").read_text()
    assert not run()
    (exp / "report.html").write_text("half")
    assert run()
    assert 'href="#training-0"' in (exp / "report.html").read_text()
