"""The labels of a text's characters."""

from __future__ import annotations

from audiorl.text.characters import Characters


def test_labels_and_back() -> None:
    characters = Characters.of(["Cab!", "b a"])
    assert characters.symbols == [" ", "a", "b", "c"]
    assert characters.labels("A cab") == [2, 1, 4, 2, 3]
    assert characters.text([2, 1, 4, 2, 3]) == "a cab"
    assert characters.text([1, 2, 1, 1, 3, 1]) == "a b"


def test_what_is_not_known_is_not_heard() -> None:
    assert Characters.of(["ab"]).labels("a-x b") == [1, 2]
