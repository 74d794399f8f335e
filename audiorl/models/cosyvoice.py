"""CosyVoice 2's and 3's language model as a Hugging Face checkpoint, and back.

Their `llm.pt` holds a Qwen2 that reads text, and apart from it what speech needs, C codes:

    llm.model.model.*, llm.model.lm_head.weight   Qwen2; its head is tied to its text, and unused
    speech_embedding.weight                       [C + 3, H]; version 3: [C + 200, H]
    llm_decoder.weight, llm_decoder.bias          as many rows; version 3 has no bias
    llm_embedding.weight                          [2, H]: sos and task; version 3 has them above C

In a checkpoint all are rows of one vocabulary, behind the tokenizer's text, under the names that
CosyVoice's own examples/grpo give them: `<|s_0|>` …, then <|eos1|> <|eos2|> <|eos3|> <|sos|>
<|task_id|>; in version 3 the 200 controls follow as `<|s_C|>` …, and <|sos|> <|eos|> <|task_id|>
copy the first three of them. That example drops the bias; here it stays (`BiasedQwen2`), so
that the logits of all that speech is made of are the same.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor
from transformers import AddedToken, AutoConfig, AutoTokenizer, PreTrainedModel, Qwen2ForCausalLM

from audiorl.errors import UserError, reason
from audiorl.models.language_model import BiasedQwen2, has_biased_head
from audiorl.models.layouts import V3_CONTROLS, speech_run
from audiorl.models.policy import load_policy
from audiorl.models.tokenizer import PretrainedTokenizer
from audiorl.runtime.files import atomic_write, sha256

QWEN2_ROWS = 151936  # of the text embeddings, in checkpoints that do not say
LIKE = 128  # the vocabulary is padded to a multiple of it, as GPUs like it
BASE = "llm.model."
V2_MARKS = ("<|eos1|>", "<|eos2|>", "<|eos3|>", "<|sos|>", "<|task_id|>")
V3_ALIASES = ("<|sos|>", "<|eos|>", "<|task_id|>")
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|sos|>' + message['content'] + '<|task_id|>' }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)

# What CosyVoice adds to Qwen2's tokenizer when it starts, in its order: the ids depend on that.
SOUNDS = (
    "<|im_start|> <|im_end|> <|endofprompt|> [breath] <strong> </strong> [noise] [laughter] "
    "[cough] [clucking] [accent] [quick_breath] <laughter> </laughter> [hissing] [sigh] "
    "[vocalized-noise] [lipsmack] [mn]"
).split()
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()
PINYIN = (
    "a ai an ang ao b c ch d e ei en eng f g h i ian in ing iu ià iàn iàng iào iá ián iáng iáo iè "
    "ié iòng ióng iù iú iā iān iāng iāo iē iě iōng iū iǎ iǎn iǎng iǎo iǒng iǔ j k l m n o ong ou "
    "p q r s sh t u uang ue un uo uà uài uàn uàng uá uái uán uáng uè ué uì uí uò uó uā uāi uān "
    "uāng uē uě uī uō uǎ uǎi uǎn uǎng uǐ uǒ vè w x y z zh à ài àn àng ào á ái án áng áo è èi èn "
    "èng èr é éi én éng ér ì ìn ìng í ín íng ò òng òu ó óng óu ù ùn ú ún ā āi ān āng āo ē ēi ēn "
    "ēng ě ěi ěn ěng ěr ī īn īng ō ōng ōu ū ūn ǎ ǎi ǎn ǎng ǎo ǐ ǐn ǐng ǒ ǒng ǒu ǔ ǔn ǘ ǚ ǜ"
).split()


def text_tokens(version: int) -> list[str]:
    """Return the tokens that CosyVoice adds to Qwen2's: sounds, and in version 3 phonemes."""
    if version == 2:
        return SOUNDS
    english = sorted([v + stress for v in VOWELS for stress in ("", *"012")] + CONSONANTS)
    return [*SOUNDS, "<|endofsystem|>", *(f"[{phone}]" for phone in (*english, *PINYIN))]


def to_hugging_face(llm: Path, text: Path, out: Path) -> None:
    """Write the checkpoint `out` of an `llm.pt` and the folder of its text model.

    text: Qwen2's config and tokenizer (CosyVoice-BlankEN). UserError if they do not fit together.
    """
    state = _read_state(llm)
    version = 2 if "llm_embedding.weight" in state else 3
    shape, tokenizer = _read_text_model(text)
    tokenizer.add_tokens([AddedToken(name, special=True) for name in text_tokens(version)])
    first = len(tokenizer)
    end = first + len(state["speech_embedding.weight"])
    tokenizer.add_tokens(_speech_names(version, end - first))
    tokenizer.chat_template = CHAT
    shape.update(
        {
            "vocab_size": -(-len(tokenizer) // LIKE) * LIKE,
            "tie_word_embeddings": False,
            "use_bias": version == 2,
            "text_rows": len(state[BASE + "model.embed_tokens.weight"]),
            "tokens_of": _codec_beside(llm, version),
            "eos_token_id": end - 3 if version == 2 else end - V3_CONTROLS + 1,
        }
    )
    try:
        tensors = _merged(state, version, first, shape.vocab_size)
        lm = (BiasedQwen2 if version == 2 else Qwen2ForCausalLM)(shape)
        lm.to(tensors["lm_head.weight"].dtype).load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{llm} is not of the Qwen2 that {text} describes ({reason(error)}); give its own."
        ) from error
    lm.save_pretrained(out)
    lm.config.architectures = ["Qwen2ForCausalLM"]  # which other programs know
    lm.config.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _codec_beside(llm: Path, version: int) -> dict[str, str]:
    """The codec that an llm.pt goes with, by the speech tokenizer in its folder, if it is there."""
    tokenizer = llm.with_name(f"speech_tokenizer_v{version}.onnx")
    fingerprint = {"fingerprint": sha256(tokenizer)} if tokenizer.is_file() else {}
    return {"kind": f"cosyvoice{version}", **fingerprint}


def _merged(state: dict[str, Tensor], version: int, first: int, rows: int) -> dict[str, Tensor]:
    # RuntimeError if the text does not fit below `first`, where speech begins.
    text, speech = state[BASE + "model.embed_tokens.weight"], state["speech_embedding.weight"]
    end = first + len(speech)
    table, head = (text.new_zeros(rows, text.size(1)) for _ in range(2))
    table[:first] = text[:first]
    table[first:end], head[first:end] = speech, state["llm_decoder.weight"]
    layers = {n.removeprefix(BASE): t for n, t in state.items() if n.startswith(BASE + "model.")}
    tensors = {**layers, "model.embed_tokens.weight": table, "lm_head.weight": head}
    if version == 2:
        table[end : end + 2] = state["llm_embedding.weight"]
        tensors["lm_head.bias"] = head.new_full((rows,), -torch.inf)
        tensors["lm_head.bias"][first:end] = state["llm_decoder.bias"]
    else:
        for whole in (table, head):
            whole[end : end + 3] = whole[end - V3_CONTROLS :][:3]
    return tensors


def from_hugging_face(checkpoint: Path, out: Path) -> None:
    """Write the `llm.pt` of a checkpoint, or of the model/ that audiorl made of one.

    Rows of the text table that no text has become zero: nothing ever reads them.
    """
    lm, tokenizer = _read_checkpoint(checkpoint)
    names = tokenizer.vocabulary()
    version = 2 if V2_MARKS[0] in names else 3
    first, count = speech_run(names, str(checkpoint))
    end = first + count + (3 if version == 2 else 0)
    tensors = lm.state_dict()
    table, head = tensors.pop("model.embed_tokens.weight"), tensors.pop("lm_head.weight")
    bias = tensors.pop("lm_head.bias", head.new_zeros(len(head)))
    text = table.new_zeros(getattr(lm.config, "text_rows", QWEN2_ROWS), table.size(1))
    text[:first] = table[:first]
    state = {BASE + name: tensor for name, tensor in tensors.items()}
    state[BASE + "model.embed_tokens.weight"] = state[BASE + "lm_head.weight"] = text
    state["speech_embedding.weight"] = table[first:end].clone()
    state["llm_decoder.weight"] = head[first:end].clone()
    if version == 2:
        state["llm_decoder.bias"] = bias[first:end].clone()
        state["llm_embedding.weight"] = table[[names[mark] for mark in V2_MARKS[3:]]]
    with atomic_write(out, "wb") as stream:
        torch.save(state, stream)


def _speech_names(version: int, rows: int) -> list[str]:
    count = rows - 3 if version == 2 else rows
    return [*(f"<|s_{n}|>" for n in range(count)), *(V2_MARKS if version == 2 else V3_ALIASES)]


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)}); give CosyVoice's llm.pt."
        ) from error
    # Beside the tensors, its trainer writes how far it has come.
    state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for name in (
        BASE + "model.embed_tokens.weight",
        "speech_embedding.weight",
        "llm_decoder.weight",
    ):
        if name not in state:
            raise UserError(f"{path} has no {name}; give the llm.pt of CosyVoice 2 or 3.")
    return state


def _read_text_model(folder: Path) -> tuple:
    try:
        return AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no config and tokenizer of a Qwen2 ({reason(error)}); give CosyVoice's "
            "CosyVoice-BlankEN."
        ) from error


def _read_checkpoint(folder: Path) -> tuple[PreTrainedModel, PretrainedTokenizer]:
    if (folder / "config.yaml").exists():
        model = load_policy(folder)
        return model.llm, model.tokenizer
    shape, _ = _read_text_model(folder)
    kind = BiasedQwen2 if has_biased_head(shape) else Qwen2ForCausalLM
    return kind.from_pretrained(folder, dtype="auto"), PretrainedTokenizer(folder)
