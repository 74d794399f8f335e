"""The codec that a recipe trains: tokens that carry the text, and a flow that speaks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.models.codec.base import weights_hash
from audiorl.models.codec.flow import FlowDecoder
from audiorl.models.codec.quantiser import FiniteScalarQuantiser
from audiorl.models.codec.settings import CodecSettings
from audiorl.models.codec.speaker import SPEAKER_SIZE, SpeakerEncoder
from audiorl.models.codec.vocoder import GriffinLim, SourceFilter
from audiorl.models.ctc import best_path, ctc_log_likelihood
from audiorl.models.encoder import Encoder
from audiorl.models.frontend import Frontend
from audiorl.models.settings import save_model
from audiorl.models.voice import Voice
from audiorl.runtime.files import write_json
from audiorl.text.characters import Characters

CHARACTERS = "characters.json"
LEVELS = 3  # of each number of a code
STRIDE = 4  # mel frames of a token: what ESPnet's conv2d joins
BEFORE = 2  # its 7 frames begin so many before the 4 of a token,
AFTER = 3 - BEFORE  # and end so many after them
LEAST_POWER = 1e-5  # least power of a mel band: 80 dB below loud speech


class NativeCodec(nn.Module):
    """Wave -> log-mel -> Conformer -> FSQ -> tokens; tokens, speaker -> flow -> log-mel -> wave.

    In training, a Conformer with CTC over characters follows the quantiser and sees the tokens
    alone: they have to hold the text (the supervised tokens of CosyVoice, arXiv 2407.05407). The
    flow decoder and the speaker encoder are trained on the finished tokens.
    """

    type, speaker_size = "native", SPEAKER_SIZE
    continues_prompts = False

    def __init__(self, settings: CodecSettings, characters: Characters) -> None:
        super().__init__()
        self.settings = settings
        self.characters = characters
        codec, flow, n_mels = settings.codec, settings.flow, settings.frontend.n_mels
        self.frontend = Frontend(settings.frontend, settings.sample_rate)
        self.sample_rate = self.output_rate = settings.sample_rate
        self.token_rate = self.sample_rate / (STRIDE * self.frontend.hop)

        self.encoder = Encoder(codec.encoder, n_mels)
        self.quantiser = FiniteScalarQuantiser(codec.encoder.output_size, codec.fsq_dims, LEVELS)
        self.codebook_size = self.quantiser.codebook_size
        reader = replace(codec.encoder, num_blocks=1)
        self.reader = Encoder(reader, codec.fsq_dims, "linear")
        self.head = nn.Linear(
            codec.encoder.output_size, len(characters.symbols) + 1
        )  # 0 is the blank
        self.echo = nn.Linear(codec.encoder.output_size, STRIDE * n_mels)

        self.flow = FlowDecoder(flow, codec.fsq_dims, n_mels, STRIDE)
        self.voice = SpeakerEncoder(flow, n_mels)
        self.vocoder = (
            SourceFilter(self.frontend)
            if flow.vocoder == "source_filter"
            else GriffinLim(self.frontend, flow.griffin_lim_steps)
        )
        # Mean and deviation of the log-mel values of the training data, by band.
        self.register_buffer("mel_mean", torch.zeros(n_mels))
        self.register_buffer("mel_spread", torch.ones(n_mels))

    @property
    def device(self) -> torch.device:
        return self.mel_mean.device

    @torch.no_grad()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        _, tokens, lengths = self._quantise(waves)
        return [row[:n].cpu() for row, n in zip(tokens, lengths.tolist(), strict=True)]

    @torch.no_grad()
    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        """Return waves as `Codec.decode`, in one padded batch; without tokens an empty wave.

        Speaker vectors may be means of several.
        """
        waves = [torch.zeros(0) for _ in tokens]
        spoken = [place for place, row in enumerate(tokens) if len(row)]
        if spoken:
            codes = [self.quantiser.codes(tokens[place].to(self.device)) for place in spoken]
            vectors = torch.stack([voices[place].vector for place in spoken])
            speakers = F.normalize(vectors.to(self.device), dim=-1)
            mels = self.flow.sample(codes, speakers, self.settings.seed)
            mels = [mel * self.mel_spread + self.mel_mean for mel in mels]
            for place, wave in zip(spoken, self.vocoder(mels), strict=True):
                waves[place] = wave.cpu()
        return waves

    @torch.no_grad()
    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        return self._speaker(waves).cpu()

    def prompt(self, wave: Tensor, text: str = "") -> Voice:
        return Voice(text, self.encode([wave])[0].tolist(), self.speaker([wave])[0])

    @torch.no_grad()
    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        """Return the texts that the tokens of waves [S_i] carry, by greedy CTC."""
        codes, _, lengths = self._quantise(waves)
        hidden, _ = self.reader(codes, lengths)
        paths = best_path(self.head(hidden).transpose(0, 1), lengths)
        return [self.characters.text(path) for path in paths]

    def tokens_loss(self, waves: Sequence[Tensor], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the losses of the tokens of waves [S_i]: of their text, and of their sound.

        CTC per character; and the mean squared error of the normalised log-mel frames that a
        linear layer predicts from the reader's states.
        """
        codes, _, lengths = self._quantise(waves)
        hidden, _ = self.reader(codes, lengths)
        labels = [torch.tensor(self.characters.labels(t), dtype=torch.long) for t in texts]
        logp = ctc_log_likelihood(self.head(hidden).transpose(0, 1), lengths, labels)  # [B]
        spelt = logp.isfinite()  # the others have more characters than tokens
        text = -logp[spelt].sum() / max(1, sum(map(len, labels)))
        mel, frames = self._mel(waves)
        found = self.echo(hidden).unflatten(-1, (STRIDE, -1)).flatten(1, 2)[:, : mel.size(1)]
        real = (torch.arange(mel.size(1), device=self.device) < frames[:, None])[..., None]
        return text, ((found - mel) ** 2 * real).sum() / (real.sum() * mel.size(-1))

    def flow_loss(
        self, waves: Sequence[Tensor], tokens: Sequence[Tensor], references: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the flow's losses on waves [S_i]: of the velocity, and of the draft.

        The waves' tokens, and other recordings of the voices, are given.
        """
        mel, frames = self._mel(waves)
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        codes = self.quantiser.codes(pad_sequence(list(tokens), batch_first=True).to(self.device))
        mel = F.pad(mel, (0, 0, 0, STRIDE * codes.size(1) - mel.size(1)))
        return self.flow.loss(mel, frames, codes, lengths, self._speaker(references))

    @torch.no_grad()
    def fit_mel(self, waves: Sequence[Tensor]) -> None:
        """Set mean and deviation of each mel band to those of waves [S_i]."""
        padded = (self.frontend.pad([wave], 1, self.device)[0] for wave in waves)
        mels = torch.cat([self._log_mel(wave)[0] for wave in padded])
        self.mel_mean.copy_(mels.mean(0))
        self.mel_spread.copy_(mels.std(0).clamp(min=1e-2))

    def fingerprint(self) -> str:
        """Return a hash of the encoder and the quantiser."""
        return weights_hash(self.encoder, self.quantiser)

    def save(self, folder: Path) -> None:
        write_json(folder / CHARACTERS, self.characters.symbols)
        save_model(self, folder)

    def _quantise(self, waves: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [B, T, dims], tokens [B, T] and their number [B]: each 4 frames begun are one."""
        features, frames = self.frontend(*self.frontend.pad(waves, 1, self.device))
        lengths = -(-frames // STRIDE)
        after = AFTER + int(STRIDE * lengths.max()) - features.size(1)
        features = F.pad(features, (0, 0, BEFORE, after))  # 0 is the mean of the utterance
        hidden, _ = self.encoder(features, STRIDE * lengths + BEFORE + AFTER)
        real = torch.arange(hidden.size(1), device=self.device) < lengths[:, None]
        return *self.quantiser(hidden, real), lengths

    def _speaker(self, waves: Sequence[Tensor]) -> Tensor:
        return self.voice(*self._mel(waves))

    def _mel(self, waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Normalised log-mel frames [B, N, n_mels] and their number [B]."""
        padded, samples = self.frontend.pad(waves, 1, self.device)
        mel = (self._log_mel(padded) - self.mel_mean) / self.mel_spread
        return mel, self.frontend.num_frames(samples)

    @torch.no_grad()
    def _log_mel(self, waves: Tensor) -> Tensor:
        """Log-mel frames [B, N, n_mels] of waves [B, S]."""
        return self.frontend.mel(waves).clamp(min=LEAST_POWER).log().transpose(1, 2)
