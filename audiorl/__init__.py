"""audiorl: reinforcement learning of LLM-based speech recognition and synthesis."""

__version__ = "0.1.0"
