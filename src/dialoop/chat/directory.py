"""What a Hugging Face directory says about its tokenizer: files -> one frozen value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialoop.errors import ModelError, echo

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """where: what errors call the template.  spec: tokenizer.json, every special token in `added_tokens`.

    special_tokens: `bos_token` and its like, by name.  eos_ids: of config.json and generation_config.json.
    tool_template: the one for dialogues with tools; the same as `template` for nearly all models.
    """

    where: str
    spec: dict[str, Any]
    special_tokens: Mapping[str, str]
    template: str
    tool_template: str
    eos_ids: frozenset[int]

    def added(self, *, special: bool) -> tuple[str, ...]:
        """The added tokens that are, or are not, special."""
        return tuple(t["content"] for t in self.spec["added_tokens"] if bool(t.get("special")) is special)


def read_files(directory: Path) -> TokenizerFiles:
    """Raises ModelError naming the file that is missing or broken, and what it should hold."""
    if not directory.is_dir():
        raise ModelError(f"{directory}: no such directory: give the path of a Hugging Face model directory")
    try:
        return _read(directory)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ModelError(
            f"{directory}: the tokenizer's files are not of the known form ({type(error).__name__} "
            f"{echo(str(error))}): save them again with a current transformers"
        ) from error


def _read(directory: Path) -> TokenizerFiles:
    spec = read_object(directory / "tokenizer.json")
    if spec is None:
        raise ModelError(
            f"{directory}: tokenizer.json is missing: save the tokenizer in its fast form, such as with "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    config = read_object(directory / "tokenizer_config.json") or {}
    older = read_object(directory / "special_tokens_map.json") or {}
    named = _named(config) if any(name in config for name in _NAMED) else _named(older)
    templates = _templates(directory, config)
    return TokenizerFiles(
        where=f"the chat template of {directory.resolve().name}",
        spec=_with_special(spec, config, [*named.values(), *_listed(config)], directory),
        special_tokens=named,
        template=templates["default"],
        tool_template=templates.get("tool_use", templates["default"]),
        eos_ids=_eos_ids(directory),
    )


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file. Raises ModelError."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}: copy it again from the model") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {echo(value)}, expected an object: copy it again from the model")
    return value


def _text_of(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    found = {name: _text_of(config.get(name)) for name in _NAMED}
    return {name: token for name, token in found.items() if token is not None}


def _listed(config: Mapping[str, Any]) -> list[str]:
    """Further special tokens: a list, or a mapping of names, as transformers has written them."""
    found: list[str] = []
    for key in _LISTS:
        value = config.get(key) or []
        tokens = value.values() if isinstance(value, dict) else value
        found += [text for text in map(_text_of, tokens) if text is not None]
    return found


def has_template(directory: Path) -> bool:
    """Whether there is a chat template: encoders have none. Raises ModelError as `read_files`."""
    config = read_object(directory / "tokenizer_config.json") or {}
    files = ("chat_template.jinja", "chat_template.json")
    return bool(config.get("chat_template")) or any((directory / name).is_file() for name in files)


def _templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name, `default` among them; chat_template.jinja has precedence, as in transformers."""
    given = config.get("chat_template")
    rows = given if isinstance(given, list) else [{"name": "default", "template": given}] if given else []
    found = {row["name"]: row["template"] for row in rows}
    older = read_object(directory / "chat_template.json") or {}
    if isinstance(older.get("chat_template"), str):
        found["default"] = older["chat_template"]
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = path.read_text(encoding="utf-8")
    own = directory / "chat_template.jinja"
    if own.is_file():
        found["default"] = own.read_text(encoding="utf-8")
    if "default" not in found:
        raise ModelError(
            f"{directory}: no chat template: put one into chat_template.jinja, or into tokenizer_config.json "
            f"as `chat_template`; a base model without one cannot hold dialogues"
        )
    return found


def _eos_ids(directory: Path) -> frozenset[int]:
    ids: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        value = (read_object(directory / name) or {}).get("eos_token_id")
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(ids)


def _with_special(
    spec: dict[str, Any], config: Mapping[str, Any], special: list[str], directory: Path
) -> dict[str, Any]:
    """`spec` with the tokens that only tokenizer_config.json names among its added tokens."""
    added = {token["content"]: dict(token) for token in spec.get("added_tokens") or []}
    vocabulary = _vocabulary(spec)
    decoder = config.get("added_tokens_decoder") or {}
    for key, token in sorted(decoder.items(), key=lambda item: int(item[0])):
        added.setdefault(token["content"], _added(token["content"], int(key), token))
    for content in special:
        if content not in added and content not in vocabulary:
            raise ModelError(
                f"{directory}: tokenizer_config.json names the special token {echo(content)}, which "
                f"tokenizer.json does not hold: save both files from the same tokenizer"
            )
        token = added.setdefault(content, _added(content, vocabulary.get(content, -1), {}))
        token["special"] = True
    return {**spec, "added_tokens": sorted(added.values(), key=lambda token: int(token["id"]))}


def _added(content: str, token_id: int, flags: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": token_id, "content": content, **{key: bool(flags.get(key, False)) for key in keys}}


def _vocabulary(spec: Mapping[str, Any]) -> dict[str, int]:
    """Pieces of the model itself; a Unigram model lists them with scores instead."""
    vocabulary = (spec.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, dict):
        return vocabulary
    return {row[0]: i for i, row in enumerate(vocabulary)}
