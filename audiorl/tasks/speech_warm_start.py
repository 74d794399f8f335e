"""The supervised training of a speech LM: cross entropy of the tokens of recordings."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.config.training import SFTConfig
from audiorl.data.loading import IsOwn
from audiorl.data.same_speaker import References
from audiorl.data.speech_tokens import TOKENS, CodecInfo, check_codec, read_tokens_of
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Engine
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.speak import speak
from audiorl.infer.voices import meet_prompts
from audiorl.models.layouts import SpeechFacts
from audiorl.models.policy import find_policy
from audiorl.models.speech_lm import SpeechLM
from audiorl.models.token_recogniser import refuse_unread
from audiorl.models.voice import Voice
from audiorl.runs.reporter import Reporter
from audiorl.runs.training import Loaded
from audiorl.runtime import ranks
from audiorl.runtime.batching import batch_stream, epoch_batches, some
from audiorl.runtime.device import pick_device
from audiorl.runtime.sharding import whole
from audiorl.tasks.task import Folders
from audiorl.text.normalise import spoken

log = logging.getLogger(__name__)

PROMPT_SECONDS = 3.0  # of a voice, as zero-shot systems are prompted
MOST_PROMPT_SECONDS = 6.0  # of a prompt in training
FASTEST = 60.0  # characters a second; the fastest talkers say half as many, phonemes spelt out more


@dataclass(frozen=True)
class Example:
    """An utterance with its text and speech as a model has them."""

    utterance: Utterance
    condition: Tensor  # [T] ids
    tokens: list[int]  # the codec's

    def __len__(self) -> int:
        return len(self.condition) + len(self.tokens) + 1


def speech_inputs(config: Config, folders: Folders) -> dict[str, Any]:
    """Return the sets of a warm start and the files with the tokens of its codec."""
    names = {"train": config.data.train, "dev": config.data.dev}
    sets = {part: read_utterances(folders.dump / name) for part, name in names.items()}
    tokens = {f"{p}_tokens": folders.codec / "tokens" / n / TOKENS for p, n in names.items()}
    return {**sets, **tokens}


def make_warm_start(config: Config, folders: Folders, inputs: dict[str, Any]) -> SpeechWarmStart:
    """Return a new speech LM with its training on the tokens of `inputs` (of `speech_inputs`)."""
    places = {part: inputs[f"{part}_tokens"].parent for part in ("train", "dev")}
    (train_tokens, info), (dev_tokens, other) = (
        read_tokens_of(inputs[part], folder) for part, folder in places.items()
    )
    check_codec(other, info, str(places["dev"]), str(places["train"]))
    train = sayable(inputs["train"], train_tokens, info["token_rate"])
    facts = speech_facts(config, train, train_tokens, info)
    family = find_policy(config.model.family or SpeechLM.family)
    model = family.create(config, (u.text for u in train), facts).to(pick_device(config.device))
    log.info(
        "%.2f M parameters, %d ids, %d of them speech at %g Hz",
        sum(p.numel() for p in model.parameters()) / 1e6,
        model.layout.size,
        info["codebook_size"],
        info["token_rate"],
    )
    later = later_texts(config, folders.dump)
    said = [*inputs["dev"], *(u for texts, _ in later.values() for u in texts)]
    meet_prompts(model, folders.codec, said, str(model.device))
    made = SpeechWarmStart(
        config,
        model,
        examples(model, train, train_tokens),
        some(examples(model, inputs["dev"], dev_tokens), config.sft.schedule.eval_utterances),
    )
    model.refuse_texts((e.utterance for e in made.dev), config.decode.max_completion_length)
    refuse_later_texts(model, later, folders.dump, rewarded_sets(config), inputs["train"])
    return made


class SpeechWarmStart:
    """Cross entropy of the tokens of recordings (`Supervised`)."""

    first_evaluation = 0

    def __init__(
        self, config: Config, model: SpeechLM, train: list[Example], dev: list[Example]
    ) -> None:
        self.config, self.model = config, model
        self.train, self.dev = train, dev
        self.engine = PolicyEngine(model)
        self.spoken = {e.utterance.id: e for e in train}
        most = MOST_PROMPT_SECONDS * model.facts.codec["token_rate"]
        self.prompts = References([e.utterance for e in train if len(e.tokens) <= most])

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Utterances and their examples; a prompt that is continued is another one in each step."""
        config = self.config
        stream = batch_stream(self.train, config.sft.batch_tokens, config.seed, first, len)
        for step, batch in enumerate(stream, start=first):
            utterances = [e.utterance for e in batch]
            if config.speech.speakers == "prompt":
                drawn = self.prompts.draw(utterances, config.seed, step)
                batch = [self._prompted(e, u.id) for e, u in zip(batch, drawn, strict=True)]
            yield utterances, batch

    def _prompted(self, example: Example, prompt: str) -> Example:
        """The example in the voice of another utterance; that of who says but one has no prompt."""
        own, other = example.utterance, self.spoken[prompt]
        voice = Voice(other.utterance.text, other.tokens) if prompt != own.id else Voice()
        return replace(example, condition=self.model.condition(own.text, voice))

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return example_loss(self.model, batch[1], self.config.sft), {}

    def evaluate(self, step: int, reporter: Reporter) -> float:
        return evaluate_speech(self.engine, self.dev, self.config, step, reporter)


def example_loss(model: SpeechLM, batch: Sequence[Example], sft: SFTConfig) -> Tensor:
    """Mean cross entropy of the tokens, stop tokens included."""
    return model.supervised_loss(
        [e.condition for e in batch],
        [e.tokens for e in batch],
        token_noise=sft.token_noise,
    )


def evaluate_speech(
    engine: Engine, dev: Sequence[Example], config: Config, step: int, reporter: Reporter
) -> float:
    """Judges the model on `dev` and logs it; returns the loss.

    eval/loss is the cross entropy of natural tokens, eval/perplexity its exponential; of tokens
    that are sampled as stage 6 does, eval/unfinished_ratio is the share without an end.
    """
    started = time.perf_counter()
    loss = dev_loss(engine.policy, dev, config.sft)
    utterances = [e.utterance for e in dev]
    spoken = speak(engine, utterances, config.decode, config.seed, "evaluation")
    metrics = {
        "eval/loss": loss,
        "eval/perplexity": math.exp(min(loss, 700)),
        "eval/unfinished_ratio": sum(not s.finished for s in spoken.values()) / len(spoken),
        "timing_s/eval": time.perf_counter() - started,
    }
    reporter.log(step, metrics)
    log.info("step %d: dev cross entropy %.3f", step, loss)
    return loss


@torch.no_grad()
def dev_loss(model: SpeechLM, dev: Sequence[Example], sft: SFTConfig) -> float:
    """Mean cross entropy over the tokens of all examples."""
    training = model.training
    model.eval()
    losses: dict[int, tuple[float, int]] = {}
    with whole(model):
        for n, batch in ranks.dealt(enumerate(epoch_batches(dev, sft.batch_tokens, 0, 0, len))):
            tokens = sum(len(e.tokens) + 1 for e in batch)
            losses[n] = tokens * example_loss(model, batch, sft).item(), tokens
    model.train(training)
    totals, counts = zip(*(part for _, part in sorted(ranks.merged(losses).items())), strict=True)
    return sum(totals) / sum(counts)


def sayable(
    train: Sequence[Utterance], tokens: dict[str, list[int]], token_rate: float
) -> list[Utterance]:
    """The utterances whose text fits into their recording; the others' is not what is said there.

    Prints how many are kept; UserError if none is.
    """
    kept = [u for u in train if len(u.text) * token_rate <= FASTEST * len(tokens[u.id])]
    why = f"the others have more than {FASTEST:g} characters to a second of speech"
    if not kept:
        raise UserError(
            f"no utterance has speech as long as its text: {why}; look at the transcripts, or at "
            f"the codec's {token_rate:g} tokens a second."
        )
    log.info("speech LM: kept %d of %d utterances; %s", len(kept), len(train), why)
    return kept


def rewarded_sets(config: Config) -> list[str]:
    """The RL set and what RL is evaluated on, by name."""
    return [config.data.rl or config.data.train, config.data.rl_dev or config.data.dev]


def later_texts(config: Config, dump: Path) -> dict[str, tuple[list[Utterance], int]]:
    """The texts that stages 4 to 6 speak, by set, and the tokens that each may have at most.

    Sets that are not there are left to them.
    """
    rewarded, found = rewarded_sets(config), {}
    for name in dict.fromkeys([*rewarded, *config.data.test]):
        if not (dump / name).exists():
            continue
        limit = config.decode.max_completion_length
        texts = read_utterances(dump / name, texts_alone=True)
        if name == rewarded[0]:
            limit = min(limit, config.rl.max_completion_length)
        elif name == rewarded[1]:
            texts = some(texts, config.rl.eval_utterances)
        found[name] = texts, limit
    return found


def refuse_later_texts(
    model: SpeechLM,
    later: dict[str, tuple[list[Utterance], int]],
    dump: Path,
    rewarded: Sequence[str],
    train: Sequence[Utterance],
) -> None:
    """Raises UserError for the first text that stage 4, 5 or 6 would refuse, after all training."""
    known = set("".join(spoken(u.text) for u in train))  # to the reward model
    for name, (texts, longest) in later.items():
        try:
            model.refuse_texts(texts, longest)
            if name in rewarded:
                refuse_unread(texts, known)
        except UserError as error:
            raise UserError(f"{dump / name}: {error}") from error


def speech_facts(
    config: Config, train: Sequence[Utterance], tokens: dict[str, list[int]], info: CodecInfo
) -> SpeechFacts:
    """Return the facts of its train set that the model has to know."""
    speakers = tuple(sorted({u.speaker for u in train}))
    prompts = {}
    if config.speech.speakers == "prompt":
        wanted = PROMPT_SECONDS * info["token_rate"]
        for u in sorted(train, key=lambda u: (-abs(len(tokens[u.id]) - wanted), u.id)):
            prompts[u.speaker] = Voice(u.text, tokens[u.id])  # the nearest comes last
    characters = sum(len(u.text) for u in train)
    rate = sum(len(tokens[u.id]) for u in train) / max(1, characters)
    return SpeechFacts(info, speakers, prompts, rate)


def examples(
    model: SpeechLM, utterances: Sequence[Utterance], tokens: dict[str, list[int]]
) -> list[Example]:
    """Return the examples; raise UserError for the first utterance that cannot be one."""
    model.refuse_texts(utterances)
    made = [Example(u, model.condition(u.text, model.voice(u)), tokens[u.id]) for u in utterances]
    longest = max(made, key=len)
    if len(longest) > (limit := model.llm.config.max_position_embeddings):
        raise UserError(
            f"{longest.utterance.id}: text and speech have {len(longest)} positions, and the LM "
            f"has {limit}; lower data.max_duration and format the set again."
        )
    return made
