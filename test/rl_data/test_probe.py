"""What the policy says: the same in any batch, and after any interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from deaths import after, before, killed
from tiny import sampler, tiny_model, write_set

from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import encode_utterances, transcribe
from audiorl.rewards import Reward, Sample, WeightedSum
from audiorl.rl.groups import Sampler, read_text
from audiorl.rl_data import probe as module
from audiorl.rl_data.probe import Probe, ProbeFile, probe

TEXTS = ["ba do", "ki lu me", "no pa", "ri so tu", "ba ba ba", "tu ki", "me"]
KEYS = {"rl.num_generations": 3, "rl.num_prompts": 2, "rl.max_unscorable": 1.0}
SETTINGS = {"seed": 1, "temperature": 1.0}


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("dump") / "rl"
    write_set(folder, TEXTS)
    return read_utterances(folder)


def length(samples: list[Sample]) -> list[float | None]:
    """One that cannot score everything."""
    return [len(s.text) / 10 if len(s.text) % 4 else None for s in samples]


def length_of_all(samples: list[Sample]) -> list[float]:
    return [len(s.text) / 10 for s in samples]


def run(
    utterances: list[Utterance], path: Path, keys=None, settings=None, reward=length
) -> dict[str, Probe]:
    model = tiny_model({**KEYS, **(keys or {})}, spread=3.0)
    rewards = WeightedSum({"length": (reward, 1.0)})
    return probe(sampler(model), utterances, rewards, ProbeFile(path, settings or SETTINGS, {}))


def same(one: dict[str, Probe], other: dict[str, Probe]) -> bool:
    return repr(one) == repr(other)  # NaN differs from itself


@pytest.fixture(scope="module")
def undisturbed(utterances, tmp_path_factory) -> dict[str, Probe]:
    return run(utterances, tmp_path_factory.mktemp("undisturbed") / "probe.jsonl")


def test_everyone_is_asked(utterances, undisturbed) -> None:
    assert undisturbed.keys() == {u.id for u in utterances}
    rewards = [r for found in undisturbed.values() for r in found.rewards]
    assert len(rewards) == 3 * len(utterances)
    assert any(map(math.isnan, rewards)) and not all(map(math.isnan, rewards))
    for u in utterances:
        found = undisturbed[u.id]
        samples = [Sample(u, text, True) for text in found.samples]
        assert [bool(why) for why in found.failed] == [math.isnan(r) for r in found.rewards]
        assert repr(found.rewards) == repr([math.nan if r is None else r for r in length(samples)])


def test_the_greedy_hypothesis_is_that_of_decoding(utterances, undisturbed) -> None:
    model = tiny_model(KEYS, spread=3.0)
    decoded = transcribe(PolicyEngine(model), utterances, max_length=8)
    assert {i: found.greedy for i, found in undisturbed.items()} == {
        i: hypotheses[0].text for i, hypotheses in decoded.items()
    }


def test_batches_do_not_matter(utterances, undisturbed, tmp_path: Path) -> None:
    for size in (1, 7):
        found = run(utterances, tmp_path / f"{size}.jsonl", {"rl.num_prompts": size})
        assert same({name: found[name] for name in undisturbed}, undisturbed)


def test_training_draws_other_random_numbers(utterances, undisturbed) -> None:
    model = tiny_model(KEYS, spread=3.0)
    frames = encode_utterances(model, utterances)
    samples = read_text(model.tokenizer)(utterances, sampler(model).groups(utterances, frames, 0))
    drawn = {u.id: [s.text for s in samples if s.utterance is u] for u in utterances}
    assert drawn != {name: found.samples for name, found in undisturbed.items()}


DEATHS = {
    "before the first batch": before(module, "_probe_batch", lambda *_: True),
    "after the first batch": after(ProbeFile, "add", lambda self, batch, _: len(batch) == 2),
    "in the last batch": before(module, "_probe_batch", lambda model, batch, _: len(batch) == 1),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_prober_goes_on(death, utterances, undisturbed, tmp_path, capsys) -> None:
    path = tmp_path / "probe.jsonl"
    killed(lambda: run(utterances, path), DEATHS[death])
    done = len(path.read_text().splitlines()) - 1
    assert done == {"before the first batch": 0, "after the first batch": 2}.get(death, 6)
    assert same(run(utterances, path), undisturbed)
    assert f"going on after {done} utterances" in capsys.readouterr().out


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_line_cut_short_costs_its_batch(cut, utterances, undisturbed, tmp_path) -> None:
    path = tmp_path / "probe.jsonl"
    run(utterances, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert same(run(utterances, path), undisturbed)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["id"] for line in lines[1:]} == undisturbed.keys()


def test_nothing_is_asked_twice(utterances, undisturbed, tmp_path, monkeypatch) -> None:
    path = tmp_path / "probe.jsonl"
    run(utterances, path)
    monkeypatch.setattr(Sampler, "groups", None)
    assert same(run(utterances, path), undisturbed)


def test_what_a_reward_failed_on_is_rewarded_again(
    utterances, undisturbed, tmp_path, monkeypatch, capsys
) -> None:
    """A server that was down for a while: what was said is kept, with how it ended."""
    path = tmp_path / "probe.jsonl"
    down, asked = {u.id for u in utterances[:3]}, []

    def flaky(samples: list[Sample]) -> list[float | None]:
        values = zip(samples, length(samples), strict=True)
        return [None if s.utterance.id in down else v or 0.0 for s, v in values]

    def mended(samples: list[Sample]) -> list[float | None]:
        asked.extend(samples)
        return [v or 0.0 for v in length(samples)]

    before = run(utterances, path, reward=flaky)
    assert {i for i, found in before.items() if any(found.failed)} == down
    monkeypatch.setattr(Sampler, "groups", None)
    capsys.readouterr()
    after = run(utterances, path, reward=mended)
    assert "going on after 7 utterances, 3 of which are to be" in capsys.readouterr().out
    assert {s.utterance.id for s in asked} == down
    assert {(s.utterance.id, s.text, s.finished) for s in asked} == {
        (i, text, finished)
        for i in down
        for text, finished in zip(undisturbed[i].samples, undisturbed[i].finished, strict=True)
    }
    assert not any(why for found in after.values() for why in found.failed)
    for i, found in after.items():
        assert found.samples == undisturbed[i].samples
        assert found.rewards == [0.0 if math.isnan(r) else r for r in undisturbed[i].rewards]
    asked.clear()
    assert same(run(utterances, path, reward=mended), after)
    assert asked == []


def test_a_dead_reward_stops_at_the_first_batch(utterances, tmp_path, caplog) -> None:
    path, keys = tmp_path / "probe.jsonl", {"rl.max_unscorable": 0.1}

    def dead(samples: list[Sample]) -> list[float]:
        raise ConnectionError("nobody answers")

    for lines in (3, 5):  # the second time what was said comes from the file
        with pytest.raises(UserError) as stopped:
            run(utterances, path, keys, reward=dead)
        assert str(stopped.value) == (
            f"{path}: 100% of the samples could not be rewarded, more than rl.max_unscorable "
            "(10%); the log has the reasons, fix reward length (ConnectionError: nobody answers)."
        )
        assert len(path.read_text().splitlines()) == lines
    run(utterances, path, keys, reward=lambda samples: [0.0] * len(samples))


def test_a_reward_that_does_not_apply_has_not_failed(utterances, tmp_path) -> None:
    silent = utterances[1].id
    reward = Reward(length_of_all, applies=lambda u: u.id != silent)
    found = run(utterances, tmp_path / "probe.jsonl", {"rl.max_unscorable": 0.0}, reward=reward)
    assert {i for i, f in found.items() if all(map(math.isnan, f.rewards))} == {silent}
    assert not any(why for f in found.values() for why in f.failed)


def test_other_settings_begin_anew(utterances, undisturbed, tmp_path, capsys) -> None:
    path = tmp_path / "probe.jsonl"
    run(utterances, path)
    capsys.readouterr()
    other = run(utterances, path, {"rl.temperature": 2.0}, {**SETTINGS, "temperature": 2.0})
    assert (
        "probe.jsonl is out of date: temperature changed; probing anew" in capsys.readouterr().out
    )
    assert not same(other, undisturbed)
    assert len(path.read_text().splitlines()) == 1 + len(utterances)


def test_another_transcript_is_another_utterance(utterances, tmp_path, monkeypatch) -> None:
    path = tmp_path / "probe.jsonl"
    run(utterances, path)
    changed = [Utterance(**{**vars(u), "text": "so"}) if u.text == "me" else u for u in utterances]
    asked = []
    original = module._probe_batch
    monkeypatch.setattr(
        module, "_probe_batch", lambda m, batch, r: asked.append(batch) or original(m, batch, r)
    )
    run(changed, path)
    assert [[u.text for u in batch] for batch in asked] == [["so"]]


def test_what_the_disk_refuses_is_told(utterances, tmp_path) -> None:
    file = ProbeFile(tmp_path / "probe.jsonl", SETTINGS, {})
    (tmp_path / "probe.jsonl").unlink()
    (tmp_path / "probe.jsonl").mkdir()
    with pytest.raises(UserError, match=r"probe\.jsonl: cannot be written"):
        file.add(utterances[:1], {utterances[0].id: Probe("", [], [], [], [])})
