"""Frozen settings that refuse strangers, and recipes: TOML files that fill them.

A recipe is one job: `kind = "tune"` or `kind = "pretrain"` and the tables below. Any field can be
overridden with `--set table.field=value`, the value written as in TOML.
"""

from dialoop.config.methods import (
    AddingMethod,
    BasePrecision,
    BitFitMethod,
    BottleneckMethod,
    FreezeMethod,
    FullMethod,
    IA3Method,
    LoraMethod,
    MethodSettings,
    Placement,
    PrefixMethod,
    PromptInit,
    PromptMethod,
    PTuningV2Method,
)
from dialoop.config.mixing import MixSettings
from dialoop.config.reading import apply_override, expand, load_recipe, validate
from dialoop.config.recipes import (
    ArchitectureSettings,
    CleanSettings,
    CleanStep,
    DataFormat,
    DataSettings,
    EvalSettings,
    MaskKind,
    OptimSettings,
    PretrainRecipe,
    Recipe,
    RegularisationSettings,
    SplitSettings,
    Stage,
    TextSource,
    TokenizerSettings,
    TrainSettings,
    TuneRecipe,
)
from dialoop.config.search import Choice, FloatRange, IntRange, SearchSettings, Varied, with_values
from dialoop.config.settings import Settings
from dialoop.config.tracking import Service, TrackingSettings

__all__ = [
    "AddingMethod", "ArchitectureSettings", "BasePrecision", "BitFitMethod", "BottleneckMethod", "Choice",
    "CleanSettings", "CleanStep", "DataFormat", "DataSettings", "EvalSettings", "FloatRange",
    "FreezeMethod", "FullMethod", "IA3Method", "IntRange", "LoraMethod", "MaskKind", "MethodSettings",
    "MixSettings", "OptimSettings", "PTuningV2Method", "Placement", "PrefixMethod", "PretrainRecipe",
    "PromptInit", "PromptMethod", "Recipe", "RegularisationSettings", "SearchSettings", "Service",
    "Settings", "SplitSettings", "Stage", "TextSource", "TokenizerSettings", "TrackingSettings",
    "TrainSettings", "TuneRecipe", "Varied", "apply_override", "expand", "load_recipe", "validate",
    "with_values",
]  # fmt: skip
