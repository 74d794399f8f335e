"""Prompts of steps: everyone's turn, the shares of subsets, orders, and the state of all that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from tiny import tiny_config

from audiorl.data.rl_set import Item
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rl.prompts import Prompts


def items(count: int, subsets: dict[str, float] | None = None, prefix: str = "u") -> list[Item]:
    """`u000` is the easiest, and has the least spread."""
    return [
        Item(
            Utterance(f"{prefix}{i:03d}", "", "", "s", duration=1.0),
            subsets or {"all": 1.0},
            reward_mean=1 - i / count,
            reward_std=(i + 1) / count,
        )
        for i in range(count)
    ]


def prompts(rl_set: Sequence[Item], count: int = 4, seed: int = 1, **rl) -> Prompts:
    keys = {f"rl.{name}": value for name, value in rl.items()}
    return Prompts(rl_set, tiny_config({"seed": seed, "rl.num_prompts": count, **keys}))


def ids(utterances: Sequence[Utterance]) -> list[str]:
    return [u.id for u in utterances]


def steps(source: Prompts, count: int) -> list[list[str]]:
    return [ids(source.draw(step)) for step in range(count)]


@pytest.mark.parametrize(("size", "count"), [(7, 3), (16, 16), (16, 4), (5, 5), (9, 1), (100, 16)])
def test_epochs_of_one_subset(size: int, count: int) -> None:
    """Whole steps of shuffled epochs; what is left of an epoch, too few for a step, is skipped."""
    found = steps(prompts(items(size), count), 4 * size)
    names = [item.utterance.id for item in items(size)]
    for step, drawn in enumerate(found):
        epoch, place = divmod(step, size // count)
        order = np.random.default_rng([1, epoch]).permutation(size)
        assert drawn == [names[i] for i in order[place * count : (place + 1) * count]]


def test_seeds_differ() -> None:
    assert steps(prompts(items(50)), 5) == steps(prompts(items(50)), 5)
    assert steps(prompts(items(50)), 5) != steps(prompts(items(50), seed=2), 5)


ORDERS = ["shuffle", "curriculum", "reweight"]


@pytest.mark.parametrize("order", ORDERS)
def test_nobody_is_twice_in_a_step(order: str) -> None:
    shared = items(6, {"a": 1.0, "b": 2.0}, "ab")
    rl_set = [*items(5, {"a": 1.0}, "a"), *items(7, {"b": 2.0}, "b"), *shared]
    for drawn in steps(prompts(rl_set, 9, prompt_order=order), 200):
        assert len(set(drawn)) == len(drawn) == 9


@pytest.mark.parametrize("order", ORDERS)
def test_shares_are_the_weights(order: str) -> None:
    """Whatever the sizes: of 5 prompts a step, 1/8, 2/8 and 5/8, exact to one prompt."""
    rl_set = [
        *items(90, {"a": 1.0}, "a"),
        *items(30, {"b": 2.0}, "b"),
        *items(15, {"c": 5.0}, "c"),
    ]
    found = [name for drawn in steps(prompts(rl_set, 5, prompt_order=order), 400) for name in drawn]
    for end in (5, 25, 400, 2000):
        counts = Counter(name[0] for name in found[:end])
        for name, share in (("a", 1 / 8), ("b", 2 / 8), ("c", 5 / 8)):
            assert abs(counts[name] - share * end) <= 1


def test_inside_a_subset_everyone_has_a_turn() -> None:
    rl_set = [*items(40, {"a": 1.0}, "a"), *items(12, {"b": 3.0}, "b")]
    turns = Counter(name for drawn in steps(prompts(rl_set, 4), 160) for name in drawn)
    assert len(turns) == 52
    assert {turns[name] for name in turns if name[0] == "a"} == {4}  # 160 of 640 on 40
    assert {turns[name] for name in turns if name[0] == "b"} == {40}  # 480 of 640 on 12


def test_an_utterance_in_two_subsets_is_drawn_for_both() -> None:
    rl_set = [*items(20, {"a": 1.0}, "a"), *items(20, {"a": 1.0, "b": 1.0}, "ab")]
    turns = Counter(name for drawn in steps(prompts(rl_set, 4), 400) for name in drawn)
    both = np.mean([count for name, count in turns.items() if name.startswith("ab")])
    alone = np.mean([count for name, count in turns.items() if not name.startswith("ab")])
    assert both / alone == pytest.approx(3, rel=0.1)


def test_what_a_subset_lacks_comes_from_all() -> None:
    """Two subsets are the same three utterances, of which a step can take each once."""
    rl_set = [*items(3, {"a": 1.0, "b": 1.0}), *items(6, {"c": 0.01}, "c")]
    for order in ORDERS:
        for drawn in steps(prompts(rl_set, 6, prompt_order=order), 50):
            assert len(set(drawn)) == 6


def test_curriculum_goes_from_easy_to_hard() -> None:
    source = prompts(items(100), 8, prompt_order="curriculum", max_steps=80)
    hardest = [max(int(name[1:]) for name in drawn) for drawn in steps(source, 80)]
    assert all(hard <= 25 + 75 * step / 40 for step, hard in enumerate(hardest[:40]))
    assert max(hardest[:5]) < 35 and max(hardest[35:40]) > 75
    late = [name for drawn in steps(source, 80)[40:] for name in drawn]
    assert len(set(late)) > 90  # from half of the run on: all
    easy = np.mean([int(name[1:]) < 50 for name in late])
    assert easy == pytest.approx(0.5, abs=0.1)


def test_curriculum_takes_so_many_steps() -> None:
    keys = {"prompt_order": "curriculum", "max_steps": 20}
    found = steps(prompts(items(100), 8, **keys), 40)
    assert max(name for drawn in found[:3] for name in drawn) < "u050"
    assert len({name for drawn in found[10:] for name in drawn}) > 85


def test_curriculum_in_each_subset() -> None:
    rl_set = [*items(40, {"a": 1.0}, "a"), *items(40, {"b": 1.0}, "b")]
    first = ids(prompts(rl_set, 8, prompt_order="curriculum").draw(0))
    assert sorted(name[0] for name in first) == list("aaaabbbb")
    assert all(int(name[1:]) < 10 for name in first)


def test_reweight_prefers_spread() -> None:
    source = prompts(items(50), 5, prompt_order="reweight")
    turns = Counter(name for drawn in steps(source, 2000) for name in drawn)
    found = np.array([turns[f"u{i:03d}"] for i in range(50)]) / 10000
    spread = (np.arange(50) + 1) / 50
    expected = 0.8 * spread / spread.sum() + 0.2 / 50
    # Without replacement inside a step: the likeliest are drawn a little less often.
    assert np.abs(found - expected).max() < 0.006
    assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_reweight_learns_what_has_spread() -> None:
    source = prompts(items(20), 4, prompt_order="reweight")
    for _ in range(20):
        source.learn({f"u{i:03d}": 1.0 if i == 3 else 0.0 for i in range(20)})
    turns = Counter(name for drawn in steps(source, 200) for name in drawn)
    assert turns["u003"] > 190
    assert len(turns) == 20  # nobody is lost


def test_recent_spread_counts_most() -> None:
    source = prompts(items(2), 1, prompt_order="reweight")
    source.learn({"u001": 0.0})
    source.learn({"u001": 0.4})
    assert source.spread.tolist() == [0.5, (1.0 / 2 + 0.0) / 2 + 0.4 / 2]


def test_without_any_spread_all_are_alike() -> None:
    flat = [Item(item.utterance, item.subsets, 0.5, 0.0) for item in items(10)]
    turns = Counter(n for d in steps(prompts(flat, 2, prompt_order="reweight"), 500) for n in d)
    assert min(turns.values()) > 70


@pytest.mark.parametrize("order", ORDERS)
def test_more_are_others(order: str) -> None:
    source = prompts(items(9), 3, prompt_order=order)
    taken = {f"u{i:03d}" for i in range(6)}
    found = ids(source.more(3, 0, taken, 2))
    assert len(set(found) - taken) == 2
    assert sorted(ids(source.more(3, 0, taken, 5))) == ["u006", "u007", "u008"]
    draws = {tuple(ids(source.more(3, attempt, set(), 3))) for attempt in range(5)}
    assert len(draws) > 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("at", [1, 7, 20])
def test_state_is_all_that_counts(order: str, at: int) -> None:
    """Taken at any step and restored, the run goes on as it would have."""
    rl_set = [*items(11, {"a": 1.0}, "a"), *items(7, {"a": 1.0, "b": 0.7}, "b")]

    def go_on(source: Prompts, first: int) -> list[list[str]]:
        found = []
        for step in range(first, 30):
            drawn = ids(source.draw(step))
            drawn += ids(source.more(step, 0, set(drawn), 2))
            source.learn({name: (step * len(name) + int(name[1:])) % 5 / 5 for name in drawn})
            found.append(drawn)
            if step + 1 == at:
                kept.append(json.loads(json.dumps(source.state)))
        return found

    kept: list[dict] = []
    whole = go_on(prompts(rl_set, 5, prompt_order=order), 0)
    later = prompts(rl_set, 5, prompt_order=order)
    later.restore(kept[0])
    assert go_on(later, at) == whole[at:]


def test_a_subset_smaller_than_its_share() -> None:
    rl_set = [*items(40, {"a": 1.0}, "a"), *items(5, {"b": 3.0}, "b")]
    with pytest.raises(UserError) as refused:
        prompts(rl_set, 8)
    assert str(refused.value) == (
        "subset b of the RL set has 5 utterances, fewer than its share of a step (6 prompts); make "
        "it larger, or lower its weight or rl.num_prompts."
    )


@pytest.mark.parametrize("order", ["curriculum", "reweight"])
def test_an_order_needs_difficulty(order: str) -> None:
    rl_set = [*items(9), Item(Utterance("new", "", "", "s"))]
    with pytest.raises(UserError, match=r"^new has no difficulty, which rl\.prompt_order looks at"):
        prompts(rl_set, prompt_order=order)
    prompts(rl_set, prompt_order="shuffle")
