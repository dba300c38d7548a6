"""The shipped model with all that the platform offers, for what the documents show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dialoop
from dialoop.backends.echo import EchoEngine
from dialoop.config.trials import TrialSettings
from dialoop.engine.loaded import open_model
from dialoop.engine.local import LocalEngine
from dialoop.engine.pool import Pool
from dialoop.serve.fine_tuning import Tuning
from dialoop.serve.tuned import TunedModels
from dialoop.store.registry import Store
from dialoop.types import ModelRef
from tests.serve.running import serving
from tests.serve.test_fine_tuning import Idle

BASE = Path(dialoop.__file__).parent / "assets" / "dialoop-base"


@contextmanager
def platform(home: Path) -> Iterator[str]:
    """Its URL. Jobs are taken and never begun."""
    bases = {"dialoop-base": ModelRef("dialoop-base", BASE)}
    engine = LocalEngine({name: open_model(ref) for name, ref in bases.items()})
    store = Store.open(home)
    models = TunedModels(Pool(engine, lambda ref: EchoEngine(name=ref.name), limit=1), store, bases)
    arms = [{"name": name, "model": "dialoop-base", "prompt": "assistant"} for name in ("plain", "short")]
    trials = {"desk": TrialSettings.model_validate({"arms": arms})}
    with serving(models, store=store, tuning=Tuning(Idle(), models, bases), trials=trials) as url:
        yield url
