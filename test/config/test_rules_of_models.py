"""The rules about models are those of ESPnet and transformers, no stricter and no laxer."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiorl.config import Config, load_config
from audiorl.errors import UserError

SMALL = [
    "frontend.freq_masks=0",
    "encoder.num_blocks=1",
    "encoder.output_size=12",
    "encoder.attention_heads=2",
    "encoder.linear_units=16",
    "llm.num_hidden_layers=1",
    "llm.hidden_size=16",
    "llm.intermediate_size=16",
    "llm.num_attention_heads=4",
]


def runs(config: Config) -> bool:
    """Whether a model of this config can be built and run."""
    import torch

    from audiorl.models.encoder import Encoder
    from audiorl.models.language_model import build_lm

    try:
        encoder = Encoder(config.encoder, config.frontend.n_mels, config.encoder.input_layer)
        features = torch.zeros(1, 64, config.frontend.n_mels)
        encoder.eval()(features, torch.tensor([64]))
        lm = build_lm(config.llm, vocab_size=8, end_id=1)
        lm(lm.embed(torch.tensor([[2, 3]])))
    except Exception:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["encoder.input_layer=conv2d6", "frontend.n_mels=10"],
        ["encoder.input_layer=conv2d6", "frontend.n_mels=11"],
        ["encoder.input_layer=conv2d8", "frontend.n_mels=14"],
        ["encoder.input_layer=conv2d8", "frontend.n_mels=15"],
        ["encoder.attention_heads=5"],
        ["encoder.output_size=15", "encoder.attention_heads=3"],
        ["encoder.output_size=18", "encoder.attention_heads=3"],
        ["encoder.kernel_size=4"],
        ["encoder.kernel_size=5"],
        ["encoder.type=e_branchformer", "encoder.kernel_size=4"],
        ["encoder.type=e_branchformer", "encoder.linear_units=17"],
        ["encoder.type=e_branchformer"],
        ["encoder.linear_units=17"],
        ["encoder.type=transformer", "encoder.kernel_size=4"],
        ["llm.hidden_size=20"],
        ["llm.hidden_size=24"],
        ["llm.num_key_value_heads=3"],
        ["llm.num_key_value_heads=2"],
        ["llm.num_key_value_heads=8"],
        ["llm.architecture=llama", "llm.hidden_size=20"],
        ["llm.architecture=qwen2", "llm.num_key_value_heads=3"],
    ],
    ids=lambda options: " ".join(options) or "small",
)
def test_a_config_is_refused_if_and_only_if_its_model_fails(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text("seed: 1\n")
    try:
        load_config(tmp_path / "c.yaml", [*SMALL, *options])
        refused = False
    except UserError:
        refused = True
    monkeypatch.setattr("audiorl.config.schema.Config.broken_rules", lambda config: [])
    config = load_config(tmp_path / "c.yaml", [*SMALL, *options])
    assert refused != runs(config)
