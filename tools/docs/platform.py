# ruff: noqa: E501  (rows are easier to read unbroken)
"""A request for each parameter of the other routes that works, and one that is refused; tests send them all.

`file-rows`, `file-batch`, `file-any`, `job`, `eval` and so on stand for ids that a test has made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.docs.examples import RESPONSE
from tools.docs.peers import BY_RESPONSE_PARAMETER

Fields = dict[str, Any]
Rows = Mapping[str, tuple[Fields, Fields]]


@dataclass(frozen=True, slots=True)
class Documented:
    """A route's parameters: a model, `module:name`, or the JSON Schema of a form, and their examples.

    base: what every example has besides.  peers: as `BY_PARAMETER`, () = nobody else has the route.
    """

    body: str
    rows: Rows
    base: Fields = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)


_MODEL = {"model": "dialoop-base"}
_NOBODY = {"model": "nobody"}
_LIST: Rows = {
    "limit": ({"limit": 5}, {"limit": 101}),
    "after": ({"after": "file-any"}, {"after": "x" * 129}),
    "order": ({"order": "asc"}, {"order": "up"}),
}
_INCLUDE: Rows = {
    name: ({name: ["message.output_text.logprobs"]}, {name: ["logprobs"]})
    for name in ("include", "include[]")
}
_WEB = {"model": (_MODEL, _NOBODY)}
_MEMBERS = {"shop": "42"}
_LONG = {"shop": "x" * 513}
_SOURCE = {"type": "custom", "item_schema": {}, "include_sample_schema": True}
_CHECK = {
    "type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}",
    "reference": "{{item.want}}",
}  # fmt: skip
_DATA = {
    "type": "jsonl",
    "source": {"type": "file_content", "content": [{"item": {"want": "a"}, "sample": {"output_text": "a"}}]},
}
_ALIKE = {"type": "function", "function": {"name": "track"}}
_HI = [{"role": "user", "content": "Hi"}]
_ENDED = [*_HI, {"role": "assistant", "content": "Hello"}]

ROUTES: dict[str, Documented] = {
    "POST /tokenize": Documented(
        "dialoop.serve.tokens:TokenizeBody",
        {
            **_WEB,
            "prompt": ({"prompt": "你好"}, {"prompt": 4}),
            "messages": ({"prompt": None, "messages": _HI}, {"prompt": None, "messages": "Hi"}),
            "tools": ({"prompt": None, "messages": _HI, "tools": [_ALIKE]}, {"tools": "track"}),
            "add_generation_prompt": ({"prompt": None, "messages": _HI, "add_generation_prompt": False}, {"add_generation_prompt": 0}),
            "continue_final_message": ({"prompt": None, "messages": _ENDED, "continue_final_message": True}, {"continue_final_message": 1}),
            "chat_template_kwargs": ({"prompt": None, "messages": _HI, "chat_template_kwargs": {}}, {"chat_template_kwargs": []}),
            "add_special_tokens": ({"add_special_tokens": False}, {"prompt": None, "messages": _HI, "add_special_tokens": True}),
            "return_token_strs": ({"return_token_strs": True}, {"return_token_strs": 1}),
        },
        {**_MODEL, "prompt": "Hi"},
        dict.fromkeys(("tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs", "messages", "return_token_strs"), "Y N N N")
        | {"model": "Y S N N", "prompt": "Y P N N", "add_special_tokens": "Y P N N"},
    ),
    "POST /detokenize": Documented(
        "dialoop.serve.tokens:DetokenizeBody",
        {**_WEB, "tokens": ({"tokens": [42, 43]}, {"tokens": [-1]})},
        {**_MODEL, "tokens": [42]},
        {"model": "Y S N N", "tokens": "Y Y N N"},
    ),
    "POST /v1/score": Documented(
        "dialoop.serve.scoring:ScoreBody",
        {
            **_WEB,
            "text_1": ({"text_1": "Hi"}, {"text_1": None}),
            "messages": ({"text_1": None, "messages": _HI}, {"text_1": None, "messages": []}),
            "text_2": ({"text_2": ["Hello", "Bye"]}, {"text_2": []}),
            "user": ({"user": "u-1"}, {"user": 1}),
        },
        {**_MODEL, "text_1": "Hi", "text_2": "Hello"},
        {"model": "Y N N N", "text_1": "P N N N", "messages": "N N N N", "text_2": "P N N N", "user": "S N N N"},
    ),
    "POST /v1/rerank": Documented(
        "dialoop.serve.scoring:RerankBody",
        {
            **_WEB,
            "query": ({"query": "Hi"}, {"query": ""}),
            "documents": ({"documents": ["Hello", {"text": "Bye"}]}, {"documents": []}),
            "top_n": ({"top_n": 1}, {"top_n": 0}),
            "return_documents": ({"return_documents": False}, {"return_documents": 1}),
            "method": ({"method": "embedding"}, {"method": "guess"}),
        },
        {**_MODEL, "query": "Hi", "documents": ["Hello", "Bye"]},
        {"model": "Y S N N", "query": "Y Y N N", "documents": "Y Y N N", "top_n": "Y Y N N", "return_documents": "S S N N", "method": "N N N N"},
    ),
    "POST /v1/classify": Documented(
        "dialoop.serve.scoring:ClassifyBody",
        {
            "model": ({"model": "intents"}, {"model": "nobody"}),
            "input": ({"input": ["Hi", "Bye"]}, {"input": ""}),
            "words": ({"model": "names", "input": None, "words": ["Paris", "is", "large"]}, {"input": None, "words": []}),
            "user": ({"user": "u-1"}, {"user": 1}),
        },
        {"model": "intents", "input": "Hi"},
        {"model": "Y N N N", "input": "Y N N N", "words": "N N N N", "user": "Y N N N"},
    ),
    "POST /v1/embeddings": Documented(
        "dialoop.serve.embeddings:EmbeddingBody",
        {
            **_WEB,
            "input": ({"input": ["order", "订单"]}, {"input": []}),
            "encoding_format": ({"encoding_format": "base64"}, {"encoding_format": "int8"}),
            "dimensions": ({"dimensions": None}, {"dimensions": 0}),
            "user": ({"user": "u-1"}, {"user": 1}),
        },
        {**_MODEL, "input": "order"},
        {"model": "Y S N Y", "input": "Y Y N P", "encoding_format": "Y Y N Y", "dimensions": "Y S N Y", "user": "S S N S"},
    ),
    "POST /v1/moderations": Documented(
        "dialoop.serve.moderation:ModerationBody",
        {
            "input": ({"input": [{"type": "text", "text": "Hi"}]}, {"input": [{"type": "image_url", "image_url": {"url": "x"}}]}),
            "model": ({"model": "omni-moderation-latest"}, _NOBODY),
        },
        {"input": "Hi"},
    ),
    "POST /v1/feedback": Documented(
        "dialoop.serve.trials:FeedbackBody",
        {
            "value": ({"value": 0.5}, {"value": "good"}),
            "name": ({"name": "thumb"}, {"name": ""}),
            "target": ({"target": "chatcmpl-1"}, {"target": 1}),
            "trial": ({"trial": "desk"}, {"trial": "nobody"}),
            "user": ({"user": "u-2"}, {"user": ""}),
            "comment": ({"comment": "very kind"}, {"comment": 1}),
        },
        {"value": 1, "user": "u-1"},
    ),
    "POST /v1/load_lora_adapter": Documented(
        "dialoop.serve.adapters:LoadBody",
        {
            "lora_name": ({"lora_name": "desk"}, {"lora_name": "a/b"}),
            "lora_path": ({"lora_path": "/adapters/desk"}, {"lora_path": "/etc"}),
            "load_inplace": ({"load_inplace": True}, {"load_inplace": 1}),
            "pinned": ({"pinned": True}, {"pinned": 1}),
        },
        {"lora_name": "desk", "lora_path": "/adapters/desk", "load_inplace": True},
        {"lora_name": "Y P N N", "lora_path": "Y N N N", "load_inplace": "Y N N N", "pinned": "N N N N"},
    ),
    "POST /v1/unload_lora_adapter": Documented(
        "dialoop.serve.adapters:UnloadBody",
        {
            "lora_name": ({"lora_name": "desk"}, {"lora_name": "nobody"}),
            "lora_int_id": ({"lora_int_id": 7}, {"lora_int_id": "7"}),
        },
        {"lora_name": "desk"},
        {"lora_name": "Y N N N", "lora_int_id": "Y N N N"},
    ),
    "POST /v1/files": Documented(
        "dialoop.serve.files:FORM",
        {
            "file": ({"file": b'{"messages": []}'}, {"file": None}),
            "purpose": ({"purpose": "user_data"}, {"purpose": "fun"}),
            "expires_after[anchor]": ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}, {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}),
            "expires_after[seconds]": ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}, {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}),
        },
        {"file": b"some text", "purpose": "user_data"},
    ),
    "GET /v1/files": Documented(
        "dialoop.serve.files:FilesQuery",
        {**_LIST, "limit": ({"limit": 10_000}, {"limit": 10_001}), "purpose": ({"purpose": "batch"}, {"purpose": "fun"})},
    ),
    "POST /v1/uploads": Documented(
        "dialoop.serve.uploads:UploadBody",
        {
            "filename": ({"filename": "rows.jsonl"}, {"filename": ""}),
            "bytes": ({"bytes": 9}, {"bytes": 0}),
            "mime_type": ({"mime_type": "text/jsonl"}, {"mime_type": ""}),
            "purpose": ({"purpose": "fine-tune"}, {"purpose": "fun"}),
            "expires_after": ({"expires_after": {"anchor": "created_at", "seconds": 3600}}, {"expires_after": {"anchor": "created_at", "seconds": 60}}),
        },
        {"filename": "rows.jsonl", "bytes": 9, "mime_type": "text/jsonl", "purpose": "user_data"},
    ),
    "POST /v1/uploads/{upload_id}/parts": Documented(
        "dialoop.serve.uploads:PART",
        {"data": ({"data": b"some text"}, {"data": b"more than was announced"})},
        {"data": b"some text"},
    ),
    "POST /v1/uploads/{upload_id}/complete": Documented(
        "dialoop.serve.uploads:CompleteBody",
        {
            "part_ids": ({"part_ids": ["part"]}, {"part_ids": []}),
            "md5": ({"md5": "552e21cd4cd9918678e3c1a0df491bc3"}, {"md5": "552e"}),
        },
        {"part_ids": ["part"]},
    ),
    "POST /v1/batches": Documented(
        "dialoop.serve.batches:BatchBody",
        {
            "input_file_id": ({"input_file_id": "file-batch"}, {"input_file_id": "file-rows"}),
            "endpoint": ({"endpoint": "/v1/chat/completions"}, {"endpoint": "/v1/files"}),
            "completion_window": ({"completion_window": "24h"}, {"completion_window": "24"}),
            "metadata": ({"metadata": _MEMBERS}, {"metadata": _LONG}),
            "output_expires_after": ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, {"output_expires_after": {"anchor": "created_at", "seconds": 60}}),
        },
        {"input_file_id": "file-batch", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    ),
    "GET /v1/batches": Documented("dialoop.serve.paging:ListQuery", _LIST),
    "GET /v1/chat/completions": Documented(
        "dialoop.serve.stored:StoredQuery", {**_LIST, "model": (_MODEL, {"mdel": "dialoop-base"})}
    ),
    "POST /v1/chat/completions/{completion_id}": Documented(
        "dialoop.serve.stored:StoredBody", {"metadata": ({"metadata": _MEMBERS}, {"metadata": _LONG})}
    ),
    "POST /v1/responses": Documented(
        "dialoop.serve.responses.fields:ResponseBody",
        RESPONSE,
        {**_MODEL, "input": "Hi", "max_output_tokens": 16},
        BY_RESPONSE_PARAMETER,
    ),
    "GET /v1/responses/{response_id}": Documented(
        "dialoop.serve.responses.kept:RetrieveQuery",
        {
            **_INCLUDE,
            "stream": ({"stream": False}, {"stream": True}),
            "starting_after": ({}, {"starting_after": 1}),
            "include_obfuscation": ({"include_obfuscation": True}, {"include_obfuscation": "some"}),
        },
    ),
    "GET /v1/responses/{response_id}/input_items": Documented(
        "dialoop.serve.responses.kept:InputItemsQuery",
        {**_LIST, **_INCLUDE, "after": ({}, {"after": "x" * 129})},
    ),
    "POST /v1/fine_tuning/jobs": Documented(
        "dialoop.serve.fine_tuning_wire:CreateJob",
        {
            **_WEB,
            "training_file": ({"training_file": "file-rows"}, {"training_file": "file-any"}),
            "validation_file": ({"validation_file": "file-rows"}, {"validation_file": "file-none"}),
            "suffix": ({"suffix": "shop"}, {"suffix": "x" * 65}),
            "seed": ({"seed": 7}, {"seed": -1}),
            "method": (
                {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}}},
                {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 51}}}},
            ),
            "hyperparameters": ({"hyperparameters": {"learning_rate_multiplier": 0.5}}, {"hyperparameters": {"learning_rate_multiplier": 0}}),
            "metadata": ({"metadata": _MEMBERS}, {"metadata": _LONG}),
            "integrations": ({"integrations": []}, {"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}),
            "dialoop": ({"dialoop": {"kind": "classify", "method": {"kind": "lora", "rank": 8}}}, {"dialoop": {"method": {"kind": "lora", "rnk": 8}}}),
        },
        {**_MODEL, "training_file": "file-rows"},
    ),
    "GET /v1/fine_tuning/jobs": Documented(
        "dialoop.serve.fine_tuning:JobsQuery", {**_LIST, "model": (_MODEL, {"mdel": "dialoop-base"})}
    ),
    "GET /v1/fine_tuning/jobs/{job_id}/events": Documented(
        "dialoop.serve.fine_tuning:EventsQuery", {**_LIST, "stream": ({"stream": "false"}, {"stream": "maybe"})}
    ),
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints": Documented("dialoop.serve.fine_tuning:CheckpointsQuery", _LIST),
    "POST /v1/evals": Documented(
        "dialoop.serve.eval_wire:CreateEval",
        {
            "name": ({"name": "answers"}, {"name": ""}),
            "data_source_config": ({"data_source_config": _SOURCE}, {"data_source_config": {"type": "custom"}}),
            "testing_criteria": ({"testing_criteria": [_CHECK]}, {"testing_criteria": [{**_CHECK, "operation": "equals"}]}),
            "metadata": ({"metadata": _MEMBERS}, {"metadata": _LONG}),
        },
        {"data_source_config": _SOURCE, "testing_criteria": [_CHECK]},
    ),
    "GET /v1/evals": Documented(
        "dialoop.serve.evals:EvalsQuery", {**_LIST, "order_by": ({"order_by": "created_at"}, {"order_by": "updated_at"})}
    ),
    "POST /v1/evals/{eval_id}": Documented(
        "dialoop.serve.eval_wire:UpdateEval",
        {"name": ({"name": "others"}, {"name": ""}), "metadata": ({"metadata": _MEMBERS}, {"metadata": _LONG})},
    ),
    "POST /v1/evals/{eval_id}/runs": Documented(
        "dialoop.serve.eval_wire:CreateRun",
        {
            "name": ({"name": "first"}, {"name": ""}),
            "data_source": ({"data_source": _DATA}, {"data_source": {"type": "responses"}}),
            "metadata": ({"metadata": _MEMBERS}, {"metadata": _LONG}),
        },
        {"data_source": _DATA},
    ),
    "GET /v1/evals/{eval_id}/runs": Documented(
        "dialoop.serve.eval_runs:RunsQuery", {**_LIST, "status": ({"status": "completed"}, {"status": "done"})}
    ),
    "GET /v1/evals/{eval_id}/runs/{run_id}/output_items": Documented(
        "dialoop.serve.eval_runs:ItemsQuery", {**_LIST, "status": ({"status": "pass"}, {"status": "passed"})}
    ),
}  # fmt: skip
