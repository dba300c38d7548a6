"""Every engine that classifies does it alike: in this process, in another, around one, and among guests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dialoop.backends.routed import Route, RoutedEngine
from dialoop.engine.loaded import open_models
from dialoop.engine.local import LocalEngine
from dialoop.engine.pool import Pool
from dialoop.engine.process import ProcessEngine
from dialoop.train.heads import teach
from dialoop.types import Classify, Engine, ModelRef
from tests.conformance.classify import ClassifyConformance
from tests.encoders import make_encoder
from tests.train.head_drill import ROWS, head_recipe


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ModelRef]:
    root = tmp_path_factory.mktemp("classes")
    base = ModelRef("bert", make_encoder(root / "bert"))
    made = [base]
    for name, kind in (("classes", "classify"), ("tags", "tag")):
        artefact = teach(head_recipe(kind), base, ROWS[kind], (), root / name).artefact
        assert artefact is not None
        made.append(ModelRef(name, artefact.base))
    return made


def local(refs: list[ModelRef]) -> Engine:
    return LocalEngine(open_models(refs), step_tokens=24)


def pooled(refs: list[ModelRef]) -> Engine:
    return Pool(local(refs), lambda ref: local([ref]), limit=1)


ENGINES: dict[str, Callable[[list[ModelRef]], Engine]] = {
    "local": local,
    "process": ProcessEngine,
    "routed": lambda refs: RoutedEngine([Route(local(refs))]),
    "pool": pooled,
}


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest, refs: list[ModelRef]) -> AsyncIterator[Classify]:
    made = ENGINES[request.param](refs)
    assert isinstance(made, Classify)
    yield made
    await made.aclose()  # type: ignore[attr-defined]


class TestEngines(ClassifyConformance):
    pass


def test_a_directory_with_a_head_says_so(refs: list[ModelRef], tmp_path: Path) -> None:
    kinds = {name: loaded.served.kind for name, loaded in open_models(refs).items()}
    assert kinds == {"classes": "classifier", "tags": "tagger", "bert": "encoder"}
