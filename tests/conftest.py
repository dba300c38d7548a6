"""Settings for every test: no hub, and no deadlines, since machines are shared and first imports slow."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
