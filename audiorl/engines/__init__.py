"""Engines that sample responses, found by name; yours stand in $AUDIORL_PLUGINS/engines."""

from audiorl.config.variants import extend_path

__path__ = extend_path(__name__, __path__)
