"""Stage 4: the RL set, with the difficulty and provenance of every item."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from audiorl.config.schema import Config
from audiorl.data.text import normalizer
from audiorl.data.utterance import Utterance, read_utterances, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.files import atomic_path, write_json
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import build_rewards
from audiorl.rollout.probe import Difficulty, probe


def build_rl_data(model: AudioLLM, policy: str, config: Config, dump: Path, out: Path) -> None:
    """Writes the RL set `out` from dump/<data.rl>, as seen by `model` (named `policy`).

    Left out, and counted: utterances that a dev or test set has, by id or by text, those that no
    reward can score, and with `rl_data.drop_flat` those whose sampled hypotheses all earn the same.
    Beside `out`: its settings (.meta.json, written last) and a picture (.png).
    """
    source = config.data.rl or config.data.train
    pool = read_utterances(dump / source)
    fresh = _without_held_out(pool, config, dump)
    difficulties = probe(model, fresh, build_rewards(config))
    scored = [u for u in fresh if not math.isnan(difficulties[u.id].reward_mean)]
    kept = [u for u in scored if not (config.rl_data.drop_flat and difficulties[u.id].flat)]
    print(
        f"kept {len(kept)} of {len(pool)} of {source} ({len(fresh) - len(scored)} without a reward "
        f"and {len(scored) - len(kept)} with equal rewards dropped)"
    )
    if not kept:
        raise UserError(f"{dump / source}: no utterance is left for RL; read the counts above.")
    provenance = {"set": source, "policy": policy, "seed": config.seed}
    extras = {
        u.id: {"subset": source, "difficulty": asdict(difficulties[u.id]), "provenance": provenance}
        for u in kept
    }
    write_utterances_jsonl(out, kept, extras)
    _print_table([difficulties[u.id] for u in scored])
    _draw(scored, difficulties, out.with_suffix(".png"))
    write_json(out.with_suffix(".meta.json"), settings(config, policy, dump))


def is_built(config: Config, policy: str, dump: Path, out: Path, weights: Path) -> bool:
    """Whether `out` was built with these settings, after its inputs."""
    meta = out.with_suffix(".meta.json")
    if not (meta.exists() and out.exists()):
        return False
    inputs = [weights, dump / (config.data.rl or config.data.train) / "text"]
    newest = max(path.stat().st_mtime for path in inputs if path.exists())
    return meta.stat().st_mtime >= newest and json.loads(meta.read_text()) == settings(
        config, policy, dump
    )


def settings(config: Config, policy: str, dump: Path) -> dict[str, object]:
    """What the content of an RL set follows from, besides the audio and the weights."""
    rl = config.rl
    keys = ("num_generations", "max_completion_length", "temperature", "top_k", "top_p")
    sampling = {key: getattr(rl, key) for key in keys}
    rewards = [asdict(reward) for reward in rl.rewards]
    return {
        "policy": policy,
        "dump": str(dump),
        "data": asdict(config.data),
        "rl_data": asdict(config.rl_data),
        "score": asdict(config.score),
        "seed": config.seed,
        "rewards": rewards,
        **sampling,
    }


def _without_held_out(pool: list[Utterance], config: Config, dump: Path) -> list[Utterance]:
    clean = normalizer(config.score.normalizer)
    names = {config.data.dev, config.data.rl_dev, *config.data.test} - {""}
    held_out = [u for name in sorted(names) for u in read_utterances(dump / name)]
    ids = {u.id for u in held_out}
    texts = {clean(u.text) for u in held_out} - {""}
    why = Counter(
        "id" if u.id in ids else "text" if clean(u.text) in texts else "kept" for u in pool
    )
    print(
        f"kept {why['kept']} of {len(pool)} utterances ({why['id']} are in dev or test by id, "
        f"{why['text']} by text)"
    )
    return [u for u in pool if u.id not in ids and clean(u.text) not in texts]


def _print_table(difficulties: list[Difficulty]) -> None:
    """Share of the utterances by mean reward, and how many of them have groups without variance."""
    print("mean reward   utterances   equal rewards")
    edges = [-1.0, 0.0, 0.25, 0.5, 0.75, 0.9, 1.01]
    for low, high in pairwise(edges):
        inside = [d for d in difficulties if low <= d.reward_mean < high]
        flat = sum(d.flat for d in inside)
        print(f"{low:5.2f} .. {min(high, 1):4.2f} {len(inside):12d} {flat:15d}")


def _draw(utterances: list[Utterance], difficulties: dict[str, Difficulty], path: Path) -> None:
    """Mean reward of the utterances: how many have which, and how it falls with the length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    means = [difficulties[u.id].reward_mean for u in utterances]
    figure, (counts, lengths) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    counts.hist(means, bins=30)
    counts.set(xlabel="mean reward of the sampled hypotheses", ylabel="utterances")
    spread = [difficulties[u.id].reward_std for u in utterances]
    dots = lengths.scatter([u.duration for u in utterances], means, c=spread, s=8)
    lengths.set(xlabel="seconds", ylabel="mean reward")
    figure.colorbar(dots, label="standard deviation in the group")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
