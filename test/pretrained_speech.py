"""Tiny speech LMs in the folders of Llasa and CosyVoice, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from pretrained_llm import save_pretrained_llm
from tiny import tiny_config
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from audiorl.data.speech_tokens import CodecInfo
from audiorl.models.layouts import SpeechFacts
from audiorl.models.speech_lm import SpeechLM, SpeechLMSettings
from audiorl.models.tokenizer import PretrainedTokenizer
from audiorl.models.voice import Voice

CODES = 27
LLASA_MARKS = [
    f"<|{name}_{end}|>"
    for name in ("TEXT_UNDERSTANDING", "SPEECH_GENERATION")
    for end in ("START", "END")
]
# As Llama's: it tells the date, today's if none is given.
LLAMA_CHAT = (
    "{%- if not date_string is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "<|endoftext|>{{ date_string + '. ' }}"
    "{%- for message in messages %}{{ message['role'] + ':' + message['content'] + '<|im_end|>' }}"
    "{%- endfor %}"
)
FACTS = {
    kind: SpeechFacts(CodecInfo(kind=kind, fingerprint="x", codebook_size=CODES, token_rate=rate))
    for kind, rate in (("xcodec2", 50.0), ("cosyvoice2", 25.0), ("cosyvoice3", 25.0))
}


def save_llasa(folder: Path) -> None:
    """A Llama with marks and `<|s_N|>`, and a chat template."""
    save_pretrained_llm(folder, "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([*LLASA_MARKS, *(f"<|s_{n}|>" for n in range(CODES))])
    tokenizer.chat_template = LLAMA_CHAT
    tokenizer.save_pretrained(folder)
    lm = AutoModelForCausalLM.from_pretrained(folder)
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    lm.save_pretrained(folder)


class CosyVoice(nn.Module):
    """CosyVoice's LM: the names of its tensors, and its logits, computed in the obvious way."""

    def __init__(self, version: int, shape: Qwen2Config) -> None:
        super().__init__()
        self.version = version
        self.llm = nn.Module()
        self.llm.model = Qwen2ForCausalLM(shape)
        rows = CODES + (3 if version == 2 else 200)
        self.speech_embedding = nn.Embedding(rows, shape.hidden_size)
        self.llm_decoder = nn.Linear(shape.hidden_size, rows, bias=version == 2)
        if version == 2:
            self.llm_embedding = nn.Embedding(2, shape.hidden_size)

    def forward(self, text: list[int], speech: list[int]) -> Tensor:
        """Logits of each position behind the text, [len(speech) + 1, rows]."""
        of_text = self.llm.model.model.embed_tokens(torch.tensor(text))
        of_speech = self.speech_embedding(torch.tensor(speech, dtype=torch.long))
        if self.version == 2:
            sos, task = self.llm_embedding.weight
        else:
            sos, _, task = self.speech_embedding.weight[CODES : CODES + 3]
        embeds = torch.cat([sos[None], of_text, task[None], of_speech])
        hidden = self.llm.model.model(inputs_embeds=embeds[None]).last_hidden_state[0]
        return self.llm_decoder(hidden[-len(speech) - 1 :])


def save_cosyvoice(folder: Path, version: int) -> CosyVoice:
    """folder/llm.pt, as its trainer writes it, and folder/CosyVoice-BlankEN; returns the model."""
    text = folder / "CosyVoice-BlankEN"
    save_pretrained_llm(text, "qwen2")
    shape = Qwen2Config.from_pretrained(text)
    shape.vocab_size = 700  # room for the tokens that CosyVoice adds, and rows that nobody uses
    shape.save_pretrained(text)
    torch.manual_seed(11)
    model = CosyVoice(version, shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
            if parameter.dim() == 1:
                parameter.normal_(1, 0.1)
    torch.save({**model.state_dict(), "epoch": 3, "step": 70}, folder / "llm.pt")
    return model


def pretrained_speech_lm(folder: Path, layout: str, **speech: str) -> SpeechLM:
    """The speech LM of a folder; `speech`: keys of that section."""
    prompted = speech.setdefault("speakers", "none") == "prompt"
    keys = {f"speech.{key}": value for key, value in {**speech, "layout": layout}.items()}
    keys |= {"task": "tts", "tokenizer.type": "pretrained", "llm.pretrained": str(folder)}
    tokenizer = PretrainedTokenizer(folder)
    version = "cosyvoice2" if "<|eos1|>" in tokenizer.vocabulary() else "cosyvoice3"
    facts = FACTS["xcodec2" if layout == "llasa" else version]
    if prompted:
        facts = SpeechFacts(facts.codec, ("s0",), {"s0": Voice("ba ki", [5, 6, 7])})
    settings = SpeechLMSettings.of(tiny_config(keys), "speech_lm")
    return SpeechLM(settings, tokenizer, facts).eval()
