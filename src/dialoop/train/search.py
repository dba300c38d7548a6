"""A search over recipes: trials drawn under a lock, trained by the one loop, stopped where others do better.

The values of trial n are drawn from (seed, n) and the trials before it, so that one worker's search is the
same at every call, resumed or not.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from dialoop.config import Choice, IntRange, SearchSettings, TuneRecipe, Varied, validate, with_values
from dialoop.config.explaining import explain
from dialoop.errors import ConfigError, DialoopError, TrainError, echo
from dialoop.store.database import exclusive
from dialoop.train.loop import Progress, read_journal
from dialoop.train.peak import forget_peak, peak_bytes
from dialoop.train.tune import Items, Tuned, tune
from dialoop.types import ModelRef

NAME = "search"
FIXED = ("kind", "name", "search", "eval", "tracking")
"""Tables and fields that no trial changes."""
NO_NUMBER = "validation gave no finite loss: lower the learning rate"
Outcome = Literal["completed", "stopped", "failed"]
_OUTCOMES: dict[TrialState, Outcome] = {
    TrialState.COMPLETE: "completed", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial that has ended. values: by dotted field; loss: the best validation, None where none was.

    curve: (validation, loss); memory: bytes at most, of the process or the device; error: why it failed.
    """

    number: int
    outcome: Outcome
    values: Mapping[str, Any]
    loss: float | None
    curve: tuple[tuple[int, float], ...]
    seconds: float
    trained: int = 0
    weights: int = 0
    memory: int = 0
    tokens: int = 0
    error: str = ""


class Stopped(Exception):  # noqa: N818
    """Leaves the loop of a trial that others are better than."""


class Search:
    """The trials of one recipe in `folder`, shared by all processes that open it."""

    def __init__(self, recipe: TuneRecipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.settings = recipe.search or SearchSettings()
        check_space(self.settings)
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with exclusive(folder / ".asking"):
            _same_search(recipe, folder)
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / 'study.sqlite3'}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self.study = optuna.create_study(
                storage=self._storage, study_name=NAME, direction="minimize", load_if_exists=True,
                pruner=_pruner(self.settings),
            )  # fmt: skip

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *exc: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def ended(self) -> list[Tried]:
        """Trials that have ended, in order; those that a fallen process left are not among them."""
        return [tried(trial) for trial in self.study.get_trials(deepcopy=False) if _counts(trial)]

    def best(self) -> Tried | None:
        """The trial of the lowest validation loss among those that were not stopped."""
        whole = [each for each in self.ended() if each.outcome == "completed" and each.loss is not None]
        return min(whole, key=lambda each: (each.loss, each.number), default=None)

    def spent(self) -> bool:
        """Whether the budget is used up."""
        trials = self.study.get_trials(deepcopy=False)
        begun = sum(_counts(trial) or trial.state == TrialState.RUNNING for trial in trials)
        minutes = sum(_seconds(trial) for trial in trials if _counts(trial)) / 60
        limit = self.settings.minutes
        return begun >= self.settings.trials or (limit is not None and minutes >= limit)

    def take_up(self) -> int:
        """Put the trials that fallen or interrupted processes left back into the queue; how many.

        Only while no other process works here.
        """
        left = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            self.study.tell(trial.number, state=TrialState.FAIL)
            place = {key: value for key, value in trial.user_attrs.items() if key == "place"}
            self.study.enqueue_trial(dict(trial.params), place)
        return len(left)

    def line_up(self, lineup: Sequence[Mapping[str, Any]]) -> None:
        """Values of the first trials, where there is none yet."""
        for values in () if self.study.get_trials(deepcopy=False) else lineup:
            self.study.enqueue_trial({path: _label(value) for path, value in values.items()})

    def ask(self) -> optuna.Trial | None:
        """The next trial with its values drawn; None where the budget is used up.

        Raises ConfigError where the values do not go together.
        """
        with exclusive(self.folder / ".asking"):
            if self.spent():
                return None
            number = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = _sampler(self.settings, number)
            trial = self.study.ask()
            values = draw(trial, self.settings.space)
            trial.set_user_attr("place", trial.user_attrs.get("place", f"{trial.number:04d}"))
            trial.set_user_attr("values", values)
            try:
                self.recipe_of(values)
            except ConfigError as error:
                self._failed(trial, str(error))
                raise
            return trial

    def recipe_of(self, values: Mapping[str, Any]) -> TuneRecipe:
        """The recipe with `values`. Raises ConfigError where they do not go together."""
        table = self.recipe.model_dump(mode="json", exclude_unset=True, exclude={"search"})
        shown = ", ".join(f"{path} = {echo(value)}" for path, value in values.items())
        return validate(TuneRecipe, with_values(table, values), f"{self.recipe.name} with {shown}")

    def run(
        self,
        trial: optuna.Trial,
        base: ModelRef,
        items: Items,
        valid: Items,
        teacher: ModelRef | None = None,
    ) -> Tried | None:
        """Train one trial and tell the study; None where it was interrupted and can be taken up again."""
        folder = self.folder / "trials" / trial.user_attrs["place"]
        recipe = self.recipe_of(trial.user_attrs["values"])
        many = {"validations": self.settings.validations}
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=many)})
        forget_peak()
        try:
            tuned = tune(
                recipe, base, items, valid, folder, teacher=teacher, on_progress=self._watch(trial, folder)
            )
        except Stopped:
            told = self.study.tell(trial, state=TrialState.PRUNED)
        except DialoopError as error:
            told = self._failed(trial, str(error).replace(f"{self.folder}/", ""))
        else:
            if tuned.artefact is None:
                return None
            told = self._completed(trial, tuned)
        _clear(folder)
        return tried(told)

    def _completed(self, trial: optuna.Trial, tuned: Tuned) -> FrozenTrial:
        for key, value in {
            "trained": tuned.trained, "weights": tuned.weights, "memory": peak_bytes(),
            "tokens": tuned.result.tokens, "trained_for": tuned.result.seconds,
        }.items():  # fmt: skip
            trial.set_user_attr(key, value)
        loss = tuned.result.best_loss
        if loss is None or not math.isfinite(loss):
            return self._failed(trial, NO_NUMBER)
        return self.study.tell(trial, loss)

    def _failed(self, trial: optuna.Trial, why: str) -> FrozenTrial:
        trial.set_user_attr("error", why)
        return self.study.tell(trial, state=TrialState.FAIL)

    def _watch(self, trial: optuna.Trial, folder: Path) -> Callable[[Progress], None]:
        """Reports validations, those that an earlier process made too, and leaves where it is time."""
        reported: set[int] = set()

        def report(step: int, steps: int, loss: float) -> None:
            rung = -(-step // -(-steps // self.settings.validations))
            if rung not in reported:
                reported.add(rung)
                trial.report(loss, rung)

        for row in read_journal(folder / "metrics.jsonl"):
            if row["valid_loss"] is not None and math.isfinite(row["valid_loss"]):
                report(row["step"], row["steps"], row["valid_loss"])

        def watch(progress: Progress) -> None:
            if progress.valid_loss is None:
                return
            if not math.isfinite(progress.valid_loss):
                raise TrainError(f"update {progress.step}: {NO_NUMBER}")
            report(progress.step, progress.steps, progress.valid_loss)
            if progress.step < progress.steps and trial.should_prune():
                raise Stopped

        return watch


def _same_search(recipe: TuneRecipe, folder: Path) -> None:
    """A directory belongs to one recipe and space; the budget may change."""
    path = folder / "search.json"
    mine = recipe.model_dump(mode="json", exclude={"eval", "tracking", "search"})
    mine["space"] = (recipe.search or SearchSettings()).model_dump(mode="json", include={"space"})["space"]
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != mine:
        raise TrainError(
            f"{folder} holds a search of another recipe or space: choose another --run, or remove it"
        )
    path.write_text(json.dumps(mine, indent=1, ensure_ascii=False), encoding="utf-8")


def check_space(settings: SearchSettings) -> None:
    """Raises ConfigError for a path that is no field of a recipe, or one that no trial may change."""
    for path in settings.space:
        next(explain(TuneRecipe, path))
        if path.split(".")[0] in FIXED:
            raise ConfigError(f"search.space: {path!r} is the same in every trial: leave it out")


def draw(trial: optuna.Trial, space: Mapping[str, Varied]) -> dict[str, Any]:
    """A value for each field whose conditions hold."""
    values: dict[str, Any] = {}
    for path, varied in space.items():
        if all(path_ in values and values[path_] == wanted for path_, wanted in varied.when.items()):
            values[path] = _one(trial, path, varied)
    return values


def _one(trial: optuna.Trial, path: str, varied: Varied) -> Any:
    if isinstance(varied, Choice):
        named = {_label(value): value for value in varied.of}
        return named[trial.suggest_categorical(path, list(named))]
    if isinstance(varied, IntRange):
        return trial.suggest_int(path, varied.low, varied.high, step=varied.step, log=varied.log)
    return trial.suggest_float(path, varied.low, varied.high, log=varied.log)


def _label(value: Any) -> Any:
    """What stands for a value in the study: itself, or its JSON where it is a table or list."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _sampler(settings: SearchSettings, number: int) -> optuna.samplers.BaseSampler:
    seed = (settings.seed * 1_000_003 + number) % 2**32
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.startup)


def _pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    match settings.pruner:
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=settings.startup)
        case "none":
            return optuna.pruners.NopPruner()


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial has ended by itself."""
    fell = trial.state == TrialState.FAIL and "error" not in trial.user_attrs
    return trial.state in _OUTCOMES and not fell


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration is not None else 0.0


def tried(trial: FrozenTrial) -> Tried:
    """What a trial of the study came to."""
    kept = trial.user_attrs
    curve = tuple(sorted(trial.intermediate_values.items()))
    seen = [loss for _, loss in curve if math.isfinite(loss)]
    return Tried(
        trial.number, _OUTCOMES[trial.state], kept.get("values", trial.params),
        trial.value if trial.state == TrialState.COMPLETE else min(seen, default=None), curve,
        kept.get("trained_for", _seconds(trial)), kept.get("trained", 0), kept.get("weights", 0),
        kept.get("memory", 0), kept.get("tokens", 0), kept.get("error", ""),
    )  # fmt: skip


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of each field in how good a trial is, the greatest first (PED-ANOVA, Watanabe et al. 2023,
    arXiv:2304.10255); empty for fewer than 4 whole trials.
    """
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(whole) < 4 or len({trial.value for trial in whole}) < 2:
        return {}
    with warnings.catch_warnings():  # few trials of a conditional field are warned of: the report shows them
        warnings.simplefilter("ignore", UserWarning)
        return dict(optuna.importance.get_param_importances(study))


def _clear(folder: Path) -> None:
    """Of a trial that has ended only its journal and recipe stay; its values make the model again."""
    for name in ("checkpoints", "artefact"):
        shutil.rmtree(folder / name, ignore_errors=True)
