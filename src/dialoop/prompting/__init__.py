"""Prompts put to models: examples that are shown, classes that are told by their probability."""
