"""The store of a home: open it, then use its `runs`, `models`, `files` and so on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa

from dialoop.store.batches import Batches
from dialoop.store.database import open_database
from dialoop.store.evals import Evals
from dialoop.store.files import Files
from dialoop.store.fine_tuning import Jobs
from dialoop.store.keys import KeyBook, Keys
from dialoop.store.models import Models, ModelVersion
from dialoop.store.moderation import ModerationDecisions
from dialoop.store.projects import Projects
from dialoop.store.prompts import Prompts
from dialoop.store.ratings import Ratings
from dialoop.store.records import Reports, Runs
from dialoop.store.replies import Replies
from dialoop.store.responses import Responses
from dialoop.store.stored import StoredCompletions
from dialoop.store.uploads import Uploads
from dialoop.types import ModelRef

__all__ = ["ModelRef", "ModelVersion", "Store"]


@dataclass(frozen=True, slots=True)
class Store:
    """What a home directory holds, for one project: its default one when it is opened.

    Safe for threads and processes.
    """

    home: Path
    default: str
    project: str
    engine: sa.Engine
    runs: Runs
    models: Models
    reports: Reports
    files: Files
    uploads: Uploads
    stored: StoredCompletions
    batches: Batches
    jobs: Jobs
    evals: Evals

    @classmethod
    def open(cls, home: Path) -> Store:
        """The store of `home`, made or migrated if needed. Raises StoreError for a damaged or emptied one."""
        home = home.expanduser().resolve()
        engine, project = open_database(home)
        store = cls(
            home, project, project, engine, Runs(engine, project), Models(engine, project, home),
            Reports(engine, project, home), Files(engine, project, home), Uploads(engine, project, home),
            StoredCompletions(engine, project), Batches(engine, project, home), Jobs(engine, project),
            Evals(engine, project),
        )  # fmt: skip
        for each in store.projects.names():
            store.of(each).models.tidy()
        return store

    @property
    def moderation(self) -> ModerationDecisions:
        """What the moderation filter decided for the project."""
        return ModerationDecisions(self.engine, self.project)

    @property
    def projects(self) -> Projects:
        """All projects."""
        return Projects(self.engine)

    @property
    def keys(self) -> Keys:
        """The project's API keys."""
        return Keys(self.engine, self.project)

    @property
    def key_book(self) -> KeyBook:
        """The API keys of all projects."""
        return KeyBook(self.engine)

    @property
    def prompts(self) -> Prompts:
        """The project's prompt templates, and the shipped ones."""
        return Prompts(self.engine, self.project)

    @property
    def ratings(self) -> Ratings:
        """What the project's users thought of answers."""
        return Ratings(self.engine, self.project)

    @property
    def replies(self) -> Replies:
        """The project's answers that are kept for a second asking."""
        return Replies(self.engine, self.project)

    @property
    def responses(self) -> Responses:
        """The project's responses that are kept to be gone on from."""
        return Responses(self.engine, self.project)

    def of(self, project: str) -> Store:
        """The same store, for another project."""
        folder = "models" if project == self.default else f"projects/{project}/models"
        return replace(
            self, project=project, runs=replace(self.runs, project=project),
            models=replace(self.models, project=project, folder=folder),
            reports=replace(self.reports, project=project), files=replace(self.files, project=project),
            uploads=replace(self.uploads, project=project), stored=replace(self.stored, project=project),
            batches=replace(self.batches, project=project), jobs=replace(self.jobs, project=project),
            evals=replace(self.evals, project=project),
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the database file."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
