"""dialoop: your dialogues in, a better model out, in a loop."""

__version__ = "0.1.0"
