"""Whole pieces of work: what a command, and later an API job, runs from data to a registered model."""
