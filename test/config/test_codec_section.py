"""What the keys of a codec must fulfil together, and what a codec's folder must hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from audiorl.config import load_config
from audiorl.config.check import check_recipe
from audiorl.errors import UserError


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        (["codec.pretrained=org/codec"], "codec.pretrained", "a native codec is trained here; set"),
        (["codec.type=mimi"], "codec.pretrained", "there is no mimi to load; name its folder"),
        (
            ["codec.encoder.output_size=90"],
            "codec.encoder.output_size",
            "of the 4 attention",
        ),
        (["codec.fsq_dims=11"], "codec.fsq_dims", "expected a whole number >= 1, <= 10 (got 11)"),
    ],
)
def test_broken_rule(problems: Callable, options: list[str], key: str, reason: str) -> None:
    (problem,) = problems("task: tts", *options)
    assert problem.startswith("--set ") and reason in problem
    assert key in problem.split(reason)[0]


@pytest.mark.parametrize(
    "options",
    [
        ["codec.type=xcodec2", "codec.pretrained=org/codec"],
        ["codec.fsq_dims=10"],
    ],
)
def test_kept_rule(write: Callable, options: list[str]) -> None:
    load_config(write("task: tts"), options)


def test_recognition_has_no_codec(problems: Callable) -> None:
    (problem,) = problems("codec: {fsq_dims: 5}")
    assert "is a key of task tts" in problem


def test_a_folder_without_a_codec_is_named(write: Callable) -> None:
    recipe = write("task: tts\ncodec: {type: dac}\n")
    for folder, sentence in ((".", "holds no config.json"), ("./none/there", "no such folder")):
        with pytest.raises(UserError, match=rf"codec\.pretrained=\S+: .*{sentence}"):
            check_recipe(recipe, [f"codec.pretrained={folder}"])
