"""Whisper as a policy is that of transformers, and hears an utterance alone as in a batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from tiny import RATE, sing
from tiny_whisper import SECONDS, TIMESTAMPS, save_whisper, tiny_whisper, whisper_config
from torch import Tensor
from transformers import AutoProcessor, WhisperForConditionalGeneration

from audiorl.engines.beam import beam_search
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.infer.transcribe import greedy
from audiorl.models.families.whisper import Whisper
from audiorl.models.language_model import Prefix
from audiorl.models.policy import load_policy
from audiorl.rl.logprobs import response_logprobs
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import normalizer

TEXTS = ["ba", "do ki lu me no", "pa ri so"]
GROUP = 3


@pytest.fixture(scope="module", params=["english", "multilingual"])
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / request.param
    return save_whisper(folder, multilingual=request.param == "multilingual")


@pytest.fixture
def policy(folder: Path) -> Whisper:
    return tiny_whisper(folder)


@pytest.fixture
def original(folder: Path) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def waves() -> list[Tensor]:
    return [torch.from_numpy(sing(text)) for text in TEXTS]


def features(policy: Whisper) -> Tensor:
    """Of transformers' own window."""
    listed = [wave.numpy() for wave in waves()]
    return policy.extractor(listed, sampling_rate=RATE, return_tensors="pt").input_features


def heard(policy: Whisper) -> Prefix:
    with torch.no_grad():
        return policy.prefix(policy.encode(waves()))


def some_tokens(policy: Whisper, length: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (len(TEXTS) * GROUP, length)
    return torch.randint(0, policy.pad_id, shape, generator=generator)


def close(actual: Tensor, expected: Tensor, limit: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


@torch.no_grad()
def test_logits_are_those_of_its_own_forward(policy: Whisper, original) -> None:
    tokens = some_tokens(policy)
    start = torch.tensor([policy._start] * len(tokens))
    own = original(
        input_features=features(policy).repeat_interleave(GROUP, 0),
        decoder_input_ids=torch.cat([start, tokens[:, :-1]], 1),
    ).logits[:, start.size(1) - 1 :]
    for share in (False, True):
        states = policy.llm.response_states(heard(policy), tokens, share)
        close(policy.llm.logits(states), own)


def test_start_tokens(policy: Whisper, folder: Path) -> None:
    names = {i: name for name, i in policy.tokenizer.vocabulary().items()}
    languages = ["<|en|>", "<|transcribe|>"] if folder.name == "multilingual" else []
    expected = ["<|startoftranscript|>", *languages, "<|notimestamps|>"]
    assert [names[i] for i in policy._start] == expected


def test_language_and_task_begin_the_text_also_of_a_saved_one(tmp_path: Path) -> None:
    hub = save_whisper(tmp_path / "hub", multilingual=True)
    policy = tiny_whisper(hub, {"whisper.language": "zh", "whisper.task": "translate"})
    expected = ["<|startoftranscript|>", "<|zh|>", "<|translate|>", "<|notimestamps|>"]
    assert [policy.tokenizer.vocabulary()[name] for name in expected] == policy._start
    policy.save(tmp_path / "saved")
    assert Whisper.load(tmp_path / "saved")._start == policy._start


def test_greedy_is_what_transformers_generates(policy: Whisper, original) -> None:
    theirs = original.generate(
        features(policy),
        decoder_input_ids=torch.tensor([policy._start] * len(TEXTS)),
        max_new_tokens=12,
        do_sample=False,
        suppress_tokens=policy.forbidden.nonzero().flatten().tolist(),
        begin_suppress_tokens=None,
    )
    sampling = Sampling(greedy=True)
    found = PolicyEngine(policy).generate(heard(policy), group=1, max_length=12, sampling=sampling)
    texts, end = theirs.tolist(), policy.stop_ids[0]
    texts = [row[: row.index(end) + 1] if end in row else row for row in texts]
    ours = [row[m].tolist() for row, m in zip(found.tokens, found.mask, strict=True)]
    assert ours == texts and len(set(map(tuple, texts))) > 1


@pytest.mark.parametrize("window", ["full", "utterance"])
def test_alone_as_in_a_batch(folder: Path, window: str) -> None:
    policy = tiny_whisper(folder, {"whisper.window": window, "whisper.margin": 0.1})
    with torch.no_grad():
        together = policy.encode(waves())
        alone = [policy.encode([wave])[0] for wave in waves()]
        for mine, other in zip(alone, together, strict=True):
            assert mine.shape == other.shape
            close(mine, other, 1e-5)
        tokens = some_tokens(policy)
        states = policy.llm.response_states(policy.prefix(together), tokens, share=False)
        for i, condition in enumerate(alone):
            rows = slice(i * GROUP, (i + 1) * GROUP)
            own = policy.llm.response_states(policy.prefix([condition]), tokens[rows], share=False)
            close(states[rows], own)
    seconds = [len(wave) / RATE for wave in waves()]
    whole = window == "full"
    counts = [SECONDS * 50 if whole else -(-round(1000 * (s + 0.1)) // 20) for s in seconds]
    assert [len(row) for row in together] == counts


def test_the_window_of_an_utterance_is_the_beginning_of_the_full_one(folder: Path) -> None:
    """With a margin up to 30 s both are the same; features are those of the full window."""
    full = tiny_whisper(folder)
    cut = tiny_whisper(folder, {"whisper.window": "utterance", "whisper.margin": SECONDS})
    for mine, other in zip(cut.encode(waves()), full.encode(waves()), strict=True):
        assert torch.equal(mine, other)
    short = cut._features(waves()[0], 20)
    close(short, full._features(waves()[0], SECONDS * 50)[:40], 1e-6)


def test_the_memory_of_others_is_not_heard(folder: Path) -> None:
    policy = tiny_whisper(folder, {"whisper.window": "utterance"})
    prefix, tokens = heard(policy), some_tokens(policy)
    before = policy.llm.response_states(prefix, tokens, share=False)
    prefix.memory[~prefix.memory_mask] = 1e3
    close(policy.llm.response_states(prefix, tokens, share=False), before)


@pytest.mark.parametrize("share", [False, True])
def test_gradients_reach_what_learns_alone(policy: Whisper, share: bool) -> None:
    tokens, gradients = some_tokens(policy), {}
    for names in (["llm"], ["encoder"], ["embeddings"], ["llm", "encoder"]):
        policy.train_only(names)
        policy.zero_grad()
        states = policy.llm.response_states(policy.prefix(policy.encode(waves())), tokens, share)
        policy.llm.logits(states).square().mean().backward()
        moved = {n for n, p in policy.hf.named_parameters() if p.grad is not None and p.grad.any()}
        gradients[" ".join(names)] = moved
    llm = {
        n for n, p in policy.llm.model.named_parameters(prefix="model.decoder") if "embed" not in n
    }
    unmoved = {n for n in llm if n.endswith("k_proj.bias")}
    assert gradients["llm"] == llm - unmoved
    tables = {f"model.decoder.embed_{name}.weight" for name in ("tokens", "positions")}
    assert gradients["embeddings"] == tables
    assert all(name.startswith("model.encoder.") for name in gradients["encoder"])
    assert len(gradients["encoder"]) > 20
    assert "model.encoder.embed_positions.weight" not in gradients["encoder"]  # sinusoids
    assert gradients["llm encoder"] == gradients["llm"] | gradients["encoder"]


def test_shared_and_plain_gradients(policy: Whisper) -> None:
    policy.train_only(["llm", "encoder"])
    found = []
    for share in (False, True):
        policy.zero_grad()
        prefix = policy.prefix(policy.encode(waves()))
        states = policy.llm.response_states(prefix, some_tokens(policy), share)
        states.square().mean().backward()
        found.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
    for plain, shared in zip(*found, strict=True):
        close(shared, plain, 1e-5 * max(1.0, plain.abs().max().item()))


def test_keys_of_the_encoder_states_are_made_once_a_group(policy: Whisper, monkeypatch) -> None:
    sizes = []
    attention = type(policy.llm.model.layers[0].encoder_attn)
    usual = attention.keys_values

    def counted(self, states: Tensor):
        sizes.append(len(states))
        return usual(self, states)

    monkeypatch.setattr(attention, "keys_values", counted)
    sampling = Sampling(greedy=True)
    PolicyEngine(policy).generate(heard(policy), group=4, max_length=5, sampling=sampling)
    policy.llm.response_states(heard(policy), some_tokens(policy), share=True)
    assert sizes == [len(TEXTS)] * 2 * len(policy.llm.model.layers)


@pytest.mark.parametrize("beams", [1, 3])
def test_beam_search(policy: Whisper, beams: int) -> None:
    prefix = heard(policy)
    found = beam_search(policy, prefix, beams=beams, max_length=6)
    best = [responses[0] for responses in found]
    tokens, mask = policy.pad_responses([torch.tensor(r.ids) for r in best])
    with torch.no_grad():
        logps = response_logprobs(
            policy.llm, prefix, tokens, mask,
            sampling=Sampling(), forbidden=policy.forbidden, share=False,
        ).logps.sum(1)  # fmt: skip
    close(logps, torch.tensor([r.logp for r in best]))
    if beams == 1:
        texts = [h.text for h in greedy(PolicyEngine(policy), prefix, 6)]
        assert [policy.tokenizer.decode(r.ids) for r in best] == texts


def test_only_text_and_its_end_can_be_written(policy: Whisper, folder: Path) -> None:
    end = policy.stop_ids[0]
    assert policy.forbidden.nonzero().flatten().tolist() == list(
        range(end + 1, end + 8 + TIMESTAMPS)
    )
    fewer = tiny_whisper(folder, {"whisper.suppress": True}).forbidden
    assert (fewer & ~policy.forbidden).nonzero().flatten().tolist() == [5, 6]


def test_transcripts_are_written_with_a_space_before_them(policy: Whisper) -> None:
    tokens, mask = policy.responses(["ba do", ""])
    rows = [row[m].tolist() for row, m in zip(tokens, mask, strict=True)]
    assert rows[1] == [policy.stop_ids[0]]
    assert policy.tokenizer._tokenizer.decode(rows[0][:-1]) == " ba do"
    assert policy.tokenizer.decode(rows[0]) == "ba do"


def test_saved_as_transformers_reads_it(policy: Whisper, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in policy.hf.parameters():
            parameter.add_(0.01)
    policy.save(tmp_path / "model")
    tokens = some_tokens(policy)
    with torch.no_grad():
        logits = policy.llm.logits(policy.llm.response_states(heard(policy), tokens, share=False))
        loaded = load_policy(tmp_path / "model")
        states = loaded.llm.response_states(heard(loaded), tokens, share=False)
        assert torch.equal(loaded.llm.logits(states), logits)
        plain, report = WhisperForConditionalGeneration.from_pretrained(
            tmp_path / "model", output_loading_info=True
        )
        assert not any(report.values()), report
        start = torch.tensor([policy._start] * len(tokens))
        own = plain.eval()(
            input_features=features(policy).repeat_interleave(GROUP, 0),
            decoder_input_ids=torch.cat([start, tokens[:, :-1]], 1),
        ).logits[:, start.size(1) - 1 :]
        close(logits, own)
    assert plain.dtype == torch.float32
    assert plain.generation_config.suppress_tokens == [5, 6, policy.stop_ids[0] + 1]
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    assert processor.tokenizer.encode(" ba do", add_special_tokens=False)
    assert processor.feature_extractor.feature_size == 16


def test_saved_as_the_converter_of_whisper_cpp_reads_it(policy: Whisper, tmp_path: Path) -> None:
    policy.save(tmp_path / "model")
    units, added, sizes = (
        json.loads((tmp_path / "model" / f"{name}.json").read_text())
        for name in ("vocab", "added_tokens", "config")
    )
    end = policy.stop_ids[0]
    assert sorted(units.values()) == list(range(end)) and added["<|endoftext|>"] == end
    assert sizes["decoder_layers"] == 2 and sizes["encoder_layers"] == 3
    assert sizes["vocab_size"] == len(policy.forbidden)


def test_audio_beyond_the_window_is_refused(policy: Whisper) -> None:
    with pytest.raises(UserError, match=r"a whisper hears 2 s, and audio of 2\.10 s would be cut"):
        policy.encode([torch.zeros(round(2.1 * RATE))])


def test_audio_of_a_few_samples_is_heard(folder: Path) -> None:
    policy = tiny_whisper(folder, {"whisper.window": "utterance", "whisper.margin": 0.0})
    (states,) = policy.encode([torch.zeros(3)])
    assert states.shape == (1, 32) and states.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("english", {"language": "zh"}, "English alone, and cannot transcribe zh; take a multi"),
        ("english", {"task": "translate"}, "English alone, and cannot translate en; take a multi"),
        ("multilingual", {"language": "xx"}, r"whisper.language: .* has no token <\|xx\|>"),
    ],
)
def test_languages_and_tasks_that_it_does_not_know(tmp_path, name, options, sentence) -> None:
    folder = save_whisper(tmp_path, multilingual=name == "multilingual")
    with pytest.raises(UserError, match=sentence):
        tiny_whisper(folder, {f"whisper.{key}": value for key, value in options.items()})


def test_more_tokens_than_positions(policy: Whisper) -> None:
    length = 41 - len(policy._start)
    with pytest.raises(UserError, match="max_completion_length: a whisper has 40 positions"):
        greedy(PolicyEngine(policy), heard(policy), length)


def test_transcripts_longer_than_its_positions(policy: Whisper) -> None:
    most = 41 - len(policy._start)
    policy.responses(["#" * (most - 2)])  # a space before, and an end
    with pytest.raises(UserError, match=rf"has {most + 1} tokens, and this Whisper writes {most}"):
        policy.responses(["ba", "#" * (most - 1)])


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pretrained: .* cannot be loaded"):
        tiny_whisper(tmp_path)


def test_real_weights_hear_what_they_hear_in_transformers(shared_data, tmp_path: Path) -> None:
    """Whisper tiny.en on the shortest of LibriSpeech: its own decoding, by error rate and text."""
    folder = shared_data("models") / "whisper-tiny.en"
    files = sorted(shared_data("LibriSpeech").rglob("*.flac"), key=lambda f: f.stat().st_size)[:6]
    texts = {
        name: text
        for path in {f.parent for f in files}
        for name, text in (
            line.split(" ", 1) for line in next(path.glob("*.trans.txt")).open(encoding="utf-8")
        )
    }
    policy = Whisper.create(whisper_config(folder), [])
    assert policy._start == [50257, 50362] and policy.stop_ids == (50256,)
    heard = [torch.from_numpy(soundfile.read(f, dtype="float32")[0]) for f in files]
    with torch.no_grad():
        prefix = policy.prefix(policy.encode(heard))
    ours = [h.text for h in greedy(PolicyEngine(policy), prefix, 60)]
    plain = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    window = policy.extractor([w.numpy() for w in heard], sampling_rate=RATE, return_tensors="pt")
    ids = plain.generate(window.input_features, max_new_tokens=60)
    theirs = [policy.tokenizer.decode(row) for row in ids]

    def rate(found: list[str]) -> float:
        clean = normalizer("english")
        pairs = zip(files, found, strict=True)
        counts = (count_errors(clean(texts[f.stem]).split(), clean(t).split()) for f, t in pairs)
        return sum(counts, Counts()).rate

    assert abs(rate(ours) - rate(theirs)) < 0.01 and rate(ours) < 0.2
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 5
