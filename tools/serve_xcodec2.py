"""Serves X-codec2 as its authors published it (the package xcodec2) as a codec of audiorl.

Runs in an environment of its own, which `pip install xcodec2` fills; the package reads w2v-bert-2.0
from the hub, too. In audiorl's environment, before any stage:

  export AUDIORL_CODEC_SERVER="/opt/xcodec2/bin/python /path/to/tools/serve_xcodec2.py"

with codec.type: xcodec2_served, and the folder or hub name (HKUSTAudio/xcodec2) as
codec.pretrained, which follows as the argument.
"""

import hashlib
import sys

import torch
from codec_server import READ, serve  # before what prints
from xcodec2.modeling_xcodec2 import XCodec2Model


class Codec:
    """The operations of the protocol; the voice is in the tokens. One recording at a time."""

    def __init__(self, source):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = XCodec2Model.from_pretrained(source).eval().to(self.device)

    def hello(self, given):
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            values = tensor.cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + values.numpy().tobytes())
        facts = {
            "kind": "xcodec2_served",
            "fingerprint": digest.hexdigest(),
            "codebook_size": 65536,
            "token_rate": 50.0,
            "sample_rate": READ,
            "output_rate": READ,
            "speaker_size": 0,
        }
        return facts, {}

    @torch.inference_mode()
    def encode(self, given):
        rows = {n: self.model.encode_code(input_waveform=wave[None]) for n, wave in given.items()}
        return {}, {n.replace("wave", "tokens"): row.flatten().long() for n, row in rows.items()}

    prompt = encode

    @torch.inference_mode()
    def decode(self, given):
        made = {}
        for name in [name for name in given if name.startswith("tokens_")]:
            wave = self.model.decode_code(given[name][None, None].to(self.device))
            made[name.replace("tokens", "wave")] = wave.flatten().float().clamp(-1, 1)
        return {}, made


if __name__ == "__main__":
    serve(Codec(sys.argv[1]))
