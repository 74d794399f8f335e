"""Recipes as data: the schema of every key, the strict loader, and configs as text."""

from audiorl.config.dump import config_differences, dump_config
from audiorl.config.loader import load_config
from audiorl.config.schema import Config

__all__ = ["Config", "config_differences", "dump_config", "load_config"]
