"""Checkpoints and best weights: whole or not there, and never the last good one lost."""

from __future__ import annotations

import errno
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import sing, tiny_model

from audiorl.errors import UserError
from audiorl.models import load_weights, read_weights, save_weights, weights_of
from audiorl.models.audio_llm import AudioLLM
from audiorl.runs import checkpoint
from audiorl.runs.checkpoint import BestWeights, Checkpoints, truncate_jsonl
from audiorl.runs.optimizer import Optimizers


def train(model: AudioLLM, optimizer: Optimizers, steps: int) -> None:
    model.train()
    waves, texts = [torch.from_numpy(sing("ba do")), torch.from_numpy(sing("ki"))], ["ba do", "ki"]
    for _ in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(0)
        model.supervised_loss(model.encode(waves), texts, ctc_weight=0.3).total.backward()
        optimizer.step(1.0, 1.0, [])


def begun(seed: int = 0) -> tuple[AudioLLM, Optimizers]:
    model = tiny_model(seed=seed)
    return model, Optimizers([model], 1e-2, 0.01, 1e-2)


def equal(model: AudioLLM, other: AudioLLM) -> bool:
    one, two = weights_of(model), weights_of(other)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def resume(folder: Path, model: AudioLLM, optimizer: Optimizers) -> tuple[int, dict | None]:
    return Checkpoints(folder).resume(model, optimizer, BestWeights(folder, 2))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, place: int) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Checkpoints of steps 1, 2 and 3."""
    model, optimizer = begun()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        train(model, optimizer, 1)
        checkpoints.save(step, model, optimizer, {"best": {}, "stale": step})
    return tmp_path / "checkpoints"


def test_what_was_saved_comes_back(saved: Path) -> None:
    expected, optimizer = begun()
    train(expected, optimizer, 3)
    model, resumed = begun(seed=1)
    assert not equal(model, expected)
    assert resume(saved, model, resumed) == (3, {"best": {}, "stale": 3})
    assert equal(model, expected)
    train(model, resumed, 2)
    train(expected, optimizer, 2)
    assert equal(model, expected)


def test_the_last_two_are_kept(saved: Path) -> None:
    assert names(saved) == ["step_00000002", "step_00000003"]


def test_a_new_run_has_none(tmp_path: Path) -> None:
    model, optimizer = begun()
    assert resume(tmp_path / "new", model, optimizer) == (0, None)
    assert equal(model, begun()[0])


@pytest.mark.parametrize("file", ["model.safetensors", "trainer.pt"])
@pytest.mark.parametrize("damage", [0.0, 0.3, 0.9, "gone", "other", "flip"])
def test_a_damaged_one_is_passed_over(saved: Path, file: str, damage) -> None:
    path = saved / "step_00000003" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "flip":
        flip(path, -1000)
    else:
        path.write_bytes(
            b"other" * 99 if damage == "other" else content[: int(damage * len(content))]
        )
    expected, optimizer = begun()
    train(expected, optimizer, 2)
    model, resumed = begun()
    assert resume(saved, model, resumed)[0] == 2
    assert equal(model, expected)
    train(model, resumed, 1)
    train(expected, optimizer, 1)
    assert equal(model, expected)


def test_one_of_another_model_is_passed_over(saved: Path) -> None:
    other = tiny_model({"llm.hidden_size": 64})
    Checkpoints(saved).save(4, other, Optimizers([other], 0.1, 0.0), {})
    model, resumed = begun()
    assert resume(saved, model, resumed)[0] == 3


def test_all_damaged(saved: Path) -> None:
    for step in (2, 3):
        (saved / f"step_0000000{step}" / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of its checkpoints can be used") as raised:
        resume(saved, *begun())
    assert "\n" not in str(raised.value)


def test_nothing_in_a_checkpoint_is_run(saved: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save(
        {"optimizer": Bomb(), "state": {}, "step": 3}, saved / "step_00000003" / "trainer.pt"
    )
    assert resume(saved, *begun())[0] == 2
    assert not (tmp_path / "exploded").exists()


def test_remains_of_an_unfinished_one_do_not_matter(saved: Path) -> None:
    (saved / ".step_00000004").mkdir()
    (saved / ".step_00000004" / "model.safetensors").write_bytes(b"half")
    assert resume(saved, *begun())[0] == 3
    model, optimizer = begun()
    Checkpoints(saved).save(4, model, optimizer, {})
    assert names(saved) == ["step_00000003", "step_00000004"]
    assert names(saved / "step_00000004") == ["model.safetensors", "sums.json", "trainer.pt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"]
    if subprocess.run(["mount", *options, disk], capture_output=True).returncode != 0:
        pytest.skip("no tmpfs can be mounted here: mounting needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("room", [0, 50_000, 150_000, 250_000, 300_000])
def test_a_full_disk_keeps_the_last_checkpoint(small_disk: Path, room: int) -> None:
    """Full before the weights, among them, among the optimizer's state."""
    model, optimizer = begun()
    train(model, optimizer, 1)
    checkpoints = Checkpoints(small_disk / "checkpoints")
    checkpoints.save(1, model, optimizer, {"best": {}, "stale": 0})
    size = sum(p.stat().st_size for p in small_disk.rglob("*") if p.is_file())
    assert size > 320_000
    free = int(subprocess.check_output(["stat", "-f", "-c", "%a", small_disk])) * 4096
    (small_disk / "ballast").write_bytes(bytes(free - room))
    with pytest.raises(UserError, match=r"cannot be written .*; free the disk") as raised:
        checkpoints.save(2, model, optimizer, {"best": {}, "stale": 1})
    assert "\n" not in str(raised.value)
    (small_disk / "ballast").unlink()
    resumed, its_optimizer = begun(seed=1)
    assert resume(small_disk / "checkpoints", resumed, its_optimizer) == (
        1,
        {"best": {}, "stale": 0},
    )
    assert equal(resumed, model)
    checkpoints.save(2, model, optimizer, {"best": {}, "stale": 1})
    assert names(small_disk / "checkpoints") == ["step_00000001", "step_00000002"]


def offered(folder: Path, scores: dict[int, float], keep: int) -> tuple[BestWeights, list[bool]]:
    best = BestWeights(folder, keep)
    return best, [best.offer(step, score, tiny_model(seed=step)) for step, score in scores.items()]


def test_the_best_are_kept(tmp_path: Path) -> None:
    best, news = offered(tmp_path, {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.5, 5: 0.4, 6: 0.8}, keep=3)
    assert news == [True, True, False, False, True, False]
    assert best.scores == {"5": 0.4, "2": 0.5, "4": 0.5}
    best.clean()
    assert names(tmp_path) == [f"best_0000000{step}.safetensors" for step in (2, 4, 5)]


def test_masters_of_bf16_weights_come_back(tmp_path: Path) -> None:
    """Also where the weights are another model's: to the bit, with parts that stay frozen."""

    def half(seed: int) -> tuple[AudioLLM, Optimizers]:
        model = tiny_model({"llm.dtype": "bfloat16"}, seed=seed)
        model.encoder.requires_grad_(False)
        return model, Optimizers([model], 1e-4, 0.0)

    (expected, optimizer), checkpoints = half(0), Checkpoints(tmp_path)
    best = BestWeights(tmp_path, 2, masters=optimizer.masters)
    for step in (1, 2):
        train(expected, optimizer, 1)
        best.offer(step, 1 / step, expected)
    checkpoints.save(2, expected, optimizer, {"best": best.scores})
    saved = read_weights(tmp_path / "step_00000002" / "model.safetensors")
    assert {tensor.dtype for name, tensor in saved.items() if "llm." in name} == {torch.float32}
    frozen = {name for name, p in expected.named_parameters() if not p.requires_grad}
    assert frozen and saved.keys() == weights_of(expected).keys() - frozen
    assert any("running_mean" in name for name in saved)

    model, resumed = half(1)
    model.encoder.load_state_dict(expected.encoder.state_dict())
    assert resume(tmp_path, model, resumed)[0] == 2
    assert equal(model, expected)
    for one, other in zip(resumed.parameters, optimizer.parameters, strict=True):
        assert torch.equal(one, other)
    train(model, resumed, 2)
    train(expected, optimizer, 2)
    assert equal(model, expected)

    best.load_average(model)
    files = [read_weights(tmp_path / f"best_0000000{step}.safetensors") for step in (1, 2)]
    for name, parameter in model.llm.named_parameters(prefix="llm"):
        mean = sum(file[name].double() for file in files) / 2
        assert torch.equal(parameter, mean.bfloat16())


def test_the_average_holds_one_tensor_at_a_time(tmp_path: Path, monkeypatch) -> None:
    best, _ = offered(tmp_path, {1: 0.9, 2: 0.5, 3: 0.7}, keep=3)
    asked = []
    open_weights = checkpoint.open_weights

    class Watched:
        def __init__(self, path: Path) -> None:
            self.file = open_weights(path)

        def keys(self) -> list[str]:
            return self.file.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            asked.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(checkpoint, "open_weights", Watched)
    best.load_average(tiny_model())
    assert asked == [name for name in weights_of(tiny_model()) for _ in range(3)]


def test_a_damaged_checkpoint_is_replaced_with_the_one_before_and_its_best(tmp_path: Path) -> None:
    """Whatever the newest needs no longer, the one before still has."""
    model, optimizer = begun()
    checkpoints, best = Checkpoints(tmp_path), BestWeights(tmp_path, 1)
    for step, score in {1: 0.9, 2: 0.5, 3: 0.4}.items():
        best.offer(step, score, tiny_model(seed=step))
        checkpoints.save(step, model, optimizer, {"best": best.scores})
        best.clean()
    assert [n for n in names(tmp_path) if n.startswith("best")] == [
        "best_00000002.safetensors",
        "best_00000003.safetensors",
    ]
    flip(tmp_path / "best_00000003.safetensors", 5000)
    again = BestWeights(tmp_path, 1)
    assert checkpoints.resume(*begun(), again) == (2, {"best": {"2": 0.5}})
    assert again.scores == {"2": 0.5}
    again.offer(3, 0.4, tiny_model(seed=3))
    averaged = tiny_model(seed=9)
    again.load_average(averaged)
    assert equal(averaged, tiny_model(seed=3))
    (tmp_path / "best_00000002.safetensors").unlink()
    flip(tmp_path / "best_00000003.safetensors", -1)
    with pytest.raises(UserError, match="none of its checkpoints can be used"):
        checkpoints.resume(*begun(), BestWeights(tmp_path, 1))


def test_at_the_end_only_the_best_are_left(tmp_path: Path) -> None:
    best, _ = offered(tmp_path, {1: 0.9, 2: 0.5, 3: 0.4}, keep=1)
    best.load_average(tiny_model())
    assert names(tmp_path) == ["best_00000003.safetensors"]


@pytest.mark.parametrize("place", [3, 60, 500, 5000, -1, -9000])
def test_one_changed_bit_of_weights_is_noticed(tmp_path: Path, place: int) -> None:
    save_weights(tiny_model(), tmp_path / "w.safetensors")
    flip(tmp_path / "w.safetensors", place)
    with pytest.raises(UserError, match=r"w\.safetensors: cannot be loaded .*; restore the file"):
        load_weights(tiny_model(), tmp_path / "w.safetensors")


def test_weights_of_other_programs_have_no_checksum(tmp_path: Path) -> None:
    model = tiny_model(seed=9)
    save_file(weights_of(tiny_model(seed=1)), tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert equal(model, tiny_model(seed=1))


def test_the_average_is_the_mean(tmp_path: Path) -> None:
    best, _ = offered(tmp_path, {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.6}, keep=3)
    averaged = tiny_model(seed=9)
    best.load_average(averaged)
    parts = [weights_of(tiny_model(seed=step)) for step in (2, 3, 4)]
    for name, tensor in weights_of(averaged).items():
        mean = sum(part[name].double() for part in parts) / 3
        torch.testing.assert_close(tensor, mean.to(tensor.dtype), rtol=1e-6, atol=1e-7)


def test_one_alone_is_that_one(tmp_path: Path) -> None:
    best, _ = offered(tmp_path, {1: 0.9, 2: 0.5}, keep=1)
    model = tiny_model(seed=9)
    best.load_average(model)
    assert equal(model, tiny_model(seed=2))


def test_of_equals_the_first_is_best(tmp_path: Path) -> None:
    best, news = offered(tmp_path, {1: 0.5, 2: 0.5}, keep=1)
    assert news == [True, False]
    assert best.scores == {"1": 0.5}


@pytest.mark.parametrize(
    ("distrusted", "chosen"), [(False, {"5": 0.1, "6": 0.2}), (True, {"2": 0.5, "3": 0.6})]
)
def test_the_unsettled_are_kept_and_may_be_passed_over(
    tmp_path: Path, distrusted: bool, chosen: dict[str, float]
) -> None:
    best = BestWeights(tmp_path, keep=2, unsettled=3)
    for step, score in {1: 0.9, 2: 0.5, 3: 0.6, 4: 0.7, 5: 0.1, 6: 0.2}.items():
        best.offer(step, score, tiny_model(seed=step))
        best.clean()
    best.clean()
    assert names(tmp_path) == [f"best_0000000{step}.safetensors" for step in (2, 3, 4, 5, 6)]
    best.choose(distrusted)
    assert best.scores == chosen
    best.load_average(tiny_model())


def test_where_nothing_is_settled_the_first_is_chosen(tmp_path: Path) -> None:
    best = BestWeights(tmp_path, keep=2, unsettled=3)
    for step, score in {0: 0.9, 10: 0.5, 20: 0.1}.items():
        best.offer(step, score, tiny_model(seed=step))
    best.choose(distrusted=True)
    assert best.scores == {"0": 0.9}


@pytest.mark.parametrize("damage", ["cut", "gone", "flip"])
def test_damaged_best_weights_are_named(tmp_path: Path, damage: str) -> None:
    best, _ = offered(tmp_path, {1: 0.9, 2: 0.5}, keep=2)
    path = tmp_path / "best_00000002.safetensors"
    if damage == "gone":
        path.unlink()
    elif damage == "flip":
        flip(path, 4000)
    else:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"best_00000002\.safetensors: ") as raised:
        best.load_average(tiny_model())
    assert "\n" not in str(raised.value)


def test_best_weights_load_as_a_model(tmp_path: Path) -> None:
    offered(tmp_path, {1: 0.9}, keep=1)
    model = tiny_model(seed=9)
    load_weights(model, tmp_path / "best_00000001.safetensors")
    assert equal(model, tiny_model(seed=1))


@pytest.mark.parametrize(
    "tail",
    [b"", b'{"step": 9, "los', b"\n", b'{"step": 4}\n{"st', '{"step": 9, "t": "汉'.encode()[:-1]],
)
def test_lines_of_steps_done_again_are_dropped(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    kept = [
        {"step": 0, "eval/wer": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 4, "text": "ünï\u2028"},
    ]
    gone = [{"step": 5, "loss": 0.1}, {"step": 6}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [*kept, *gone])
    path.write_bytes(text.encode() + tail)
    truncate_jsonl(path, 4)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    expected = kept + [{"step": 4}] * tail.startswith(b'{"step": 4}')
    assert [json.loads(line) for line in lines] == expected
    truncate_jsonl(tmp_path / "none.jsonl", 4)
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize(
    "bad", [b"{", b"[]", b"{}", b"3", b'{"step": null}', b"\xff\xfe", b"[" * 99999]
)
def test_only_the_last_line_may_be_broken(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + bad)
    truncate_jsonl(path, 4)
    assert path.read_bytes() == b'{"step": 1}\n'
    path.write_bytes(bad + b'\n{"step": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:1 is not a JSON object with a step"):
        truncate_jsonl(path, 4)
    assert path.read_bytes() == bad + b'\n{"step": 1}\n'


def test_a_full_disk_while_the_trainer_is_saved(tmp_path: Path, monkeypatch) -> None:
    """torch.save raises an error of its own on top of the system's."""

    class Full(io.BytesIO):
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    original = checkpoint.torch.save
    monkeypatch.setattr(checkpoint.torch, "save", lambda value, stream: original(value, Full()))
    with pytest.raises(UserError, match=r"trainer.pt: cannot be written \(No space left on dev"):
        Checkpoints(tmp_path).save(1, *begun(), {})
    assert names(tmp_path) == [".step_00000001"]
    Checkpoints(tmp_path)
    assert names(tmp_path) == []
