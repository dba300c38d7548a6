"""Frozen settings that refuse strangers, and recipes: TOML files that fill them.

A recipe is one job: its `kind`, such as `tune`, `classify` or `pretrain`, and the tables below. Any field
can be overridden with `--set table.field=value`, the value written as in TOML.
"""

from dialoop.config.gate import CostRule, GainRule, GatePolicy, KeepRule
from dialoop.config.methods import (
    AddingMethod,
    BasePrecision,
    BitFitMethod,
    BottleneckMethod,
    ContinueMethod,
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
from dialoop.config.objectives import (
    DistillObjective,
    DpoObjective,
    ObjectiveSettings,
    OrpoObjective,
    PreferenceObjective,
    SftObjective,
    SimpoObjective,
)
from dialoop.config.reading import apply_override, expand, load_any, load_recipe, validate
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
    "CleanSettings", "CleanStep", "ContinueMethod", "CostRule", "DataFormat", "DataSettings",
    "DistillObjective", "DpoObjective", "EvalSettings", "FloatRange", "FreezeMethod", "FullMethod",
    "GainRule", "GatePolicy",
    "IA3Method", "IntRange", "KeepRule", "LoraMethod", "MaskKind", "MethodSettings", "MixSettings",
    "ObjectiveSettings", "OptimSettings", "OrpoObjective", "PTuningV2Method", "Placement",
    "PreferenceObjective", "PrefixMethod", "PretrainRecipe", "PromptInit", "PromptMethod", "Recipe",
    "RegularisationSettings", "SearchSettings", "Service", "Settings", "SftObjective", "SimpoObjective",
    "SplitSettings", "Stage", "TextSource", "TokenizerSettings", "TrackingSettings", "TrainSettings",
    "TuneRecipe", "Varied", "apply_override", "expand", "load_any", "load_recipe", "validate",
    "with_values",
]  # fmt: skip
