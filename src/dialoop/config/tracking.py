"""Where the course of training is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dialoop.config.settings import Settings

Service = Literal["tensorboard", "mlflow", "wandb"]


class TrackingSettings(Settings):
    """Services that get losses and rates; each is an extra of the same name, as in `dialoop[mlflow]`."""

    to: tuple[Service, ...] = ()
    """Which of them. TensorBoard's files lie in the run directory; W&B goes by its own `WANDB_` variables."""
    project: str = Field("dialoop", min_length=1)
    """Project of W&B, experiment of MLflow."""
    uri: str | None = None
    """Address of MLflow's server or store; None = as `MLFLOW_TRACKING_URI` says, else a file in the run
    directory."""
    every: int = Field(1, ge=1)
    """Updates between two points; validations are always told."""
