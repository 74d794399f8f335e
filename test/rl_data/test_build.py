"""Stage 4 as a whole: what is in an RL set, what it says about each item, what is built again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from deaths import after, killed
from tiny import sampler, sentences, tiny_config, tiny_model, write_set

from audiorl.config.rewards import reward_options
from audiorl.config.rl_data import SubsetConfig
from audiorl.config.schema import Config
from audiorl.data.rl_set import read_rl_set
from audiorl.data.utterance import read_utterances
from audiorl.errors import UserError
from audiorl.rl.groups import Sampler
from audiorl.rl_data import build as rl_data_build
from audiorl.rl_data.build import build_rl_data, rl_set_stamp
from audiorl.rl_data.probe import ProbeFile

SETS = {"data.rl": "rl", "data.dev": "dev", "data.test": ["test"], "rl.num_generations": 3}
TEXTS = ["ba do", "ki lu me", "no pa", "ri so tu", "ba ba ba", "tu ki"]


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    write_set(folder / "rl", TEXTS)
    write_set(folder / "dev", ["no pa", "lu lu"])
    write_set(folder / "test", ["Ki  lu, ME", "so so so"])
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A corpus with 30 utterances for RL, half of them with keywords, and 6 for the warm start."""
    folder = tmp_path_factory.mktemp("large")
    names = [u.id for u in write_set(folder / "rl", sentences(30, seed=5))]
    (folder / "rl" / "utt2keywords").write_text("".join(f"{n} ba;do\n" for n in names[::2]))
    write_set(folder / "train", sentences(6, seed=6))
    write_set(folder / "dev", ["lu lu lu lu lu lu"])
    write_set(folder / "test", ["so so so so so so"])
    return folder


@pytest.fixture(autouse=True)
def pictures(monkeypatch) -> list[Path]:
    """Where a picture would be; to draw it takes longer than all else."""
    paths: list[Path] = []
    monkeypatch.setattr(
        "audiorl.rl_data.build.draw", lambda pool, choices, path: paths.append(path)
    )
    return paths


def build(dump: Path, out: Path, keys: dict | None = None) -> Config:
    model = tiny_model({**SETS, **(keys or {})}, spread=3.0)
    weights = dump / "weights"  # of which only the hash matters here
    weights.touch()
    build_rl_data(sampler(model), "exp/sft", weights, model.recipe, dump, out)
    return model.recipe


def is_built(config: Config, policy: str, dump: Path, out: Path, weights: Path) -> bool:
    return rl_set_stamp(config, policy, dump, out, weights).is_current()


def read_lines(path: Path) -> dict[str, dict]:
    return {item["id"]: item for item in map(json.loads, path.read_text().splitlines())}


def subsets(*kinds: str, **keys) -> dict[str, list[SubsetConfig]]:
    return {"rl_data.subsets": [SubsetConfig(kind=kind, **keys) for kind in kinds]}


def members(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in read_rl_set(path):
        for name in item.subsets:
            found.setdefault(name, set()).add(item.utterance.id)
    return found


def sorted_texts(*texts: str) -> list[str]:
    """Texts in the order of their utterances' ids."""
    names = {text: f"s{i % 3}-rl{i:03d}" for i, text in enumerate(TEXTS)}
    return sorted(texts, key=names.__getitem__)


def test_every_item_says_where_it_comes_from(dump: Path, tmp_path, capsys, pictures) -> None:
    out = tmp_path / "rl" / "train.jsonl"
    build(dump, out)
    kept = read_utterances(out)
    assert [u.text for u in kept] == sorted_texts(
        "ba do", "ki lu me", "ri so tu", "ba ba ba", "tu ki"
    )
    items = {u.id: u for u in read_utterances(dump / "rl")}
    assert all(items[u.id] == u for u in kept)
    for line in read_lines(out).values():
        assert line["subsets"] == {"rl": {"weight": 1.0, "reason": "any utterance qualifies"}}
        assert line["provenance"] == {"set": "rl", "policy": "exp/sft", "seed": 1}
        difficulty = line["difficulty"]
        assert -1 <= difficulty["reward_mean"] <= difficulty["reward_best"] <= 1
        assert difficulty["flat"] == (difficulty["reward_std"] < 1e-6)
    printed = capsys.readouterr().out
    assert "kept 5 of 6 utterances of rl (0 are in dev or test by id, 1 by text)" in printed
    assert "rl: kept 5 of 5" in printed
    assert pictures == [out.with_suffix(".png")]


def test_held_out_texts_are_compared_as_they_are_scored(dump: Path, tmp_path: Path) -> None:
    """`Ki  lu, ME` of the test set is `ki lu me` once case and punctuation are gone."""
    build(dump, tmp_path / "rl.jsonl", {"score.normalizer": "english"})
    texts = {u.text for u in read_utterances(tmp_path / "rl.jsonl")}
    assert texts == {"ba do", "ri so tu", "ba ba ba", "tu ki"}


def test_held_out_ids_are_left_out(dump: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(UserError, match="no utterance is left for RL"):
        build(dump, tmp_path / "rl.jsonl", {"data.rl": "dev"})
    assert (
        "kept 0 of 2 utterances of dev (2 are in dev or test by id, 0 by text)"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "rl.jsonl").exists()


def test_a_closed_set_of_phrases_is_held_out_by_id_alone(dump: Path, tmp_path, capsys) -> None:
    """Every text is in test too, as those of commands are; recordings are not."""
    write_set(dump / "copy", [f"{text}." for text in TEXTS])
    keys = {"data.test": ["copy"], "score.normalizer": "english"}
    build(dump, tmp_path / "rl.jsonl", keys)
    assert len(read_utterances(tmp_path / "rl.jsonl")) == 6
    printed = capsys.readouterr().out
    assert (
        "kept 6 of 6 utterances of rl (0 are in dev or test by id, 6 by text, as nearly" in printed
    )


def test_flat_groups_can_be_left_out(dump: Path, tmp_path: Path, capsys) -> None:
    short = {"rl.max_completion_length": 5}  # too short for the longer texts to get anywhere
    build(dump, tmp_path / "all.jsonl", short)
    lines = read_lines(tmp_path / "all.jsonl")
    flat = {name for name, line in lines.items() if line["difficulty"]["flat"]}
    assert flat
    assert flat < lines.keys()
    build(dump, tmp_path / "some.jsonl", {**short, "rl_data.drop_flat": True})
    assert {u.id for u in read_utterances(tmp_path / "some.jsonl")} == lines.keys() - flat
    assert f"({len(flat)} with equal rewards)" in capsys.readouterr().out


def test_what_no_reward_can_score_is_left_out_and_counted(tmp_path: Path, capsys) -> None:
    """A transcript of which normalisation leaves nothing has no error rate."""
    dump = tmp_path / "dump"
    write_set(dump / "rl", TEXTS)
    write_set(dump / "dev", ["lu lu"])
    write_set(dump / "test", ["so so so"])
    text = (dump / "rl" / "text").read_text().replace("no pa", "(um)")
    (dump / "rl" / "text").write_text(text)
    build(dump, tmp_path / "rl.jsonl", {"score.normalizer": "english"})
    kept = read_utterances(tmp_path / "rl.jsonl")
    assert len(kept) == 5
    assert "(um)" not in {u.text for u in kept}
    assert (
        "kept 5 of 6 probed (1 without a reward); rewards failed on hypotheses of 0\n"
        in capsys.readouterr().out
    )
    for line in (tmp_path / "rl.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_subsets_overlap_unless_they_must_not(large: Path, tmp_path: Path) -> None:
    keys = subsets("long", "keyword", "random", size=8)
    build(large, tmp_path / "one.jsonl", keys)
    found = members(tmp_path / "one.jsonl")
    assert {name: len(ids) for name, ids in found.items()} == dict.fromkeys(found, 8)
    everyone = {u.id: u for u in read_utterances(large / "rl")}
    longest = sorted((u.duration for u in everyone.values()), reverse=True)[:8]
    assert sorted((everyone[i].duration for i in found["long"]), reverse=True) == longest
    assert all(everyone[i].keywords for i in found["keyword"])
    assert len(set.union(*found.values())) < 24

    build(large, tmp_path / "two.jsonl", {**keys, "rl_data.disjoint": True})
    apart = members(tmp_path / "two.jsonl")
    assert apart["long"] == found["long"]
    assert len(read_utterances(tmp_path / "two.jsonl")) == 24


def test_a_subset_of_another_set(large: Path, tmp_path: Path) -> None:
    parts = [
        SubsetConfig(size=5, weight=3),
        SubsetConfig(kind="ordinary", size=4, max_error=99),
        SubsetConfig(kind="short", source="train", size=2, name="brief"),
    ]
    build(large, tmp_path / "rl.jsonl", {"rl_data.subsets": parts})
    lines = read_lines(tmp_path / "rl.jsonl")
    origin = {"random": "rl", "ordinary": "train", "brief": "train"}
    for line in lines.values():
        assert {origin[name] for name in line["subsets"]} == {line["provenance"]["set"]}
        weights = {name: subset["weight"] for name, subset in line["subsets"].items()}
        assert weights == {name: 3.0 if name == "random" else 1.0 for name in weights}
    sizes = {name: len(ids) for name, ids in members(tmp_path / "rl.jsonl").items()}
    assert sizes == {"random": 5, "ordinary": 4, "brief": 2}


def test_a_subset_without_enough_utterances(large: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        build(large, tmp_path / "rl.jsonl", subsets("keyword", size=16))
    assert str(refused.value) == (
        "rl_data.subsets: keyword wants 16 utterances, but 15 of 30 qualify (15 without keywords); "
        "lower its size or widen what it takes."
    )
    assert not (tmp_path / "rl.jsonl").exists()


def test_recordings_without_speech(large: Path, tmp_path: Path) -> None:
    """They have a reward if hallucination is one, and are what it is about."""
    for name in ("rl", "dev", "test"):
        (tmp_path / name).symlink_to(large / name)
    write_set(tmp_path / "noise", ["ba", "do"])
    (tmp_path / "noise" / "text").write_text("s0-noise000\ns1-noise001\n")
    noise = subsets("hallucination", source="noise")
    keys = {**noise, "rl.rewards": [reward_options("wer"), reward_options("hallucination")]}
    build(tmp_path, tmp_path / "rl.jsonl", keys)
    for line in read_lines(tmp_path / "rl.jsonl").values():
        assert line["difficulty"]["error"] is None
        reason = line["subsets"]["hallucination"]["reason"]
        assert reason.endswith("of the hypotheses hallucinate where nobody speaks")
    with pytest.raises(UserError, match=r"none\.jsonl: none of rl\.rewards scores any utterance"):
        build(tmp_path, tmp_path / "none.jsonl", noise)


def test_found_keywords(large: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "common.txt").write_text("ba\ndo ki lu\nme no pa ri so\n")
    keys = {
        **subsets("keyword", source="train"),
        "rl_data.keywords": "found",
        "rl_data.background": str(tmp_path / "common.txt"),
    }
    build(large, tmp_path / "rl.jsonl", keys)
    kept = read_utterances(tmp_path / "rl.jsonl")
    assert {u.id for u in kept} == {
        u.id for u in read_utterances(large / "train") if "tu" in u.text.split()
    }
    assert all(set(u.keywords) <= {"tu", "tu tu", "tu tu tu"} for u in kept)
    assert (
        f"{len(kept)} of 6 utterances have keywords, {len(kept)} of them found"
        in capsys.readouterr().out
    )


def test_files_that_are_not_there(large: Path, tmp_path: Path) -> None:
    found = {**subsets("keyword"), "rl_data.keywords": "found"}
    broken = tmp_path / "latin1.txt"
    broken.write_bytes(b"caf\xe9\n")
    for keys, told in (
        ({**found, "rl_data.background": "nobg.txt"}, r"rl_data\.background: nobg\.txt cannot be"),
        ({**found, "rl_data.background": str(broken)}, r"latin1\.txt cannot be read \('utf-8'"),
        (
            {"rl_data.hypotheses": ["none/a/text"]},
            r"rl_data\.hypotheses: none/a/text does not exist",
        ),
    ):
        with pytest.raises(UserError, match=told):
            build(large, tmp_path / "rl.jsonl", keys)


def test_the_reasons_of_reward_processes_are_shown(large: Path, tmp_path: Path) -> None:
    tiny_model(SETS, spread=3.0).save(tmp_path / "sft" / "model")
    code, recipe = tmp_path / "mine.py", tmp_path / "conf.yaml"
    code.write_text("def reward(samples): raise RuntimeError('no luck')\n")
    recipe.write_text(
        "data: {rl: rl, dev: dev, test: [test], train: train}\n"
        "rl: {reward_workers: 1, rewards: [{name: file, reward_file: mine.py}]}\n"
    )
    command = [sys.executable, "-m", "audiorl.bin.build_rl_data", "--config", recipe]
    command += ["--dump", large, "--init", tmp_path / "sft", "--out", tmp_path / "rl.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "reward file failed on" in done.stderr and "RuntimeError: no luck" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path / 'rl.probe.jsonl'}: 100% of the samples could not be rewarded, more "
        "than rl.max_unscorable (10%); the log has the reasons, fix reward file (RuntimeError: "
        "no luck)."
    )


def test_further_systems(large: Path, tmp_path: Path) -> None:
    everyone = read_utterances(large / "rl")
    for name in ("one", "two"):
        (tmp_path / name).write_text("".join(f"{u.id} {u.text}\n" for u in everyone))
    odd = everyone[7]
    text = (
        (tmp_path / "two").read_text().replace(f"{odd.id} {odd.text}\n", f"{odd.id} zz zz zz zz\n")
    )
    (tmp_path / "two").write_text(text)
    paths = [str(tmp_path / name) for name in ("one", "two")]
    keys = {**subsets("hard"), "rl_data.hypotheses": paths}
    build(large, tmp_path / "rl.jsonl", keys)
    lines = read_lines(tmp_path / "rl.jsonl").values()
    # The policy, which knows nothing, is wrong everywhere; the systems differ in one place.
    assert [x["id"] for x in lines if x["difficulty"]["disagreement"] == 1] == [odd.id]
    assert {round(x["difficulty"]["disagreement"], 3) for x in lines} == {0.667, 1.0}

    (tmp_path / "two").write_text("".join(line + "\n" for line in text.splitlines()[3:]))
    with pytest.raises(
        UserError, match=rf"two has no hypothesis of {everyone[0].id} \(3 of 30 are"
    ):
        build(large, tmp_path / "rl.jsonl", keys)


def test_only_some_are_probed(large: Path, tmp_path: Path, capsys) -> None:
    build(large, tmp_path / "rl.jsonl", {"rl_data.probe_utterances": 7})
    assert len(read_utterances(tmp_path / "rl.jsonl")) == 7
    assert "kept 7 of 30 of rl (rl_data.probe_utterances)" in capsys.readouterr().out
    build(large, tmp_path / "again.jsonl", {"rl_data.probe_utterances": 7})
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "rl.jsonl").read_bytes()
    build(large, tmp_path / "other.jsonl", {"rl_data.probe_utterances": 7, "seed": 2})
    assert members(tmp_path / "other.jsonl") != members(tmp_path / "rl.jsonl")


MIXTURE = subsets("random", "hard", "long", "keyword", size=6)


def test_equal_seeds_equal_sets(large: Path, tmp_path: Path) -> None:
    build(large, tmp_path / "one.jsonl", MIXTURE)
    torch.manual_seed(99)
    build(large, tmp_path / "two.jsonl", MIXTURE)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    build(large, tmp_path / "three.jsonl", {**MIXTURE, "seed": 2})
    assert members(tmp_path / "one.jsonl") != members(tmp_path / "three.jsonl")


def test_a_killed_build_ends_with_the_same_set(large: Path, tmp_path: Path) -> None:
    build(large, tmp_path / "plain.jsonl", MIXTURE)
    out = tmp_path / "rl.jsonl"
    fourth = after(ProbeFile, "add", lambda self, *_: self.path.read_bytes().count(b"\n") > 12)
    killed(lambda: build(large, out, MIXTURE), fourth)
    assert not out.exists()
    build(large, out, MIXTURE)
    assert out.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_a_killed_build_of_other_settings_is_not_taken_for_the_first(
    dump: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rl.jsonl"
    config = build(dump, out)
    other = {"rl_data.probe_utterances": 2}
    killed(lambda: build(dump, out, other), after(rl_data_build, "_write", lambda *_: True))
    assert len(read_utterances(out)) == 2
    assert not is_built(config, "exp/sft", dump, out, dump / "weights")


def test_other_subsets_need_no_new_probe(large: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    build(large, tmp_path / "rl.jsonl", MIXTURE)
    monkeypatch.setattr(Sampler, "groups", None)
    build(large, tmp_path / "rl.jsonl", subsets("short", size=3))
    assert len(read_utterances(tmp_path / "rl.jsonl")) == 3


def test_another_policy_or_reward_is_probed_anew(large: Path, tmp_path: Path, capsys) -> None:
    out, code = tmp_path / "rl.jsonl", tmp_path / "mine.py"
    code.write_text("def reward(samples): return [len(s.text) for s in samples]\n")
    mine = {"rl.rewards": [reward_options("file", reward_file=str(code))]}
    build(large, out)
    for change in (
        lambda: {"rl.temperature": 0.5},
        lambda: (large / "weights").write_text("others") and {},
        lambda: mine,
        lambda: code.write_text(code.read_text().replace("len", "2.0 * len")) and mine,
    ):
        keys = change()
        capsys.readouterr()
        build(large, out, keys)
        assert "changed; probing anew" in capsys.readouterr().out
        build(large, out, keys)
        assert "going on after 30 utterances" in capsys.readouterr().out


def test_one_id_in_two_sets_is_one_utterance(large: Path, tmp_path: Path) -> None:
    keys = {"data.train": "rl", **subsets("random", "ordinary", max_error=99, size=20)}
    build(large, tmp_path / "rl.jsonl", keys)
    ids = [u.id for u in read_utterances(tmp_path / "rl.jsonl")]
    assert len(ids) == len(set(ids)) < 40


def test_one_id_for_two_utterances_is_refused(tmp_path: Path) -> None:
    for name, text in (("a", "ba do"), ("b", "ki lu")):
        write_set(tmp_path / name / "rl", [text])
    write_set(tmp_path / "dev", ["so so so so"])
    parts = [SubsetConfig(), SubsetConfig(name="other", source="b/rl")]
    keys = {"rl_data.subsets": parts, "data.rl": "a/rl", "data.test": []}
    with pytest.raises(UserError, match=r"rl: s0-rl000 is another utterance than in an earlier"):
        build(tmp_path, tmp_path / "rl.jsonl", keys)


def table(printed: str) -> Sequence[list[str]]:
    """The rows of the summary table."""
    rows = printed.partition("subset  ")[2].splitlines()[1:]
    return [row.split() for row in rows if "%" in row]


def test_the_table(large: Path, tmp_path: Path, capsys) -> None:
    parts = [
        SubsetConfig(kind="long", size=10, weight=3),
        SubsetConfig(kind="keyword", name="a_very_long_name"),
    ]
    build(large, tmp_path / "rl.jsonl", {"rl_data.subsets": parts})
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.partition("subset  ")[2].splitlines())
    pool, long, named = table(printed)
    assert pool[:2] == ["(pool)", "30"]
    assert long[:3] == ["long", "10", "75%"]
    assert named[:3] == ["a_very_long…", "15", "25%"]
    seconds = [u.duration for u in read_utterances(large / "rl")]
    assert float(pool[3]) == pytest.approx(sum(seconds) / 30, abs=0.01)
    assert float(long[4]) == pytest.approx(sum(sorted(seconds)[-10:]) / 10, abs=0.01)


def test_what_is_built_is_known(dump: Path, tmp_path: Path) -> None:
    out, weights = tmp_path / "rl.jsonl", tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    config = tiny_config(SETS)
    arguments = ("exp/sft", dump, out, weights)
    assert not is_built(config, *arguments)
    build(dump, out)
    assert is_built(config, *arguments)
    for key, value in {
        "seed": 2,
        "rl.num_generations": 5,
        "rl.temperature": 0.5,
        "rl.max_completion_length": 3,
        "rl.reward_combination": "harmonic",
        "rl_data.drop_flat": True,
        "rl_data.subsets": [SubsetConfig(size=3)],
        "score.normalizer": "english",
        "data.test": [],
    }.items():
        assert not is_built(tiny_config({**SETS, key: value}), *arguments), key
    assert is_built(tiny_config({**SETS, "rl.learning_rate": 1.0}), *arguments)
    assert is_built(tiny_config({**SETS, "score.bootstrap_samples": 100}), *arguments)
    assert not is_built(config, "exp/other", *arguments[1:])
    for path in (weights, dump / "test" / "text", dump / "rl" / "wav.scp"):
        content, state = path.read_bytes(), path.stat()
        os.utime(path, (4e9, 4e9))
        assert is_built(config, *arguments), path
        path.write_bytes(content + b" ")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert not is_built(config, *arguments), path
        path.write_bytes(content)
        assert is_built(config, *arguments), path
    out.write_text(out.read_text().partition("\n")[2])  # cut at a line
    assert not is_built(config, *arguments)
    for text in ("", "[", '{"format": 99}'):
        out.with_suffix(".meta.json").write_text(text)
        assert not is_built(config, *arguments)
