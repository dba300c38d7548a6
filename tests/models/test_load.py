"""Loading: safetensors alone, checked before anything is allocated."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dialoop.errors import ConfigError, ModelError
from dialoop.models.load import default_device, default_dtype, load_model
from dialoop.models.weights import check_file
from dialoop.types import ModelRef
from tests.tiny import tiny_model

IDS = torch.tensor([[5, 9, 300, 17, 44, 21]])


def logits(ref: ModelRef, **choices: object) -> torch.Tensor:
    with torch.no_grad():
        return load_model(ref, dtype=torch.float32, device="cpu", **choices)(IDS).logits  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(copytree(tiny_model(), tmp_path / "model"))


def test_a_model_is_loaded_in_eval_mode_on_the_device_and_in_the_dtype_asked_for() -> None:
    model = load_model(ModelRef("tiny", tiny_model()), dtype=torch.bfloat16, device="cpu")
    assert not model.training
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.bfloat16, "cpu")}


def test_the_defaults_are_what_the_machine_computes_natively() -> None:
    model = load_model(ModelRef("tiny", tiny_model()))
    parameter = next(model.parameters())
    assert (parameter.dtype, parameter.device.type) == (default_dtype(), default_device())
    assert default_dtype("cuda:0") is torch.bfloat16


def test_an_adapter_changes_the_answers_and_merging_it_does_not(tuned: ModelRef) -> None:
    plain, attached, merged = logits(ModelRef("tiny", tiny_model())), logits(tuned), logits(tuned, merge=True)
    assert (plain - attached).abs().max() > 0.1
    torch.testing.assert_close(merged, attached, atol=1e-4, rtol=1e-4)


def test_loading_a_merged_adapter_leaves_a_plain_model(tuned: ModelRef) -> None:
    names = set(load_model(tuned, merge=True).state_dict())
    assert names == set(load_model(ModelRef("tiny", tiny_model())).state_dict())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def shard(folder: Path, moved: str, name: str) -> None:
    """Split the weights in two, the index saying that tensor `moved` lies in file `name`."""
    tensors = load_file(folder / "model.safetensors")
    first = dict(list(tensors.items())[:5])
    save_file(first, folder / "a.safetensors")
    save_file({k: v for k, v in tensors.items() if k not in first}, folder / "b.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {k: "a.safetensors" if k in first else "b.safetensors" for k in tensors} | {moved: name}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop(path: Path, tensor: str) -> None:
    save_file({k: v for k, v in load_file(path).items() if k != tensor}, path, metadata={"format": "pt"})


NORM = "model.norm.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda f: cut(f / "model.safetensors"), r"model\.safetensors: tensor 'model\..*cut short"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "do not start with a safetensors header"),
    "absent": (lambda f: (f / "model.safetensors").unlink(), r"holds no model\.safetensors"),
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "is a pickle"),
    "missing shard": (lambda f: shard(f, NORM, "c.safetensors"), r"c\.safetensors: the shard is missing"),
    "wrong shard": (lambda f: shard(f, NORM, "a.safetensors"), f"a.safetensors: holds no tensor '{NORM}'"),
    "outside": (lambda f: shard(f, NORM, "../b.safetensors"), f"tensor '{NORM}' lies in '../b.safetensors'"),
    "missing tensor": (
        lambda f: drop(f / "model.safetensors", NORM),
        f"1 tensors are missing, such as {NORM}",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), r"holds no config\.json"),
    "config no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json: cannot be read as JSON",
    ),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), r"expected a JSON object"),
    "unknown": (lambda f: edit(f / "config.json", model_type="qwen9"), "'qwen9' is no causal language model"),
    "no type": (lambda f: edit(f / "config.json", model_type=["x"]), "a list of 1 items is no causal"),
    "own code": (
        lambda f: edit(f / "config.json", model_type="mine", auto_map={"AutoModel": "m.M"}),
        "never does",
    ),
    "encoder": (
        lambda f: edit(f / "config.json", architectures=["Qwen3Model"]),
        "'Qwen3Model', expected Qwen3For",
    ),
    "other shape": (lambda f: edit(f / "config.json", hidden_size=32), "transformers cannot load it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_refused_naming_what_is_wrong(folder: Path, case: str) -> None:
    damage, message = BROKEN[case]
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load_model(ModelRef("broken", folder))


def test_a_sharded_model_is_the_same_model(folder: Path) -> None:
    shard(folder, NORM, "b.safetensors")
    assert torch.equal(logits(ModelRef("sharded", folder)), logits(ModelRef("tiny", tiny_model())))


def test_code_in_a_model_directory_is_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert type(load_model(ModelRef("odd", folder))).__module__.startswith("transformers.")


def key(path: Path) -> str:
    return next(iter(load_file(path)))


BROKEN_ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (
        lambda f: cut(f / "adapter_model.safetensors"),
        r"adapter_model\.safetensors: tensor .*cut short",
    ),
    "pickle": (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "is a pickle"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), r"holds no adapter_config\.json"),
    "other method": (
        lambda f: edit(f / "adapter_config.json", peft_type="MAGIC"),
        "'MAGIC' is unknown to peft",
    ),
    "other rank": (lambda f: edit(f / "adapter_config.json", r=8), "does not fit its base"),
    "missing tensor": (
        lambda f: drop(f / "adapter_model.safetensors", key(f / "adapter_model.safetensors")),
        "tensor base_model.* is missing",
    ),
    "left-over tensor": (
        lambda f: edit(f / "adapter_config.json", target_modules=["q_proj"]),
        "has no place in the model",
    ),
}


@pytest.mark.parametrize("case", BROKEN_ADAPTERS)
def test_a_broken_adapter_is_refused_naming_what_is_wrong(tuned: ModelRef, case: str) -> None:
    damage, message = BROKEN_ADAPTERS[case]
    assert tuned.adapter is not None
    damage(tuned.adapter)
    with pytest.raises(ModelError, match=message):
        load_model(tuned)


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_bytes_are_a_safetensors_file_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, length: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(struct.pack("<Q", len(data) if length is None else length) + data)
    try:
        check_file(path)
        refused = ""
    except ModelError as error:
        refused = str(error)
    # What passes must be a file to the reference too, such as one without tensors.
    assert re.search(r"copy|header", refused) if refused else not list(safe_open(path, "np").keys())


@given(st.lists(st.tuples(st.integers(-5, 40), st.integers(-5, 40)), max_size=4), st.integers(0, 40))
def test_tensors_must_fill_the_file_exactly(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "spans.safetensors"
    entries = {
        f"t{i}": {"dtype": "U8", "shape": [b - a], "data_offsets": [a, b]} for i, (a, b) in enumerate(spans)
    }
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    covered = sorted(byte for a, b in spans for byte in range(a, b))
    if covered == list(range(size)) and all(0 <= a <= b <= size for a, b in spans):
        assert set(check_file(path)) == set(entries)
    else:
        with pytest.raises(ModelError):
            check_file(path)


def test_the_device_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALOOP_DEVICE", "cpu")
    assert default_device() == "cpu"
    for absent in ("gpu", "cuda:99", "cuda:x", "cpu:1"):
        monkeypatch.setenv("DIALOOP_DEVICE", absent)
        with pytest.raises(ConfigError, match=f"DIALOOP_DEVICE is '{absent}'.*wanted: cpu, cuda"):
            default_device()
