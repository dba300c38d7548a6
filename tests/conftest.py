"""Settings for every test: no hub, and no deadlines, since machines are shared and first imports slow."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# CI draws the same examples each time; runs by hand go on searching.
settings.register_profile("shared", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("shared")
