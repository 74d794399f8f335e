"""The control: cross entropy on the transcripts of a step's prompts."""

from __future__ import annotations

import copy

import pytest
import torch
from steps import Recorder, close, learning_model

from audiorl.errors import UserError
from audiorl.infer.transcribe import encode_utterances
from audiorl.rl.frames import FrameStore
from audiorl.rl.supervised import Continued
from audiorl.runs.optimizer import Optimizers


@pytest.mark.parametrize("parts", [["adaptor", "llm"], ["adaptor", "llm", "encoder"]])
def test_the_gradient_is_that_of_the_transcripts(utterances, parts: list[str]) -> None:
    model = learning_model({"rl.train": parts})
    recorder = Recorder(model)
    frames = FrameStore(model, frozen="encoder" not in parts)
    output = Continued(model, recorder, frames, model.recipe.rl).step(0, utterances, 1.0)
    model.zero_grad()
    waves = FrameStore.encode(model, utterances)
    loss = model.supervised_loss(waves, [u.text for u in utterances], ctc_weight=0.0)
    loss.total.backward()
    named = model.named_parameters()
    close(recorder.gradients[0], {n: p.grad for n, p in named if p.grad is not None})
    assert output.metrics["loss"] == pytest.approx(loss.lm.item(), rel=1e-5)
    assert output.completions == []
    assert {name.split(".")[0] for name in recorder.gradients[0]} == set(parts)


def test_it_learns_the_transcripts(utterances) -> None:
    model = learning_model()
    optimizer = Optimizers([model.adaptor, model.llm], 1e-2, weight_decay=0.0)
    control = Continued(model, optimizer, FrameStore(model, frozen=True), model.recipe.rl)
    encoder = copy.deepcopy(model.encoder.state_dict())
    losses = [control.step(step, utterances, 1.0).metrics["loss"] for step in range(40)]
    assert losses[-1] < 0.2 * losses[0]
    assert all(torch.equal(encoder[n], v) for n, v in model.encoder.state_dict().items())
    assert not model.training
    assert len(encode_utterances(model, utterances)) == 5


def test_a_gradient_that_is_no_number_stops_the_run(utterances) -> None:
    model = learning_model()
    optimizer = Optimizers([model.adaptor, model.llm], 1e-2, weight_decay=0.0)
    model.adaptor.register_forward_hook(lambda module, inputs, output: output * torch.nan)
    with pytest.raises(UserError, match=rf"gradient is nan .* 2 utterances, {utterances[0].id}, "):
        Continued(model, optimizer, FrameStore(model, True), model.recipe.rl).step(
            0, utterances[:2], 1.0
        )
