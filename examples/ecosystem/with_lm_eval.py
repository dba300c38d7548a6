"""lm-evaluation-harness: answers, and the log-likelihoods of choices, on tasks whose rows are a local file.

DIALOOP_TOKENIZER is the model's directory, whose tokenizer cuts the prompts. The tasks name their rows from
where the repository lies: run it there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from server import MODEL, URL, show

TASKS = Path(__file__).with_name("lm_eval")
TOKENIZER = os.environ.get("DIALOOP_TOKENIZER", "src/dialoop/assets/dialoop-base")


def main() -> None:
    said = evaluated("local-chat-completions", "desk_answer", base_url=f"{URL}/chat/completions")
    show("answers", [row["filtered_resps"][0] for row in said["samples"]["desk_answer"]])
    show("exact_match", said["results"]["desk_answer"]["exact_match,none"])

    chosen = evaluated(
        "local-completions", "desk_choice", base_url=f"{URL}/completions", tokenizer=TOKENIZER,
        tokenizer_backend="huggingface",
    )  # fmt: skip
    show("likelihoods", [row["filtered_resps"] for row in chosen["samples"]["desk_choice"]])
    show("acc", chosen["results"]["desk_choice"]["acc,none"])


def evaluated(kind: str, task: str, **options: Any) -> dict[str, Any]:
    """The results of a task and its rows."""
    tasks = TaskManager(include_path=str(TASKS), include_defaults=False)
    options |= {"model": MODEL, "max_length": 2048}
    return simple_evaluate(
        kind, options, [task], task_manager=tasks, apply_chat_template=True, bootstrap_iters=0
    )


if __name__ == "__main__":
    main()
