"""Policies on torch's meta device, of a recipe alone: sizes without weights."""

from __future__ import annotations

import torch
from torch import nn

from audiorl.config.schema import Config
from audiorl.errors import UserError, reason
from audiorl.models.audio_llm import Adaptor
from audiorl.models.encoder import Encoder
from audiorl.models.families.pretrained import pretrained_family
from audiorl.models.frontend import FRAME_SHIFT
from audiorl.models.language_model import LanguageModel, build_lm
from audiorl.models.policy import Policy, find_policy
from audiorl.models.pretrained_encoder import PretrainedEncoder, encoder_shape

INSTRUCTION, TEXT_LENGTH = 16, 100  # tokens around the audio; of a text to be spoken
SPEECH_ROWS = 4096  # of a codec whose codes the recipe does not tell
FRAME_RATE = 50  # frames a second of the encoders of transformers


class Sketch(Policy):
    """The parts of a policy, without what makes them run."""

    encode = prefix = prefix_length = from_settings = save_vocabulary = None

    def __init__(self, llm: LanguageModel, **others: nn.Module) -> None:
        super().__init__()
        self.llm = llm
        for name, module in others.items():
            setattr(self, name, module)
        self.part_names = (*others, "llm")


def sketch(config: Config) -> Policy:
    """Return the policy that a recipe begins with; its weights are on the meta device.

    Raises UserError for a pretrained part whose config.json cannot be read.
    """
    if name := config.model.pretrained:
        family = find_policy(config.model.family or pretrained_family(name))
        if not hasattr(family, "without_weights"):
            raise UserError(f"model.family: the memory of a {family.family} cannot be estimated.")
        return family.without_weights(config)
    try:
        with torch.device("meta"):
            return _built(config)
    except (OSError, ValueError) as error:
        name = config.llm.pretrained or config.encoder.pretrained
        raise UserError(
            f"llm.pretrained: the config.json of {name} cannot be read ({reason(error)}); give a "
            "folder or a hub name."
        ) from error


def _built(config: Config) -> Sketch:
    rows = config.tokenizer.vocab_size
    if config.task == "tts":
        rows += 3**config.codec.fsq_dims if config.codec.type == "native" else SPEECH_ROWS
    lm = build_lm(config.llm, rows, 1, config.llm.pretrained or None)
    if config.task == "tts":
        return Sketch(lm)
    sizes = config.encoder
    if sizes.pretrained:
        encoder = encoder_shape(sizes.pretrained)
    else:
        encoder = Encoder(sizes, config.frontend.n_mels, sizes.input_layer)
    stack, hidden = config.adaptor.stack, config.adaptor.hidden_size
    adaptor = Adaptor(encoder.output_size, stack, hidden, lm.config.hidden_size)
    return Sketch(lm, encoder=encoder, adaptor=adaptor)


def longest_prefix(config: Config, policy: Policy) -> tuple[int, int]:
    """Return the positions of the longest utterance's prefix, and the states of its memory."""
    seconds = config.data.max_duration
    if config.task == "tts":
        return TEXT_LENGTH, 0
    if not isinstance(policy, Sketch):
        return policy.longest_prefix(seconds)
    if isinstance(policy.encoder, PretrainedEncoder):
        frames = int(min(seconds, policy.encoder.seconds[1]) * FRAME_RATE)
    else:
        frames = int(policy.encoder.num_frames(torch.tensor(int(seconds * 1000 / FRAME_SHIFT))))
    return INSTRUCTION + -(-frames // config.adaptor.stack), 0
