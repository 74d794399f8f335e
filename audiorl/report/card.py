"""The model card of a pretrained recogniser: README.md, as hubs of models read it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

import audiorl
from audiorl.config import Config, load_config
from audiorl.config.check import HUB_NAME
from audiorl.config.dump import flow
from audiorl.config.keys import key_values
from audiorl.models.policy import saved_family
from audiorl.report.tables import Table, as_markdown
from audiorl.runs.checkpoint import kept_steps
from audiorl.score.results import read_result

CARD = "README.md"
FRONT = re.compile(r"---\r?\n(.*?)\n---", re.DOTALL)  # of a card: what hubs read
# First lines of licences -> how hubs name them.
LICENCES = {"MIT License": "mit", "Apache License": "apache-2.0"}
# Folders of one machine, and what it computes with.
LEFT_OUT = ("model.pretrained", "device", "num_threads", "rl.rewards")


def model_card(exp: Path) -> str:
    """Return the card of the model of `exp`: base, data, rewards, results, config, command.

    Of the base it names the licence that its own card states; results are those that are scored.
    """
    config = load_config(exp / "config.yaml")
    name, method = config.model.pretrained, _method(exp, config)
    base, licence = name if _is_hub_name(name) else Path(name).name, base_licence(name)
    head: dict[str, Any] = {"library_name": "transformers"}
    if _is_hub_name(name):
        head["base_model"] = name
    if licence:
        head["license"] = licence
    head |= {"pipeline_tag": "automatic-speech-recognition", "tags": ["audiorl"]}
    stated = f"states the licence `{licence}`" if licence else "states no licence, or is not here"
    prompt = config.llm.prompt
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {exp.resolve().name}\n",
        f"{base} ({saved_family(exp / 'model')}), {method} by audiorl {audiorl.__version__}. The "
        f"card of {base} {stated}; its terms hold here, too.\n",
        *([f"It was trained with the prompt `{flow(prompt)}`.\n"] if prompt else []),
        as_markdown(_data(config)),
        as_markdown(_rewards(config)),
        *map(as_markdown, _results(exp)),
        as_markdown(_settings(config)),
        _command(exp),
    ]
    return "\n".join(parts)


def base_licence(name: str) -> str:
    """Return the licence that the card of a folder or hub name states; "" if none is found.

    Of a folder without a card, the one that its file LICENSE begins with.
    """
    try:
        found = yaml.safe_load(FRONT.match(_base_card(name))[1])
        return str(found.get("license_name") or found.get("license") or "")
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        beginning = _first_line(Path(name) / "LICENSE")
        return next((own for known, own in LICENCES.items() if known in beginning), "")


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""


def _base_card(name: str) -> str:
    if os.path.isdir(name):
        return (Path(name) / CARD).read_text(encoding="utf-8")
    from transformers.utils import cached_file

    return Path(cached_file(name, CARD)).read_text(encoding="utf-8")


def _is_hub_name(name: str) -> bool:
    return not os.path.isdir(name) and bool(HUB_NAME.fullmatch(name))


def _method(exp: Path, config: Config) -> str:
    """A phrase about what was done to the base, by the command."""
    command, rl = _command(exp), config.rl
    if "audiorl.bin.train_sft" in command:
        steps = config.sft.schedule.max_steps
        return f"trained with transcripts for {steps} steps" if steps else "not trained further,"
    steps = kept_steps(exp)
    kept = f", of which the mean of steps {', '.join(map(str, steps))} was kept" if steps else ""
    if steps == [0]:
        kept = ", of which none was better on the dev set, so that it is the base as it was"
    if rl.algorithm == "supervised":
        return f"trained with the transcripts of the RL data for {rl.max_steps} steps{kept},"
    done = f"trained by {rl.algorithm} (RL of {rl.max_steps} steps{kept})"
    return done if command else "trained"


def _data(config: Config) -> Table:
    data, rows = config.data, []
    if config.sft.schedule.max_steps:
        rows.append([data.train, "transcripts of the warm start"])
    rows.append([data.rl or data.train, "prompts of RL"])
    rows += [[name, "choice of checkpoints"] for name in {data.dev: 0, data.rl_dev or data.dev: 0}]
    return Table("Data", ["set", "for"], rows + [[name, "test"] for name in data.test])


def _rewards(config: Config) -> Table:
    rows = [[r.label or r.name, f"{r.weight:g}", r.actual_kind] for r in config.rl.rewards]
    return Table("Rewards of RL", ["reward", "weight", "kind"], rows)


def _results(exp: Path) -> list[Table]:
    """A table for each way of decoding that is scored."""
    tables = []
    for path in sorted(exp.glob("decode_*/result.json")):
        result, rows = read_result(path.parent), []
        against = result.get("against", {"system": "", "sets": {}})
        for name, one in result["sets"].items():
            if one["speech"]:
                metric, change = one["metric"], against["sets"].get(name)
                rate = 100 * one[metric.lower()]["rate"]
                shown = f"{100 * change['difference']:+.2f}" if change else "-"
                rows.append([name, f"{metric} {rate:.2f} %", shown])
        header = ["set", "error rate", f"points from {against['system'] or 'another'}"]
        scoring = result["scoring"]
        note = f"Normalizer `{scoring['normalizer']}`, unit `{scoring['unit']}`."
        tables.append(Table(f"Results, {path.parent.name}", header, rows, note))
    return tables or [Table("Results", ["set", "error rate"], [], "It has not been scored.")]


def _settings(config: Config) -> Table:
    values, defaults = key_values(config), key_values(Config(task=config.task))
    changed = [key for key in values if values[key] != defaults[key] and key not in LEFT_OUT]
    rows = [[key, flow(values[key])] for key in changed]
    return Table("Config: what differs from the defaults", ["key", "value"], rows)


def _command(exp: Path) -> str:
    path = exp / "run.sh"
    if not path.is_file():
        return ""
    found = re.search(r"-m audiorl\.bin.*", path.read_text(encoding="utf-8"))
    return f"### Command\n\n```sh\npython {found[0]}\n```\n" if found else ""
