"""A batch outlives a server that is killed, and asks nothing twice that was answered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI

from dialoop.serve.batch_progress import ERRORS, OUTPUT, Progress
from tests.serve.test_batches import begin, read, row, until

LINES, BEFORE = 40, 15


@contextmanager
def server(home: Path, asked: Path, answers: int) -> Iterator[tuple[OpenAI, subprocess.Popen[str]]]:
    script = Path(__file__).with_name("batch_server.py")
    command = [sys.executable, str(script), str(home), str(asked), str(answers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=10) as client:
                yield client, process
        finally:
            process.kill()


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    home, asked = tmp_path / "home", tmp_path / "asked"
    with server(home, asked, BEFORE) as (client, process):
        batch = begin(client, *(row(f"line {i}") for i in range(LINES)))
        done_before = home / "batches" / batch.id / OUTPUT
        while not (done_before.exists() and done_before.read_bytes().count(b"\n") == BEFORE):
            client.batches.retrieve(batch.id)
        client.files.delete(batch.input_file_id)
        process.kill()
        process.wait()
    answered = {json.loads(line)["custom_id"] for line in done_before.read_text().splitlines()}
    with done_before.open("a") as file:
        file.write('{"id": "batch_req_half-written')
    with server(home, asked, LINES) as (client, process):
        done = until(client, batch)
        assert done.status == "completed"
        assert done.request_counts
        assert (done.request_counts.completed, done.request_counts.failed) == (LINES, 0)
        said = read(client, done.output_file_id)
    assert said.keys() == {f"line {i}" for i in range(LINES)}
    times = Counter(asked.read_text().splitlines())
    assert len(answered) == BEFORE
    assert {times[name] for name in answered} == {1}
    assert not done_before.parent.exists()


def test_progress_is_read_again_and_a_half_written_line_cut_off(tmp_path: Path) -> None:
    with Progress(tmp_path) as progress:
        progress.answered("a", 200, {"usage": {"prompt_tokens": 3, "total_tokens": 5}})
        progress.answered("b", 400, {"error": {}})
        progress.not_asked("c", "batch_expired", "late")
        progress.answered("a", 200, {})
    with (tmp_path / OUTPUT).open("ab") as file:
        file.write(b'{"custom_id": "d"')
    with Progress(tmp_path) as again:
        assert again.done == {"a", "b", "c"}
        assert again.counts == {OUTPUT: 1, ERRORS: 2}
        assert (again.usage["input"], again.usage["output"]) == (3, 2)
        again.answered("d", 200, {})
    assert [json.loads(line)["custom_id"] for line in (tmp_path / OUTPUT).read_bytes().splitlines()] == [
        "a",
        "d",
    ]
