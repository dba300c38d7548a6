"""Model versions: numbered, whole or absent, with their lineage."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import pytest

from dialoop.errors import StoreError
from dialoop.store.registry import ModelRef, Store
from tests.tiny import tiny_model


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def adapter(folder: Path, base: str = "shop@1") -> Path:
    folder.mkdir()
    described = {"peft_type": "LORA", "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name
    )


def test_a_version_remembers_where_it_came_from(store: Store) -> None:
    run = store.runs.start("tune", {}, {})
    made = store.models.register(
        "shop",
        "full",
        tiny_model(),
        base=str(tiny_model()),
        data_hash="ab12",
        recipe={"name": "shop"},
        metrics={"bleu": 20.5},
        run_id=run.id,
    )
    assert store.models.get("shop@1") == made
    assert (made.ref, made.base, made.data_hash, made.run_id) == ("shop@1", str(tiny_model()), "ab12", run.id)
    assert (made.recipe, made.metrics, made.state) == ({"name": "shop"}, {"bleu": 20.5}, "ready")
    weights = (made.path / "model.safetensors").read_bytes()
    assert made.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert set(made.files) == set(files_below(tiny_model())) == set(files_below(made.path))


def test_versions_count_up_and_the_plain_name_is_the_newest(store: Store, tmp_path: Path) -> None:
    for _ in range(3):
        newest = store.models.register("shop", "full", tiny_model())
    assert (newest.version, store.models.get("shop"), store.models.get("shop@2").version) == (3, newest, 2)
    assert [v.ref for v in store.models.list()] == ["shop@3", "shop@2", "shop@1"]


def test_versions_registered_at_once_get_different_numbers(store: Store) -> None:
    def register(_: int) -> int:
        with Store.open(store.home) as mine:
            return mine.models.register("shop", "full", tiny_model()).version

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(register, range(8))) == list(range(1, 9))


def test_an_unknown_name_names_the_nearest(store: Store) -> None:
    store.models.register("shop-en", "full", tiny_model())
    with pytest.raises(StoreError, match="did you mean 'shop-en'"):
        store.models.get("shop-cn")
    with pytest.raises(StoreError, match="did you mean 'shop-en@1'"):
        store.models.get("shop-en@7")
    with pytest.raises(StoreError, match="did you mean 'dialoop-base'"):
        store.models.resolve("dialoop-bas")


@pytest.mark.parametrize("name", ["", "Shop", "a/b", "..", ".staging", "shop@1", "商店", "a" * 64])
def test_a_name_that_could_be_a_path_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a model"):
        store.models.register(name, "full", tiny_model())


@pytest.mark.parametrize("name", ["shop@", "shop@x", "shop@-1", "shop@1@2", "shop@二"])
def test_a_version_that_is_no_number_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="write name@3"):
        store.models.get(name)


def test_a_removed_version_is_gone_and_its_number_is_not_used_again(store: Store) -> None:
    for _ in range(2):
        made = store.models.register("shop", "full", tiny_model())
    store.models.remove("shop@2")
    assert (made.path.exists(), store.models.get("shop").version) == (False, 1)
    assert store.models.register("shop", "full", tiny_model()).version == 3


def test_a_version_that_others_are_based_on_is_not_removed(store: Store, tmp_path: Path) -> None:
    store.models.register("shop", "full", tiny_model())
    store.models.register("shop-zh", "lora", adapter(tmp_path / "a"), base="shop")
    with pytest.raises(StoreError, match="base of shop-zh@1: remove these first"):
        store.models.remove("shop@1")
    store.models.remove("shop-zh@1")
    store.models.remove("shop@1")
    assert store.models.list() == ()


def test_removing_wants_a_version(store: Store) -> None:
    store.models.register("shop", "full", tiny_model())
    with pytest.raises(StoreError, match="such as shop@1"):
        store.models.remove("shop")


def test_an_adapter_resolves_to_the_version_that_it_was_trained_on(store: Store, tmp_path: Path) -> None:
    base = store.models.register("shop", "full", tiny_model())
    tuned = store.models.register("shop-zh", "lora", adapter(tmp_path / "a"), base="shop")
    store.models.register("shop", "full", tiny_model())
    assert tuned.base == "shop@1"
    assert store.models.resolve("shop-zh") == ModelRef("shop-zh@1", base.path, tuned.path)
    assert store.models.lineage("shop-zh") == (tuned, base)


def test_an_adapter_that_was_trained_on_is_removed_and_what_came_of_it_stays(
    store: Store, tmp_path: Path
) -> None:
    base = store.models.register("shop", "full", tiny_model())
    one = store.models.register("desk", "lora", adapter(tmp_path / "a"), base="shop")
    for folder in ("b", "c"):
        store.models.register("desk", "lora", adapter(tmp_path / folder), base="desk", continues=True)
    gone = [store.models.remove(f"desk@{version}") for version in (1, 2)]
    assert gone[0].path == one.path
    assert not one.path.exists()
    last = store.models.get("desk")
    assert store.models.resolve("desk") == ModelRef("desk@3", base.path, last.path)
    assert store.models.lineage("desk") == (last, *reversed(gone), base)
    with pytest.raises(StoreError, match="shop@1 is the base of desk@3: remove these first"):
        store.models.remove("shop@1")
    store.models.remove("desk@3")
    store.models.remove("shop@1")


def test_a_whole_model_that_another_was_made_from_is_removed(store: Store) -> None:
    for base in (None, "shop@1"):
        store.models.register("shop", "full", tiny_model(), base=base)
    store.models.remove("shop@1")
    assert [getattr(each, "ref", each) for each in store.models.lineage("shop")] == ["shop@2", "shop@1"]
    assert store.models.resolve("shop").base == store.models.get("shop@2").path


def test_an_adapter_on_an_adapter_is_refused(store: Store, tmp_path: Path) -> None:
    store.models.register("shop", "full", tiny_model())
    store.models.register("shop-zh", "lora", adapter(tmp_path / "a"), base="shop")
    with pytest.raises(StoreError, match="itself an adapter"):
        store.models.register("shop-zh", "lora", adapter(tmp_path / "b"), base="shop-zh")


def test_an_adapter_that_names_itself_as_its_base_is_refused(store: Store, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", base=str(tmp_path / "a"))
    with pytest.raises(StoreError, match="itself an adapter"):
        store.models.resolve(str(folder))


def test_directories_resolve_by_path(store: Store, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", base=str(tiny_model()))
    assert store.models.resolve(str(tiny_model())) == ModelRef(str(tiny_model()), tiny_model())
    assert store.models.resolve(str(folder)) == ModelRef(str(folder), tiny_model(), folder)


def test_a_directory_without_a_tokenizer_is_no_model(store: Store, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StoreError, match=r"no tokenizer\.json"):
        store.models.resolve(str(tmp_path))


@pytest.mark.parametrize("text", ["[]", "{}", '{"base_model_name_or_path": 3}', "{"])
def test_an_adapter_that_does_not_name_its_base_is_refused(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(StoreError, match="base_model_name_or_path"):
        store.models.resolve(str(tmp_path))


def test_a_changed_chat_template_is_refused(store: Store) -> None:
    made = store.models.register("shop", "full", tiny_model())
    assert store.models.resolve("shop") == ModelRef("shop@1", made.path)
    (made.path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(StoreError, match="chat template of shop@1 changed"):
        store.models.resolve("shop")


def test_a_changed_template_below_an_adapter_is_refused(store: Store, tmp_path: Path) -> None:
    base = Path(copytree(tiny_model(), tmp_path / "base"))
    store.models.register("shop", "lora", adapter(tmp_path / "a"), base=str(base))
    store.models.resolve("shop")
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(StoreError, match="chat template of shop@1 changed"):
        store.models.resolve("shop")


def test_changed_and_missing_files_are_found(store: Store) -> None:
    made = store.models.register("shop", "full", tiny_model())
    assert store.models.verify("shop") == ()
    (made.path / "config.json").write_text("{}")
    (made.path / "model.safetensors").unlink()
    assert set(store.models.verify("shop")) == {"config.json", "model.safetensors"}
    with pytest.raises(StoreError, match=r"model\.safetensors of shop@1 is missing"):
        store.models.resolve("shop")


@pytest.mark.parametrize("source", ["absent", "empty"])
def test_nothing_to_register_is_refused(store: Store, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="give the directory"):
        store.models.register("shop", "full", tmp_path / source)
    assert store.models.list() == ()


def test_metrics_that_are_not_json_are_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"metrics.*JSON"):
        store.models.register("shop", "full", tiny_model(), metrics={"loss": float("nan")})


def test_an_unknown_run_leaves_no_version_and_no_files(store: Store) -> None:
    with pytest.raises(StoreError, match="no run 'run-1'"):
        store.models.register("shop", "full", tiny_model(), run_id="run-1")
    assert (store.models.list(), files_below(store.models.root)) == ((), [])


def test_a_place_that_cannot_be_written_leaves_no_version(store: Store) -> None:
    store.models.root.mkdir()
    (store.models.root / "shop").write_text("in the way")
    with pytest.raises(StoreError, match="nothing was registered"):
        store.models.register("shop", "full", tiny_model())
    assert (store.models.list(), files_below(store.models.root)) == ((), ["shop"])


REGISTER = """
import resource, signal, sys
from pathlib import Path
from dialoop.errors import StoreError
from dialoop.store.registry import Store
store = Store.open(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[3]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    store.models.register("shop", "full", Path(sys.argv[2]))
except StoreError as error:
    print(error)
"""


def register_with_little_space(store: Store, source: Path, on_full: str) -> subprocess.CompletedProcess[str]:
    (source / "z.safetensors").write_bytes(os.urandom(3_000_000))
    command = [sys.executable, "-c", REGISTER, str(store.home), str(source), on_full]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_running_out_of_space_leaves_no_version_and_no_files(store: Store, tmp_path: Path) -> None:
    done = register_with_little_space(store, Path(copytree(tiny_model(), tmp_path / "m")), "SIG_IGN")
    assert "z.safetensors: cannot be copied" in done.stdout
    assert "nothing was registered" in done.stdout
    assert (store.models.list(), files_below(store.models.root)) == ((), [])


def test_a_kill_in_the_middle_leaves_no_version_and_the_next_start_tidies_up(
    store: Store, tmp_path: Path
) -> None:
    done = register_with_little_space(store, Path(copytree(tiny_model(), tmp_path / "m")), "SIG_DFL")
    assert done.returncode == -signal.SIGXFSZ
    assert store.models.list() == ()
    assert files_below(store.models.root)
    with Store.open(store.home) as again:
        assert files_below(again.models.root) == []
        assert again.models.register("shop", "full", tiny_model()).version == 1


def test_a_directory_without_a_record_is_kept_reported_and_its_number_skipped(store: Store) -> None:
    store.models.register("shop", "full", tiny_model())
    stray = store.models.root / "shop" / "7"
    stray.mkdir()
    (stray / "model.safetensors").write_bytes(b"from a later backup")
    assert store.models.strays() == (stray,)
    assert store.models.register("shop", "full", tiny_model()).version == 8
    assert files_below(stray) == ["model.safetensors"]


def test_a_home_can_be_moved(store: Store, tmp_path: Path) -> None:
    store.models.register("shop", "full", tiny_model())
    store.close()
    (tmp_path / "home").rename(tmp_path / "moved")
    with Store.open(tmp_path / "moved") as moved:
        assert moved.models.resolve("shop") == ModelRef(
            "shop@1", tmp_path / "moved" / "models" / "shop" / "1"
        )
