"""Serves CosyVoice 2's or 3's speech tokenizer, flow and vocoder as a codec of audiorl.

Runs in CosyVoice's own environment, where its repository is on PYTHONPATH, and imports nothing of
audiorl. In audiorl's environment, before any stage:

  export AUDIORL_CODEC_SERVER="/opt/cosyvoice/bin/python /path/to/tools/serve_cosyvoice.py"

with codec.type: cosyvoice2 (cosyvoice3), and the folder of the model as codec.pretrained, which
follows as the argument.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import soundfile
import torch
from codec_server import READ, serve  # before what prints
from cosyvoice.cli.cosyvoice import AutoModel


class Codec:
    """The operations of the protocol."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.voice = AutoModel(model_dir=folder)
        self.version = 3 if (self.folder / "speech_tokenizer_v3.onnx").is_file() else 2

    def hello(self, given):
        tokenizer = self.folder / f"speech_tokenizer_v{self.version}.onnx"
        facts = {
            "kind": f"cosyvoice{self.version}",
            "fingerprint": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
            "codebook_size": 6561,
            "token_rate": 25.0,
            "sample_rate": READ,
            "output_rate": self.voice.sample_rate,
            "speaker_size": 192,
        }
        return facts, {}

    def encode(self, given):
        rows = {name: self._heard(wave)["tokens"] for name, wave in given.items()}
        return {}, {name.replace("wave", "tokens"): row for name, row in rows.items()}

    def prompt(self, given):
        heard = self._heard(given["wave_0"], whole=True)
        return {}, {f"{name}_0": part for name, part in heard.items()}

    def decode(self, given):
        made = {}
        for name in [name for name in given if name.startswith("tokens_")]:
            place = name.removeprefix("tokens_")
            prompt, mel = given[f"prompt_{place}"], given[f"mel_{place}"]
            both = min(len(prompt), len(mel) // 2)  # two frames are one token
            parts = self.voice.model.tts(
                source_speech_token=given[name][None].int(),
                flow_prompt_speech_token=prompt[None, :both].int(),
                prompt_speech_feat=mel[None, : 2 * both],
                flow_embedding=given[f"vector_{place}"][None],
                stream=False,
            )
            wave = torch.cat([part["tts_speech"].flatten() for part in parts])
            made[f"wave_{place}"] = wave.clamp(-1, 1)
        return {}, made

    def _heard(self, wave, whole=False):
        frontend = self.voice.frontend
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, wave.numpy(), READ, "FLOAT")
            found = {"tokens": frontend._extract_speech_token(file.name)[0].flatten().long()}
            if whole:
                found["vector"] = frontend._extract_spk_embedding(file.name).flatten()
                found["mel"] = frontend._extract_speech_feat(file.name)[0][0]
        return found


if __name__ == "__main__":
    serve(Codec(sys.argv[1]))
