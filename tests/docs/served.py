"""The shipped model with all that the platform offers, for what the documents show."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dialoop
from dialoop.backends.echo import EchoEngine
from dialoop.config.trials import TrialSettings
from dialoop.engine.loaded import open_model, open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.pool import Pool
from dialoop.serve.fine_tuning import Tuning
from dialoop.serve.tuned import TunedModels
from dialoop.store.registry import Store
from dialoop.train.heads import teach
from dialoop.types import ModelRef
from tests.encoders import make_encoder
from tests.serve.running import serving
from tests.serve.test_fine_tuning import Idle
from tests.train.head_drill import ROWS, head_recipe

BASE = Path(dialoop.__file__).parent / "assets" / "dialoop-base"


@cache
def heads() -> tuple[ModelRef, ...]:
    """A classifier and a tagger that know a few rows by heart, made once a process."""
    root = Path(tempfile.mkdtemp(prefix="dialoop-heads-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    base = ModelRef("encoder", make_encoder(root / "encoder"))
    made = []
    for name, kind in (("intents", "classify"), ("names", "tag")):
        recipe = head_recipe(
            kind, train__epochs=150.0, train__batch_tokens=1024, train__checkpoint_every=500,
            optim__learning_rate=2e-3,
        )  # fmt: skip
        artefact = teach(recipe, base, ROWS[kind], (), root / name).artefact
        assert artefact is not None
        made.append(ModelRef(name, artefact.base))
    return tuple(made)


@contextmanager
def platform(home: Path) -> Iterator[str]:
    """Its URL. Jobs are taken and never begun."""
    bases = {"dialoop-base": ModelRef("dialoop-base", BASE)}
    engine = LocalEngine({"dialoop-base": open_model(bases["dialoop-base"]), **open_models(heads())})
    bases |= {ref.name: ref for ref in heads()}
    store = Store.open(home)
    models = TunedModels(Pool(engine, lambda ref: EchoEngine(name=ref.name), limit=1), store, bases)
    arms = [{"name": name, "model": "dialoop-base", "prompt": "assistant"} for name in ("plain", "short")]
    trials = {"desk": TrialSettings.model_validate({"arms": arms})}
    with serving(models, store=store, tuning=Tuning(Idle(), models, bases), trials=trials) as url:
        yield url
