"""The task of synthesis: a speech LM writes the tokens of speech for texts."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiorl.config.decoding import rewarding
from audiorl.config.schema import Config
from audiorl.data.audio import resample
from audiorl.data.speech_tokens import TOKENS, CodecInfo, check_codec, read_tokens
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Engine, make_engine
from audiorl.errors import UserError
from audiorl.infer.hearing import WaveJudge, load_judge, transcribe_waves, weights_file
from audiorl.infer.instruments import load_voice_instrument
from audiorl.infer.speak import SAMPLING, speak
from audiorl.infer.synthesise import Synthesiser
from audiorl.infer.voices import prompt_voices, recordings_for, speaker_voices, voices_of
from audiorl.models import WEIGHTS
from audiorl.models.codec import Codec, codec_info, load_codec
from audiorl.models.policy import load_policy
from audiorl.models.speech_lm import SpeechLM
from audiorl.models.token_recogniser import TEXT, TokenRecogniser
from audiorl.models.voice import Voices
from audiorl.rewards import Models, Sample, wants_waves
from audiorl.rl.collect import Rewarder
from audiorl.rl.diffro import DiffROLoss
from audiorl.rl.diffro_learner import DiffRO, OnRollouts
from audiorl.rl.groups import Sampler
from audiorl.rl.grpo import GRPO
from audiorl.rl.prompts import Prompts
from audiorl.rl.speech import SpeechReader, Texts, TranscribeWaves, Vocoder, listened
from audiorl.rl.watch import HackingWatch, Look
from audiorl.rl_data.speech import build_speech_rl_set
from audiorl.runs.optimizer import Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.runtime.device import pick_device
from audiorl.runtime.files import sha256
from audiorl.tasks.speech_warm_start import SpeechWarmStart, make_warm_start, speech_inputs
from audiorl.tasks.task import Folders, Task
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import normal_units

log = logging.getLogger(__name__)


class Synthesis(Task):
    """Synthesis, as the stages see it: rewards come from a reward model, and its gradient."""

    texts_alone = True
    parts = ("llm",)
    sft_sections = ("model.", "tokenizer.", "llm.", "speech.", "sft.", *SAMPLING)
    rl_sections = ("diffro.", *SAMPLING)  # of evaluations, too

    def __init__(self, config: Config, folders: Folders) -> None:
        super().__init__(config, folders)
        self.watch = HackingWatch(config.rl.early_stop, config.rl.early_stop_window)
        self.fixed = config.diffro.actual_history(config.rl.algorithm) == "fixed"
        self.histories: dict[str, list[int]] = {}
        self.asked: list[Any] = []  # by rewards and evaluations

    def sft_inputs(self) -> dict[str, Any]:
        if self.folders.codec is None:
            raise UserError("a speech LM learns the tokens of a codec; name it with --codec.")
        return speech_inputs(self.config, self.folders)

    def warm_start(self, inputs: dict[str, Any]) -> SpeechWarmStart:
        return make_warm_start(self.config, self.folders, inputs)

    def build_rl_set(self, init: Path, out: Path) -> None:
        config, weights = self.config, init / "model" / WEIGHTS
        model = load_policy(init / "model", str(pick_device(config.device)))
        dump, codec = self.folders.dump, self.folders.codec
        with make_engine(config.rl.engine, model, config.rl) as engine:
            build_speech_rl_set(engine, str(init), weights, config, dump, out, codec)

    def decoder(self) -> Synthesiser:
        return Synthesiser(self.config, self.folders.dump, self.folders.codec)

    def rl_inputs(self) -> dict[str, Path]:
        if not (self.folders.codec and self.folders.reward_model):
            raise UserError(
                "a speech LM learns from a reward model; name --codec and --reward_model."
            )
        found = {
            "codec": self.folders.codec / "model" / WEIGHTS,
            "reward_model": self.folders.reward_model / "model" / WEIGHTS,
        }
        if self.folders.judge:
            found["judge"] = weights_file(self.folders.judge)
        if self.folders.ear:
            found["ear"] = weights_file(self.folders.ear)
        if self._needs_histories:
            found["histories"] = self.folders.histories / TOKENS
        for name, path in found.items():
            if not path.exists():
                raise UserError(f"{path}: there is no {name.replace('_', ' ')}; run stage 3 and 4.")
        return found

    def prepare(
        self, model: SpeechLM, train: Sequence[Utterance], dev: Sequence[Utterance]
    ) -> Models:
        device, known = str(pick_device(self.config.device)), model.facts.codec
        codec = self._load_codec(known, device)
        self.recogniser = self._load_recogniser(known, device)
        self.asked = [codec, self.recogniser]
        spoken = [*train, *dev]
        voices = Voices({}, prompt_voices(codec, spoken))
        model.meet(voices)
        model.refuse_texts(train, self.config.rl.max_completion_length)
        model.refuse_texts(dev, self.config.decode.max_completion_length)
        self.recogniser.refuse_unknown([*train, *dev])
        if self._needs_histories:
            self.histories, info = read_tokens(self.folders.histories)
            fix = "run stage 4 again with this speech LM"
            check_codec(info, known, str(self.folders.histories), "the speech LM", fix)
        ear = self._load_ear(codec, device)
        speaks = wants_waves(self.config) or ear is not None
        self.judge = self._load_judge(device)
        self.vocoder = None
        if speaks or self.judge:
            others = {u.speaker for u in spoken if u.prompt is None}
            recordings = recordings_for(spoken, self.folders.dump / self.config.data.train)
            voices.speakers |= speaker_voices(codec, recordings, others)
            self.vocoder = Vocoder(codec, voices)
        self.reader = SpeechReader(model, self.recogniser, self.vocoder if speaks else None, ear)
        models = Models(self.recogniser, token_rate=known["token_rate"])
        return self._with_voices(models, spoken) if speaks else models

    def reward_modules(self) -> list[nn.Module]:
        return [m for m in self.asked if isinstance(m, nn.Module)]

    def learner(
        self,
        sampler: Sampler,
        reference: SpeechLM | None,
        rewards: Rewarder,
        optimizer: Optimizers,
        prompts: Prompts,
        folder: Path,
    ) -> GRPO | DiffRO:
        model, algorithm = sampler.engine.policy, self.config.rl.algorithm
        texts = Texts(model)
        if algorithm == "diffro" and self.fixed:
            learner = DiffRO(
                model, self.recogniser, reference, optimizer, texts, self.histories, self.config
            )
            learner.refuse_unfit(prompts.utterances)
            return learner
        auxiliary = None
        if algorithm in ("diffro", "both"):
            # GRPO has the KL already, unless its loss is left out.
            held = reference if algorithm == "diffro" else None
            loss = DiffROLoss(model, self.recogniser, self.config, held)
            tasks = [task for task in loss.weights if task != TEXT]
            self.recogniser.refuse_unknown(prompts.utterances, tasks)
            weight = self.config.diffro.weight if algorithm == "both" else 1.0
            auxiliary = OnRollouts(loss, weight)
        return GRPO(
            sampler, reference, rewards, optimizer, texts, self.reader, prompts.more, auxiliary
        )

    @torch.no_grad()
    def evaluate(
        self, engine: Engine, dev: Sequence[Utterance], step: int, reporter: Reporter
    ) -> float:
        """Return the error rate on sampled speech, by the reward model or rewarding recogniser.

        The judge only watches, so that it stays independent of the choice of checkpoints.
        """
        started, decode = time.perf_counter(), self.config.decode
        spoken = speak(engine, dev, decode, self.config.seed, "evaluation")
        samples = [Sample(u, "", True, tuple(spoken[u.id].tokens)) for u in dev]
        made = self.vocoder(samples) if self.judge or self.reader.ear else []
        if self.reader.ear:
            texts = [sample.text for sample in listened(made, self.reader.ear)]
        else:
            texts = self.recogniser.transcribe([sample.tokens for sample in samples])
        error = sum(count_heard(self.config, dev, texts), Counts()).rate
        metrics = {
            "eval/wer": error,
            "eval/unfinished_ratio": sum(not s.finished for s in spoken.values()) / len(spoken),
            "eval/mean_length": sum(len(s.tokens) for s in spoken.values()) / len(spoken),
        }
        if self.judge:
            heard = listened(made, self._ear(self.judge, self.vocoder.codec))
            judged = [sample.text for sample in heard]
            counts = count_heard(self.config, dev, judged)
            metrics |= {"eval/judge_wer": sum(counts, Counts()).rate}
            metrics |= self.watch.look(step, 1 - error, counts)
            first = next((i for i, s in enumerate(made) if s.wave is not None), None)
            if first is not None:
                shown = f"text: {dev[first].text}\n\nthe judge hears: {judged[first]}"
                rate = self.vocoder.codec.output_rate
                reporter.audio(step, "eval/sample", made[first].wave.numpy(), rate, shown)
        metrics["timing_s/eval"] = time.perf_counter() - started
        reporter.log(step, metrics)
        judged_too = f", by the judge {100 * metrics['eval/judge_wer']:.2f} %" if self.judge else ""
        log.info("step %d: dev error rate %.2f %%%s", step, 100 * error, judged_too)
        return error

    @property
    def state(self) -> list[Look]:
        return self.watch.history

    def restore(self, state: list[Look]) -> None:
        self.watch.history = [tuple(seen) for seen in state]

    @property
    def should_stop(self) -> bool:
        return self.watch.should_stop

    @property
    def _needs_histories(self) -> bool:
        if self.config.rl.algorithm != "diffro" or not self.fixed:
            return False
        if self.folders.histories is None:
            raise UserError(
                "DiffRO on fixed histories needs the tokens of the RL set; name their folder with "
                "--histories, or set diffro.history: rollout."
            )
        return True

    def _load_judge(self, device: str) -> WaveJudge | None:
        if self.folders.judge is None or self.config.rl.early_stop == "never":
            return None
        return self._asked(load_judge(self.folders.judge, device, self.config))

    def _load_ear(self, codec: Codec, device: str) -> TranscribeWaves | None:
        if self.folders.ear is None:
            return None
        files = self.rl_inputs()
        if "judge" in files and sha256(files["ear"]) == sha256(files["judge"]):
            raise UserError(
                f"{self.folders.ear} would be rewarded for and judge as well, which hides "
                "reward hacking; name another recogniser with --ear."
            )
        ear = load_judge(self.folders.ear, device, self.config)
        return self._ear(self._asked(ear), codec)

    def _asked(self, judge: WaveJudge) -> WaveJudge:
        self.asked.append(getattr(judge, "model", judge))
        return judge

    def _ear(self, judge: WaveJudge, codec: Codec) -> TranscribeWaves:
        seconds = self.config.decode.batch_seconds
        return lambda waves: transcribe_waves(judge, waves, codec.output_rate, seconds)

    def _load_codec(self, known: CodecInfo, device: str) -> Codec:
        codec, name = load_codec(self.folders.codec / "model", device), str(self.folders.codec)
        fix = "name the codec that the speech LM was trained on"
        check_codec(codec_info(codec), known, name, "the speech LM", fix)
        compared = any(r.name == "speaker_similarity" for r in self.config.rl.rewards)
        if compared and not rewarding(self.config) and codec.speaker_size == 0:
            raise UserError(
                f"rl.rewards: speaker_similarity compares speaker vectors, and {name} has none: "
                f"the tokens of {codec.settings.codec.type} carry the voice; take the reward out."
            )
        return codec

    def _load_recogniser(self, known: CodecInfo, device: str) -> TokenRecogniser:
        folder = self.folders.reward_model
        recogniser = TokenRecogniser.load(folder / "model", device)
        fix = f"name the reward model of {self.folders.codec}, or train it again (stage 3)"
        check_codec(recogniser.facts.codec, known, str(folder), str(self.folders.codec), fix)
        return recogniser

    def _with_voices(self, models: Models, spoken: Sequence[Utterance]) -> Models:
        """The models with who knows voices: the codec, or an instrument that rewards."""
        codec, voices = self.vocoder.codec, self.vocoder.voices
        judge = codec
        for text in rewarding(self.config):
            judge = load_voice_instrument(text, str(pick_device(self.config.device)))
            recordings = recordings_for(spoken, self.folders.dump / self.config.data.train)
            voices = voices_of(judge, spoken, recordings)

        def speaker(waves: Sequence[Tensor]) -> Tensor:
            rates = codec.output_rate, judge.sample_rate
            read = [torch.from_numpy(resample(wave.numpy(), *rates)) for wave in waves]
            return nn.functional.normalize(judge.speaker(read), dim=1)

        return replace(models, speaker=speaker, voices=voices)


def count_heard(
    config: Config, utterances: Sequence[Utterance], heard: Sequence[str]
) -> list[Counts]:
    """Errors of what is heard of each utterance, against its text."""
    style = (config.score.normalizer, config.score.unit)
    return [
        count_errors(normal_units(u.text, *style), normal_units(text, *style))
        for u, text in zip(utterances, heard, strict=True)
    ]
