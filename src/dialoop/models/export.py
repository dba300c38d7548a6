"""Models as directories that other tools load: merged Hugging Face directories and native PEFT ones."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dialoop import __version__
from dialoop.errors import ModelError, echo
from dialoop.models.adapter_files import OWN_TYPES
from dialoop.models.load import check_adapter_config, check_config, load_model, refuse_unmergeable
from dialoop.models.vocabulary import tokenizer_folder
from dialoop.models.weights import check_adapter, check_weights, read_json
from dialoop.types import ModelRef

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
MERGED_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```

`vllm serve {folder}` and `dialoop serve {folder}` serve it."""
ADAPTER_USE = """```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
```

`dialoop serve {folder}` serves it. The base model's directory is named in `adapter_config.json`."""

OWN_USE = """`dialoop serve {folder}` serves it; peft has no such method. The base model's directory is named
in `adapter_config.json`."""


def export_merged(
    ref: ModelRef, out: Path, *, dtype: torch.dtype | None = None, card: Mapping[str, object] | None = None
) -> Path:
    """Write the model, its adapter folded in, as a Hugging Face directory that appears whole or not at all.

    The sum is made in fp32 and stored as `dtype` (None = the base's own). card: lines for the model card.
    Raises ModelError where `out` is not empty or the model cannot be merged.
    """
    stored = dtype or stored_dtype(ref.base)
    refuse_unmergeable(ref)
    with _appearing(out) as folder:
        model: Any = load_model(ref, dtype=torch.float32, device="cpu", merge=True)
        model.to(stored).save_pretrained(folder)
        copied = _copy_tokenizer(ref, folder)
        made = {"merged": Path(ref.name).name, "stored as": str(stored).removeprefix("torch.")}
        facts = {**made, **_adapter_facts(ref), **(card or {})}
        _write_card(folder, out, facts, MERGED_USE, _licence(ref.base))
        check_weights(folder)
        if "tokenizer.json" not in copied:
            raise ModelError(f"{ref.base}: holds no tokenizer.json: copy the tokenizer beside the weights")
    return out


def export_adapter(ref: ModelRef, out: Path, *, card: Mapping[str, object] | None = None) -> Path:
    """Copy the PEFT directory, its base's present path written in. Raises ModelError for a whole model."""
    if ref.adapter is None:
        raise ModelError(f"{echo(ref.name)} is a whole model, not an adapter: export it with --as merged")
    config = check_adapter_config(ref.adapter)
    weights = check_adapter(ref.adapter)
    with _appearing(out) as folder:
        shutil.copyfile(weights, folder / weights.name)
        config["base_model_name_or_path"] = str(ref.base)
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (ref.adapter / name).is_file():
                shutil.copyfile(ref.adapter / name, folder / name)
        facts = {"adapter": Path(ref.name).name, **_adapter_facts(ref)}
        use = OWN_USE if config["peft_type"] in OWN_TYPES else ADAPTER_USE
        _write_card(folder, out, {**facts, **(card or {})}, use, _licence(ref.base))
    return out


def stored_dtype(folder: Path) -> torch.dtype:
    """The floating type that config.json states; fp32 where it states none."""
    config = check_config(folder)
    name = config.get("dtype") or config.get("torch_dtype")
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name is not None and name not in known:
        raise ModelError(f"{folder}: dtype {echo(name)} cannot be written: use one of {', '.join(known)}")
    return known.get(str(name), torch.float32)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A directory beside `out` that becomes `out` if all goes well and vanishes if not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out}: exists and is not empty: choose another directory or remove it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            yield folder
            folder.chmod(0o755)
            _flush(folder)
            os.replace(folder, out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"{out}: cannot be written: {error.strerror or error}: free space or choose another directory"
        ) from error


def _flush(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy_tokenizer(ref: ModelRef, folder: Path) -> tuple[str, ...]:
    source = tokenizer_folder(ref)
    held = tuple(name for name in TOKENIZER_FILES if (source / name).is_file())
    for name in held:
        shutil.copyfile(source / name, folder / name)
    return held


def _adapter_facts(ref: ModelRef) -> dict[str, object]:
    if ref.adapter is None:
        return {}
    config = read_json(ref.adapter / "adapter_config.json")
    facts = {"method": config.get("peft_type"), "rank": config.get("r"), "alpha": config.get("lora_alpha")}
    return {name: value for name, value in facts.items() if value is not None}


def _licence(folder: Path) -> str | None:
    """The licence in the base's model card, which what is made from it must not lose."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[1:40]:
        if line.startswith("---"):
            return None
        if line.startswith("license:"):
            return line.removeprefix("license:").strip()
    return None


def _write_card(folder: Path, out: Path, facts: Mapping[str, object], use: str, licence: str | None) -> None:
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    front += [f"license: {licence}"] if licence else []
    rows = "\n".join(
        f"| {name} | {value} |" for name, value in {**facts, "made by": f"dialoop {__version__}"}.items()
    )
    text = "\n".join([*front, "---", f"# {out.name}", "", "| what | value |", "|---|---|", rows, ""])
    (folder / "README.md").write_text(f"{text}\n{use.format(folder=out)}\n", encoding="utf-8")
