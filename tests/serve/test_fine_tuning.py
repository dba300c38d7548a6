"""/v1/fine_tuning/jobs as clients see them, without a process that trains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from dialoop.backends.echo import EchoEngine
from dialoop.engine.pool import Pool
from dialoop.jobs.asked import Wish, check
from dialoop.serve.fine_tuning import Tuning
from dialoop.serve.tuned import TunedModels
from dialoop.store.fine_tuning import NewEvent
from dialoop.store.registry import Store
from dialoop.types import ModelRef
from tests.serve.running import serving
from tests.tiny import tiny_model

TURNS = [{"role": "user", "content": "退货"}, {"role": "assistant", "content": "Sure!"}]
ROWS = "\n".join(json.dumps({"messages": TURNS}) for _ in range(12)).encode()


class Idle:
    """A runner that runs nothing and counts how often it was woken."""

    woken = 0

    async def run(self) -> None:
        return

    def wake(self) -> None:
        self.woken += 1

    def check(
        self, method: str, asked: Mapping[str, Any], settings: Mapping[str, Any], base: ModelRef
    ) -> None:
        check(Wish(method, asked, settings), base)


@dataclass
class Shop:
    """A served store and a client of it."""

    store: Store
    client: OpenAI
    models: TunedModels
    runner: Idle
    training: str = ""
    made: dict[str, Any] = field(default_factory=dict)

    def create(self, **fields: Any) -> FineTuningJob:
        body = {"model": "tiny", "training_file": self.training, **fields}
        return self.client.fine_tuning.jobs.create(**body)

    def refused(self, **fields: Any) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as refused:
            self.create(**fields)
        return refused.value


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    store = Store.open(tmp_path_factory.mktemp("home"))
    bases = {"tiny": ModelRef("tiny", tiny_model())}
    models = TunedModels(
        Pool(EchoEngine(name="tiny"), lambda ref: EchoEngine(name=ref.name), limit=1), store, bases
    )
    runner = Idle()
    tuning = Tuning(runner, models, bases)
    with (
        serving(models, store=store, tuning=tuning) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        made = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
        yield Shop(store, client, models, runner, made.id)


def test_a_job_is_made_as_it_was_asked_for_and_told_in_openais_shape(shop: Shop) -> None:
    woken = shop.runner.woken
    hyperparameters = {"n_epochs": 2, "learning_rate_multiplier": 0.5}
    job = shop.create(
        suffix="Shop 客服", seed=7, metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        extra_body={"dialoop": {"method": {"kind": "lora", "rank": 4}}},
    )  # fmt: skip
    assert (job.status, job.seed, job.metadata, job.error) == ("validating_files", 7, {"team": "a"}, None)
    assert job.hyperparameters.n_epochs == 2
    assert job.method
    assert job.method.supervised
    assert job.method.supervised.hyperparameters.model_dump() == job.hyperparameters.model_dump()
    assert shop.client.fine_tuning.jobs.retrieve(job.id) == job
    assert shop.runner.woken == woken + 1
    first = next(iter(shop.client.fine_tuning.jobs.list_events(job.id)))
    assert (first.level, first.type) == ("info", "message")
    assert job.id in first.message


@pytest.mark.parametrize(("fields", "param", "code", "words"), [
    ({"model": "tinny"}, "model", "model_not_found", "served: tiny"),
    ({"training_file": "file-1"}, "training_file", "file_not_found", "no file 'file-1'"),
    ({"validation_file": "file-1"}, "validation_file", "file_not_found", "no file 'file-1'"),
    ({"seed": -1}, "seed", None, "greater than or equal to 0"),
    ({"suffix": "x" * 65}, "suffix", None, "at most 64 characters"),
    ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}, "method.dpo.hyperparameters.beta",
     None, "less than or equal to 2"),
    ({"method": {"type": "dpo"}, "hyperparameters": {"n_epochs": 1}}, "hyperparameters", None,
     "give method.dpo.hyperparameters alone"),
    ({"method": {"type": "reinforcement"}}, "method.type", "unsupported", "use 'supervised' or 'dpo'"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations", "unsupported", "file"),
    ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", None, "less than or equal to 50"),
    ({"hyperparameters": {"batch_size": "many"}}, "hyperparameters.batch_size", None, "'many'"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", None, "at most 512"),
    ({"extra_body": {"dialoop": {"method": {"kind": "lora", "rnk": 8}}}}, "dialoop", None, "'rank'"),
    ({"extra_body": {"dialoop": {"train": {"epochs": 2}}}, "hyperparameters": {"n_epochs": 2}},
     "dialoop", None, "train.epochs came beside n_epochs"),
    ({"extra_body": {"dialoop": {"train": {"max_length": 4096}}}}, "dialoop", None, "holds 256 tokens"),
    ({"extra_body": {"learning_rate": 1}}, "learning_rate", None, "unknown field"),
    ({"extra_body": {"dialoop": {"kind": "sort"}}}, "dialoop.kind", None, "'classify'"),
    ({"extra_body": {"dialoop": {"kind": "classify"}}, "method": {"type": "dpo"}}, "dialoop", None,
     "learns no preferences"),
    ({"extra_body": {"dialoop": {"kind": "classify", "crf": True}}}, "dialoop", None, "unknown key 'crf'"),
    ({"extra_body": {"dialoop": {"kind": "tag", "method": {"kind": "continue"}}}}, "dialoop", None,
     "take full or lora"),
    ({"extra_body": {"dialoop": {"method": {"kind": "continue"}}}}, "dialoop", None, "tiny is no adapter"),
    ({"extra_body": {"dialoop": {"objective": {"kind": "orpo"}}}}, "dialoop", None,
     "learns preferences: give method.type = 'dpo'"),
    ({"extra_body": {"dialoop": {"objective": {"kind": "distill", "teacher": "tiny"}}},
      "method": {"type": "dpo"}}, "dialoop", None, "learns conversations"),
    ({"extra_body": {"dialoop": {"objective": {"kind": "distill", "teacher": "/etc"}}}}, "model",
     "model_not_found", "served: tiny"),
    ({"extra_body": {"dialoop": {"objective": {"kind": "simpo", "gama": 1}}}, "method": {"type": "dpo"}},
     "dialoop", None, "'gamma'"),
    ({"extra_body": {"dialoop": {"objective": {"kind": "dpo", "loss": "ipo"}}},
      "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}}, "dialoop", None,
     "objective came beside beta"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_name(
    shop: Shop, fields: dict[str, Any], param: str, code: str | None, words: str
) -> None:
    try:
        refused: openai.APIStatusError = shop.refused(**fields)
    except openai.NotFoundError as missing:
        refused = missing
    assert (refused.param, refused.code) == (param, code)
    assert words in refused.message


def test_a_file_of_another_purpose_is_not_trained_on(shop: Shop) -> None:
    other = shop.client.files.create(file=("rows.jsonl", ROWS), purpose="user_data")
    assert "expected 'fine-tune'" in shop.refused(training_file=other.id).message


def test_jobs_are_listed_in_pages_and_by_metadata(shop: Shop) -> None:
    made = [shop.create(metadata={"run": "list", 'a"b': str(i)}).id for i in range(3)]
    jobs = shop.client.fine_tuning.jobs
    assert [job.id for job in jobs.list(limit=2, metadata={"run": "list"})] == made[::-1]
    assert [job.id for job in jobs.list(metadata={'a"b': "1"})] == [made[1]]
    assert jobs.list(limit=1, after=made[1], metadata={"run": "list"}).data[0].id == made[0]


def test_a_paused_job_is_told_as_queued_and_goes_on_where_it_was(shop: Shop) -> None:
    jobs = shop.client.fine_tuning.jobs
    job = shop.create()
    paused = jobs.pause(job.id)
    assert (paused.status, paused.model_extra["dialoop"]["status"]) == ("queued", "paused")
    with pytest.raises(openai.BadRequestError, match="that is paused cannot be paused"):
        jobs.pause(job.id)
    assert jobs.resume(job.id).status == "validating_files"
    assert jobs.cancel(job.id).status == "cancelled"
    for change in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="that is cancelled cannot be"):
            change(job.id)
    told = [event.message for event in jobs.list_events(job.id, limit=1)]
    assert told[:3] == ["The job was cancelled", "The job was resumed", "The job was paused"]


def test_events_stream_until_the_job_has_ended(shop: Shop) -> None:
    job = shop.create()
    path = f"/fine_tuning/jobs/{job.id}/events?stream=true"
    live = shop.client.get(
        path, cast_to=FineTuningJobEvent, stream=True, stream_cls=Stream[FineTuningJobEvent]
    )
    seen = [next(live).message]
    shop.store.jobs.change(job.id, ["validating_files"], [NewEvent("更多", data={"rows": 1})])
    seen.append(next(live).message)
    shop.client.fine_tuning.jobs.cancel(job.id)
    seen += [event.message for event in live]
    assert seen[1:] == ["更多", "The job was cancelled"]


def test_another_projects_jobs_are_as_if_they_did_not_exist(shop: Shop) -> None:
    from dialoop.store.database import writing
    from dialoop.store.tables import projects

    with writing(shop.store.engine).begin() as connection:
        connection.execute(projects.insert().values(id="proj-other", name="other", created=1))
    theirs = shop.store.of("proj-other").jobs.create(
        model="tiny", base=str(tiny_model()), training_file="f", validation_file=None, suffix=None, seed=0,
        method="supervised", settings={}, metadata=None, hyperparameters={"n_epochs": 1},
    )  # fmt: skip
    jobs = shop.client.fine_tuning.jobs
    assert theirs.id not in [job.id for job in jobs.list()]
    for ask in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            ask(theirs.id)


def test_a_model_is_its_projects_alone_and_goes_when_it_is_deleted(shop: Shop, tmp_path: Path) -> None:
    names = {}
    for project in (shop.store.project, "proj-other"):
        version = shop.store.of(project).models.register(
            "ft-shop", "full", tiny_model(), base=str(tiny_model()), alias=f"ft:tiny:{project}:shop:1"
        )
        names[project] = version.alias
        shop.models.offer(project, version)
    mine, theirs = names.values()
    client = shop.client
    assert [model.id for model in client.models.list()] == [mine, "tiny"]
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    assert client.chat.completions.create(model=mine, **chat).choices[0].message.content == "hello"
    for ask in (
        client.models.retrieve,
        client.models.delete,
        lambda name: client.chat.completions.create(model=name, **chat),
    ):
        with pytest.raises(openai.NotFoundError) as missing:
            ask(theirs)
        assert theirs not in missing.value.message.partition(";")[2]
    assert client.models.delete(mine).deleted
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(openai.PermissionDeniedError, match="only fine-tuned models"):
        client.models.delete("tiny")
