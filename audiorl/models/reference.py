"""A pretrained model by reference: its name, its checksums, and the tensors that learnt."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import torch

from audiorl.config.schema import Config
from audiorl.errors import UserError, reason
from audiorl.models import WEIGHTS, fill_weights, read_weights, save_tensors, weights_of
from audiorl.models.policy import Policy, find_policy, load_policy, saved_family
from audiorl.runtime.files import read_json, sha256, write_json

BASE_FACTS = "reference.json"
LEARNT = "changed.safetensors"  # tensors of the model that are others than the base's


def write_reference(model: Path, config: Config, out: Path) -> None:
    """Write the model saved in `model` into the new folder `out`, without what its base has.

    `config`: of the recipe, whose `model.pretrained` is the base. Raises UserError if that cannot
    be read or is another kind of model.
    """
    pretrained = config.model.pretrained
    base, policy = _base_folder(pretrained), load_policy(model)
    own, theirs = weights_of(policy), weights_of(_pretrained(config, model, base))
    if own.keys() != theirs.keys():
        raise UserError(f"{model} has other tensors than {pretrained}; pack it whole.")
    shutil.copytree(model, out, ignore=shutil.ignore_patterns(WEIGHTS, ".*"))
    changed = {name: own[name] for name in own if not torch.equal(own[name], theirs[name])}
    save_tensors(changed, out / LEARNT)
    local = os.path.isdir(pretrained)
    facts = {
        "name": Path(pretrained).name if local else pretrained,
        "revision": None if local else base.name,  # of the hub's cache: the commit
        "sha256": {path.name: sha256(path) for path in sorted(base.glob("*.safetensors"))},
    }
    write_json(out / BASE_FACTS, facts)


def restore(folder: Path, config: Config, base: Path | None = None) -> None:
    """Make the model of `write_reference` whole, in place; other folders stay as they are.

    `base`: the folder of the pretrained model, if the hub is not asked for it. Raises UserError if
    it is not there or not the one that was trained from.
    """
    if not (folder / BASE_FACTS).is_file():
        return
    facts = read_json(folder / BASE_FACTS, "get the zip again")
    base = base or _base_folder(facts["name"], facts["revision"])
    for name, expected in facts["sha256"].items():
        if not (base / name).is_file() or sha256(base / name) != expected:
            at = f" at revision {facts['revision']}" if facts["revision"] else ""
            raise UserError(
                f"{base / name} is not the file that the model was trained from; give the folder "
                f"of {facts['name']}{at} with --base."
            )
    policy, changed = _pretrained(config, folder, base), read_weights(folder / LEARNT)
    try:
        fill_weights(policy, changed, weights_of(policy).keys() & changed.keys())
    except RuntimeError as error:
        message = f"{folder}: does not fit its base ({reason(error)}); get the zip again."
        raise UserError(message) from error
    whole = folder / ".whole"  # of it the weights are needed alone: the rest is here
    policy.save(whole)
    (whole / WEIGHTS).replace(folder / WEIGHTS)
    shutil.rmtree(whole)
    for name in (BASE_FACTS, LEARNT):
        (folder / name).unlink()


def _pretrained(config: Config, model: Path, base: Path) -> Policy:
    """The pretrained model in `base`, of the same family as the one saved in `model`."""
    config = copy.deepcopy(config)
    config.model.pretrained = str(base)
    return find_policy(saved_family(model)).create(config, ())


def _base_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder of a pretrained model, fetched from the hub unless it is here."""
    if os.path.isdir(name):
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name} is no folder and cannot be had from the hub ({reason(error)}); name the "
            "folder of the pretrained model: --base of audiorl.bin.unpack, model.pretrained "
            "before that."
        ) from error
