"""Stage 4: the RL set, with subset, reason, difficulty and provenance of every item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from audiorl.config.pretrained import is_hub_name
from audiorl.config.schema import Config
from audiorl.data.tables import set_files
from audiorl.data.utterance import Utterance, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.infer.hearing import weights_file
from audiorl.rewards import reward_files
from audiorl.rewards.core.workers import open_rewards
from audiorl.rl.groups import Sampler
from audiorl.rl_data.difficulty import DifficultyMeasure
from audiorl.rl_data.pool import held_out_sets, read_hypotheses, read_pool, subsets_of
from audiorl.rl_data.probe import ProbeFile, probe
from audiorl.rl_data.report import draw, print_tables
from audiorl.rl_data.subsets import Candidate, Choice, choose
from audiorl.runtime.files import progress
from audiorl.runtime.stamps import Stamp


def build_rl_data(
    sampler: Sampler, policy: str, weights: Path, config: Config, dump: Path, out: Path
) -> None:
    """Writes the RL set `out`, the subsets of `rl_data`, as the sampler's policy sees it.

    policy: its name; weights: its file. Left out, and counted: utterances that a dev or test set
    has, by id or by text, those that no reward can score, and with `rl_data.drop_flat` those whose
    sampled hypotheses all earn the same. Beside `out`: what the policy said (.probe.jsonl, from
    which an interrupted call goes on), a picture (.png), and its settings (.meta.json, last).
    Raises UserError where fewer utterances qualify for a subset than its size, and where rewards
    fail or apply to none.
    """
    stamp = rl_set_stamp(config, policy, dump, out, weights)
    pool = read_pool(config, dump)
    others = read_hypotheses(config, pool)
    for name, part in pool.items():
        sampler.engine.policy.refuse_unfit(part, dump / name)
    utterances = sorted({u.id: u for part in pool.values() for u in part}.values(), key=_by_id)
    code = {str(weights): weights, **reward_files(config)}
    file = ProbeFile(out.with_suffix(".probe.jsonl"), probe_settings(config), code)
    with open_rewards(config) as rewards:
        probes = probe(sampler, utterances, rewards, file)
    measure = DifficultyMeasure(config)
    measured = {
        u.id: Candidate(u, measure(u, probes[u.id], [s[u.id] for s in others if u.id in s]))
        for u in progress(utterances, desc="measuring difficulty", unit="utt")
    }
    scored = {i: c for i, c in measured.items() if not math.isnan(c.difficulty.reward_mean)}
    lost = len(measured) - len(scored)
    failed = sum(any(probes[u.id].failed) for u in utterances)
    print(
        f"kept {len(scored)} of {len(measured)} probed ({lost} without a reward); "
        f"rewards failed on hypotheses of {failed}"
    )
    if not scored:
        raise UserError(
            f"{out}: none of rl.rewards scores any utterance of the pool; add one that applies to "
            "them, or name other sets in rl_data.subsets."
        )
    choices = _choose(config, pool, scored)
    _write(out, config, policy, pool, scored, choices)
    print_tables(list(scored.values()), choices)
    draw(list(scored.values()), choices, out.with_suffix(".png"))
    stamp.write()


def rl_set_stamp(config: Config, policy: str, dump: Path, out: Path, weights: Path) -> Stamp:
    """Return the stamp of the RL set `out`: all that its content follows from."""
    data, rl_data = config.data, config.rl_data
    sets = {subset.source_in(data) for subset in subsets_of(config)}
    sets |= {data.train, *held_out_sets(config)}
    texts = filter(None, (*rl_data.hypotheses, rl_data.background))
    paths = map(Path, texts)
    systems = (weights_file(p) if p.is_dir() or is_hub_name(p) else p for p in paths)
    files = [*systems, *reward_files(config).values()]
    inputs = {"weights": weights, **{str(file): file for file in files}}
    for name in sorted(sets):
        inputs |= set_files(dump / name)
    return Stamp(out.with_suffix(".meta.json"), settings(config, policy, dump), inputs, [out])


def settings(config: Config, policy: str, dump: Path) -> dict[str, object]:
    """Return the settings that an RL set follows from, besides audio and weights."""
    return {
        "policy": policy,
        "dump": str(dump),
        "data": asdict(config.data),
        "rl_data": asdict(config.rl_data),
        **probe_settings(config),
    }


def probe_settings(config: Config) -> dict[str, object]:
    """Return the settings that a probe follows from, besides audio and weights."""
    rl = config.rl
    keys = ("num_generations", "max_completion_length", "temperature", "top_k", "top_p")
    return {
        "seed": config.seed,
        "score": {key: getattr(config.score, key) for key in ("normalizer", "unit")},
        **({} if config.score.count_annotations else {"count_annotations": False}),
        "rewards": [asdict(reward) for reward in rl.rewards],
        "reward_combination": rl.reward_combination,
        **{key: getattr(rl, key) for key in keys},
        **({} if rl.engine == "native" else {"engine": rl.engine}),
    }


def _choose(
    config: Config, pool: dict[str, list[Utterance]], scored: dict[str, Candidate]
) -> list[Choice]:
    choices: list[Choice] = []
    for subset in subsets_of(config):
        candidates = [scored[u.id] for u in pool[subset.source_in(config.data)] if u.id in scored]
        taken: frozenset[str] = frozenset()
        if config.rl_data.disjoint:
            taken = frozenset().union(*(choice.reasons for choice in choices))
        choices.append(choose(subset, candidates, config.seed, config.rl_data.drop_flat, taken))
    return choices


def _write(
    out: Path,
    config: Config,
    policy: str,
    pool: dict[str, list[Utterance]],
    scored: dict[str, Candidate],
    choices: Sequence[Choice],
) -> None:
    source = {u.id: name for name, part in reversed(pool.items()) for u in part}
    chosen = [c for i, c in scored.items() if any(i in choice.reasons for choice in choices)]
    extras = {}
    for candidate in chosen:
        name = candidate.utterance.id
        extras[name] = {
            "subsets": {
                choice.subset.label: {
                    "weight": choice.subset.weight,
                    "reason": choice.reasons[name],
                }
                for choice in choices
                if name in choice.reasons
            },
            "difficulty": asdict(candidate.difficulty),
            "provenance": {"set": source[name], "policy": policy, "seed": config.seed},
        }
    write_utterances_jsonl(out, [candidate.utterance for candidate in chosen], extras)
    print(f"{out}: {len(chosen)} utterances")


def _by_id(utterance: Utterance) -> str:
    return utterance.id
