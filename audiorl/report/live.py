"""A run in the terminal: its numbers, how they went, and what is wrong with them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from audiorl.config import load_config
from audiorl.errors import UserError
from audiorl.models import WEIGHTS
from audiorl.report.charts import Metrics, read_metrics
from audiorl.report.tables import Table, as_text

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 40  # characters of a sparkline
RECENT = 20  # steps that warnings look at
PATIENCE = 10  # steps' time without a line after which a run may hang
LIVE_ROWS = (  # name, key of metrics.jsonl, format
    ("reward", "reward", "{:.4g}"),
    ("dev error rate", "eval/wer", "{:.1%}"),
    ("judge's score", "eval/judge", "{:.4g}"),
    ("length (tokens)", "completions/mean_length", "{:.4g}"),
    ("cut short", "completions/clipped_ratio", "{:.1%}"),
    ("equal groups", "frac_reward_zero_std", "{:.1%}"),
    ("gap to rollout", "sampling/sampling_logp_difference/mean", "{:.4g}"),
    ("KL to the start", "kl", "{:.4g}"),
    ("entropy (nats)", "entropy", "{:.4g}"),
    ("loss", "loss", "{:.4g}"),
    ("gradient norm", "grad_norm", "{:.4g}"),
    ("step", "timing_s/step", "{:.2f} s"),
)


def live_view(exp: Path, now: float) -> str:
    """Return the present state of a run as text; `now`: seconds since 1970.

    Raises UserError if it has logged nothing yet.
    """
    metrics = read_metrics(exp)
    if not metrics:
        raise UserError(f"{exp} has no metrics.jsonl with numbers; name a run that trains.")
    told = warnings(metrics)
    idle = now - (exp / "metrics.jsonl").stat().st_mtime
    pace = _recent(metrics, "timing_s/step")
    if not is_done(exp) and idle > max(60, PATIENCE * pace):
        told.append(f"no line for {idle / 60:.0f} minutes: see train.log, and whether it runs.")
    lines = [_headline(exp, metrics), "", as_text(_numbers(metrics))]
    if phases := _phases(metrics):
        lines += ["", f"time: {phases}"]
    return "\n".join([*lines, *(f"\n! {line}" for line in told)])


def is_done(exp: Path) -> bool:
    """Return whether a run has ended: its model is written last."""
    return (exp / "model" / WEIGHTS).exists()


def _headline(exp: Path, metrics: Metrics) -> str:
    step = int(max(steps[-1] for steps, _ in metrics.values()))
    config, script = exp / "config.yaml", exp / "run.sh"
    total = None
    if config.is_file() and script.is_file():
        command = re.search(r"-m audiorl\.bin\.train_(\w+)", script.read_text(encoding="utf-8"))
        kind, keys = command[1] if command else "", load_config(config)
        total = {"rl": keys.rl.max_steps, "sft": keys.sft.schedule.max_steps}.get(kind)
    of = f" of {total}" if total else ""
    if is_done(exp):
        return f"{exp}: done, step {step}{of}"
    left, pace = (total or 0) - step, _recent(metrics, "timing_s/step")
    rest = f", about {left * pace / 60:.0f} min left" if left > 0 and pace else ""
    return f"{exp}: step {step}{of}{rest}"


def _numbers(metrics: Metrics) -> Table:
    rows = []
    for name, key, shown in LIVE_ROWS:
        if key in metrics:
            values = metrics[key][1]
            ends = [shown.format(value) for value in (values[0], values[-1])]
            rows.append([name, *ends, sparkline(values)])
    return Table("", ["", "first", "last", "all"], rows)


def sparkline(values: np.ndarray) -> str:
    """Return bars of at most SPARKS characters, each the mean of its share of the values [N]."""
    means = np.array([part.mean() for part in np.array_split(values, min(SPARKS, len(values)))])
    span = np.ptp(means)
    heights = (means - means.min()) / span if span > 0 else np.zeros(len(means))
    return "".join(BARS[round(height * (len(BARS) - 1))] for height in heights).ljust(SPARKS)


def _phases(metrics: Metrics) -> str:
    """Shares of a step's time by phase."""
    step = _recent(metrics, "timing_s/step")
    names = [key.removeprefix("timing_s/") for key in metrics if key.startswith("timing_s/")]
    spent = {n: _recent(metrics, f"timing_s/{n}") for n in names if n not in ("step", "eval")}
    shares = {name: seconds / step for name, seconds in spent.items() if step}
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)


def _recent(metrics: Metrics, key: str) -> float:
    """The mean of the latest values; 0 for what was never logged."""
    return float(metrics[key][1][-RECENT:].mean()) if key in metrics else 0.0


def warnings(metrics: Metrics) -> list[str]:
    """Return what is wrong with a run, each in a sentence with its remedy."""
    return [line for check in (_flat, _shares, _worse, _gap, _hacked) for line in check(metrics)]


def _flat(metrics: Metrics) -> Iterator[str]:
    share = _recent(metrics, "frac_reward_zero_std")
    if share <= 0.5:
        return
    reward = metrics["reward"][1]
    noise = reward[-RECENT:].std() / np.sqrt(min(RECENT, len(reward)))
    rises = len(reward) > RECENT and reward[-RECENT:].mean() > reward[:RECENT].mean() + 2 * noise
    yield (
        f"{'the reward rises slowly' if rises else 'reward is flat'} because {share:.0%} of the "
        "groups are equal: their hypotheses are all right, all wrong or all alike; take harder or "
        "easier RL data (stage 4), rl.prompt_order=reweight, or more rl.num_generations."
    )


TOO_MANY: tuple[tuple[str, float, str], ...] = (  # key, share from which it is said, sentence
    (
        "completions/clipped_ratio",
        0.05,
        "{:.0%} of the hypotheses are cut at rl.max_completion_length, and half a sentence is "
        "rewarded; raise it, or look for loops in completions.jsonl.",
    ),
    (
        "completions/empty_ratio",
        0.2,
        "{:.0%} of the hypotheses are empty: leaving out pays more than guessing; add a reward "
        "that values keywords or length.",
    ),
    (
        "frac_unscorable",
        0.01,
        "{:.1%} of the samples are unscorable and teach nothing; train.log names the reward that "
        "fails.",
    ),
)


def _shares(metrics: Metrics) -> Iterator[str]:
    for key, least, sentence in TOO_MANY:
        if (share := _recent(metrics, key)) >= least:
            yield sentence.format(share)


def _worse(metrics: Metrics) -> Iterator[str]:
    if "eval/wer" not in metrics or "reward" not in metrics:
        return
    first, *_, last = metrics["eval/wer"][1].repeat(2)
    if last > 1.05 * first:
        yield (
            f"the dev error rate went from {first:.1%} to {last:.1%}: lower rl.learning_rate, or "
            "hold the policy to its start with rl.beta=0.04."
        )


def _gap(metrics: Metrics) -> Iterator[str]:
    gap = _recent(metrics, "sampling/sampling_logp_difference/mean")
    if gap > 0.02:
        yield (
            f"rollout and update differ by {gap:.3f} nats a token: what is sampled is not what is "
            "scored; see docs/engines.md, or take rl.engine=native."
        )


def _hacked(metrics: Metrics) -> Iterator[str]:
    if "hacking/flag" in metrics and metrics["hacking/flag"][1][-1]:
        yield "the reward model's score rises while the judge's falls: see rl.early_stop."


def follow(exp: Path, seconds: float, show: Callable[[str], None]) -> None:
    """Show the view of a run every so many seconds until it is done; once if `seconds` is 0."""
    while True:
        done = is_done(exp) or not seconds
        show(live_view(exp, time.time()))
        if done:
            return
        time.sleep(seconds)
