"""log P(text | tokens): the sum that it should be, with a gradient, whatever the batch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tiny_speaker import CODEC, tiny_recogniser, utterance

from audiorl.errors import UserError
from audiorl.models.ctc import best_path, ctc_log_likelihood, frames_needed
from audiorl.models.token_recogniser import RecogniserFacts, TokenRecogniser

TOKENS = [[0, 3, 5, 1], [2], [4, 4, 1, 0, 5, 2, 3], [1, 2, 3]]
SAID = ["ab a", "c", "b cab", "cc"]


def collapse(path: tuple[int, ...]) -> list[int]:
    """What CTC writes for a path."""
    return [a for i, a in enumerate(path) if a and (i == 0 or path[i - 1] != a)]


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], [1, 1, 1]])
def test_ctc_is_the_sum_over_all_paths(labels: list[int]) -> None:
    torch.manual_seed(1)
    logits = torch.randn(5, 2, 3)  # [T, B, U]
    found = ctc_log_likelihood(logits, torch.tensor([5, 3]), [torch.tensor(labels)] * 2)
    for row, frames in enumerate((5, 3)):
        probabilities = logits[:frames, row].softmax(-1)
        total = sum(
            math.prod(float(probabilities[t, u]) for t, u in enumerate(path))
            for path in itertools.product(range(3), repeat=frames)
            if collapse(path) == labels
        )
        expected = math.log(total) if total else -math.inf
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)
        assert (total > 0) == (frames_needed(torch.tensor(labels)) <= frames)


def test_the_best_path_is_collapsed() -> None:
    path = torch.tensor([0, 1, 1, 0, 1, 2, 2, 0])
    logits = torch.nn.functional.one_hot(path, 3)[:, None].float().repeat(1, 2, 1)
    assert best_path(logits, torch.tensor([8, 6])) == [[1, 1, 2], [1, 1, 2]]
    assert best_path(logits, torch.tensor([3, 1])) == [[1], []]


def test_a_likelihood_does_not_depend_on_the_batch() -> None:
    recogniser = tiny_recogniser({"reward_model.encoder.num_blocks": 2})
    classes = {"speaker": ["s", "t", "t", "s"]}

    def score(rows: list[int]) -> dict[str, torch.Tensor]:
        tokens, lengths = recogniser.pad([TOKENS[row] for row in rows])
        chosen = {"speaker": [classes["speaker"][row] for row in rows]}
        embedded = recogniser.embed(tokens)
        embedded = torch.where(  # what stands on padding does not matter
            (torch.arange(tokens.size(1)) < lengths[:, None])[:, :, None], embedded, 7.0
        )
        return recogniser.log_likelihoods(embedded, lengths, [SAID[r] for r in rows], chosen)

    together = score([0, 1, 2, 3])
    for row in range(4):
        alone = score([row])
        for task in ("text", "speaker"):
            torch.testing.assert_close(together[task][row], alone[task][0], rtol=0, atol=1e-4)
    assert recogniser.transcribe(TOKENS) == [recogniser.transcribe([row])[0] for row in TOKENS]


def test_it_is_the_weighted_sum_of_ctc_and_attention() -> None:
    """Attention by hand: the decoder is asked for one character after the other."""
    recogniser = tiny_recogniser()
    tokens, lengths = torch.tensor([TOKENS[0]]), torch.tensor([4])
    frames, _ = recogniser.encoder(recogniser.embed(tokens), lengths)
    logits = recogniser.ctc_head(frames[0])  # [4, units]
    ctc = ctc_log_likelihood(logits[:, None], torch.tensor([4]), [torch.tensor([2, 3])])
    written, attention = [0], 0.0
    for label in [2, 3, 0]:  # a, b, end; label 1 is the space
        sizes = torch.tensor([len(written)])
        step, _ = recogniser.decoder(frames, lengths, torch.tensor([written]), sizes)
        attention += float(step[0, -1].log_softmax(-1)[label])
        written.append(label)
    found = recogniser.log_likelihood(recogniser.embed(tokens), lengths, ["ab"])
    assert float(found) == pytest.approx(0.5 * float(ctc) + 0.5 * attention, abs=1e-4)


def test_a_mixture_of_one_token_is_that_token() -> None:
    recogniser = tiny_recogniser()
    tokens = torch.tensor([[0, 5, 3], [2, 2, 1]])
    single = torch.nn.functional.one_hot(tokens, 6).float()
    torch.testing.assert_close(recogniser.embed_soft(single), recogniser.embed(tokens))


def test_the_gradient_in_a_mixture_is_the_slope() -> None:
    """Against finite differences, with every part of the likelihood in it."""
    recogniser = tiny_recogniser(spread=2.0).double()
    torch.manual_seed(3)
    weights = torch.rand(2, 4, 6, dtype=torch.float64).softmax(-1).requires_grad_()
    lengths, texts, classes = torch.tensor([4, 3]), ["ab", "c a"], {"speaker": ["s", "t"]}

    def value(mixture: torch.Tensor) -> torch.Tensor:
        embedded = recogniser.embed_soft(mixture)
        return sum(
            v.sum() for v in recogniser.log_likelihoods(embedded, lengths, texts, classes).values()
        )

    value(weights).backward()
    direction = torch.randn_like(weights)
    with torch.no_grad():
        step = 1e-3
        slope = (value(weights + step * direction) - value(weights - step * direction)) / (2 * step)
    along = float((weights.grad * direction).sum())
    assert along == pytest.approx(float(slope), rel=2e-3)
    assert weights.grad[1, 3].abs().max() == 0  # beyond the end
    assert all(parameter.grad is None for parameter in recogniser.parameters())


def test_what_has_no_room_is_impossible() -> None:
    recogniser = tiny_recogniser()
    tokens, lengths = recogniser.pad([[], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4]])
    texts = ["a", "abc", "abca", "aa b"]
    found = recogniser.log_likelihood(recogniser.embed(tokens), lengths, texts)
    room = [recogniser.has_room(text, n) for text, n in zip(texts, [0, 2, 4, 4], strict=True)]
    assert found.isfinite().tolist() == room == [False, False, True, False]


def test_nothing_is_heard_in_no_tokens() -> None:
    recogniser = tiny_recogniser()
    assert recogniser.transcribe([]) == []
    heard = recogniser.transcribe([[], [1, 2, 3, 4, 5], []])
    assert heard[0] == heard[2] == ""
    classes = recogniser.classify([[], [1, 2, 3, 4, 5]])["speaker"]
    assert classes[0] == "" and classes[1] in ("s", "t")


def test_classes_are_those_of_the_likelihood() -> None:
    recogniser = tiny_recogniser(spread=5.0)
    tokens, lengths = recogniser.pad(TOKENS)
    scores = [
        recogniser.log_likelihoods(
            recogniser.embed(tokens), lengths, SAID, {"speaker": [name] * 4}
        )["speaker"]
        for name in ("s", "t")
    ]
    torch.testing.assert_close(torch.stack(scores).exp().sum(0), torch.ones(4))
    best = ["st"[i] for i in torch.stack(scores).argmax(0).tolist()]
    assert recogniser.classify(TOKENS)["speaker"] == best


def test_classes_of_utterances() -> None:
    facts = RecogniserFacts(
        CODEC, " abc", {"rate": ["slow", "normal", "fast"], "style": ["calm"]}, [0.5, 1]
    )
    recogniser = tiny_recogniser(facts=facts)
    u = utterance("u", "abc", "s7", style="calm")  # 4 units with the end
    rates = {n: recogniser.class_of("rate", u, n) for n in (3, 4, 7, 8, 9)}
    assert rates == {3: "fast", 4: "normal", 7: "normal", 8: "slow", 9: "slow"}
    assert recogniser.class_of("rate", u) == "normal"
    assert recogniser.class_of("rate", utterance("u", "abc", rate="fast")) == "fast"
    assert recogniser.class_of("style", u) == "calm"
    assert recogniser.class_of("speaker", u) == "s7"
    recogniser.refuse_unknown([u], ["rate", "style"])
    with pytest.raises(UserError, match=r"^v: its style `` is none that the reward model learnt"):
        recogniser.refuse_unknown([u, utterance("v", "a")], ["style"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "u: nothing of its text is spoken"),
        ("?!", "u: nothing of its text is spoken"),
        ("abd7", r"u: .* never read: 7 \(U\+0037\) d \(U\+0064\); spell"),
    ],
)
def test_texts_that_it_cannot_read(text: str, reason: str) -> None:
    recogniser = tiny_recogniser()
    with pytest.raises(UserError, match=f"^{reason}"):
        recogniser.refuse_unknown([utterance("fine", "A-b, c!"), utterance("u", text)])


def test_it_is_saved_and_loaded(tmp_path) -> None:
    recogniser = tiny_recogniser()
    recogniser.save(tmp_path)
    loaded = TokenRecogniser.load(tmp_path)
    assert loaded.facts == recogniser.facts
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    tokens, lengths = recogniser.pad(TOKENS)
    one, two = (r.log_likelihood(r.embed(tokens), lengths, SAID) for r in (recogniser, loaded))
    assert torch.equal(one, two)


@pytest.mark.parametrize("file", ["recogniser.json", "config.yaml", "model.safetensors"])
def test_half_a_model_is_refused(file: str, tmp_path) -> None:
    tiny_recogniser().save(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:20])
    with pytest.raises(UserError) as raised:
        TokenRecogniser.load(tmp_path)
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)
    (tmp_path / file).unlink()
    with pytest.raises(UserError):
        TokenRecogniser.load(tmp_path)
