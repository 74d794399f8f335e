"""The RL set of synthesis (stage 4): texts, and what the start model speaks of them.

DiffRO on fixed histories learns along these tokens, as its paper synthesised its texts beforehand
(arXiv 2507.05911, section 3.1); GRPO speaks the texts anew in each step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from audiorl.config.schema import Config
from audiorl.data.speech_tokens import CODEC, HISTORIES, TOKENS, write_tokens
from audiorl.data.tables import set_files
from audiorl.data.utterance import write_utterances_jsonl
from audiorl.engines.engine import Engine
from audiorl.errors import UserError
from audiorl.infer.speak import Spoken, speak, speech_sampling
from audiorl.infer.voices import meet_prompts
from audiorl.rl_data.pool import held_out_sets, read_pool
from audiorl.runtime.stamps import Stamp
from audiorl.text.detectors import token_loops


def build_speech_rl_set(
    engine: Engine,
    policy: str,
    weights: Path,
    config: Config,
    dump: Path,
    out: Path,
    codec: Path | None = None,
) -> None:
    """Writes the texts of data.rl that no held-out set has to `out`, and tokens beside it.

    Their durations are how long the start model spoke them. `codec`: its experiment, which reads
    prompts.

    Texts whose speech does not end, is empty or loops are left out, and counted. UserError for a
    text that cannot be spoken, and if none is left.
    """
    stamp = _stamp(config, policy, weights, dump, out)
    if stamp.is_current(out):
        print(f"{out} is complete: nothing to do")
        return
    model = engine.policy
    ((source, utterances),) = read_pool(config, dump).items()
    meet_prompts(model, codec, utterances, str(model.device))
    model.refuse_texts(utterances, config.decode.max_completion_length)
    spoken = speak(engine, utterances, config.decode, config.seed, "speaking the RL set")
    faults = {name: _fault(found) for name, found in spoken.items()}
    kept = [u for u in utterances if not faults[u.id]]
    why = ", ".join(f"{n} {fault}" for fault, n in Counter(faults.values()).items() if fault)
    print(f"{source}: kept {len(kept)} of {len(utterances)} texts{f' ({why})' if why else ''}")
    if not kept:
        raise UserError(f"{dump / source}: no text is left for RL; train the speech LM for longer.")
    provenance = {"provenance": {"set": source, "policy": policy, "seed": config.seed}}
    tokens = {u.id: spoken[u.id].tokens for u in kept}
    rate = model.facts.codec["token_rate"]
    # So that the reward `tempo` knows how long a text alone takes.
    kept = [u if u.audio else replace(u, duration=len(tokens[u.id]) / rate) for u in kept]
    write_tokens(out.parent / HISTORIES, tokens, model.facts.codec)
    write_utterances_jsonl(out, kept, dict.fromkeys(tokens, provenance))
    stamp.write()


def _fault(spoken: Spoken) -> str:
    """Why speech is no history to learn along; empty if it is one."""
    if not spoken.tokens:
        return "empty"
    if not spoken.finished:
        return "without an end"
    return "looping" if token_loops(spoken.tokens) else ""


def _stamp(config: Config, policy: str, weights: Path, dump: Path, out: Path) -> Stamp:
    """All that the content of the set follows from."""
    sets = [config.data.rl or config.data.train, *held_out_sets(config)]
    settings = {
        "policy": policy,
        "sampling": asdict(speech_sampling(config.decode)),
        "max_completion_length": config.decode.max_completion_length,
        "seed": config.seed,
        "sets": sets,
        "normalizer": config.score.normalizer,  # texts are held out as they are scored
        **({} if config.rl.engine == "native" else {"engine": config.rl.engine}),
    }
    inputs = {"weights": weights}
    for name in sets:
        inputs |= set_files(dump / name)
    histories = out.parent / HISTORIES
    outputs = [out, histories / TOKENS, histories / CODEC]
    return Stamp(out.with_suffix(".meta.json"), settings, inputs, outputs)
