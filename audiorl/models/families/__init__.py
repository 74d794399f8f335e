"""Families of pretrained audio LLMs, found by name; yours stand in $AUDIORL_PLUGINS/families."""

from audiorl.config.variants import extend_path

__path__ = extend_path(__name__, __path__)
