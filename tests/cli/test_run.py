from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import child_process, read_lines, run_child

from ai_response_logging.testing import LocalModelServer, Reply

# The SDK first, which a run loads in any case: what begins with it needs no second a child for that; see warm.py.
CLI = "import openai; from ai_response_logging.cli import main; main()"
PLAN = """
questions: ["why?", "how?"]
models:
  - {{platform: local, model: m1, base_url: "{url}"}}
  - {{platform: local, model: m2, base_url: "{url}"}}
max_retries: 0
{more}
"""


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a model server for the length of a test."""
    with LocalModelServer() as running:
        yield running


@pytest.fixture
def plan(server: LocalModelServer, tmp_path: Path) -> Path:
    """Write a plan of 2 x 2 cells."""
    return plan_in(tmp_path, server)


def plan_in(folder: Path, server: LocalModelServer, more: str = "") -> Path:
    """Write a plan of 2 x 2 cells with *more* keys."""
    file = folder / "plan.yaml"
    file.write_text(PLAN.format(url=server.base_url, more=more), encoding="utf-8")
    return file


def cli(*args: object, expect: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return run_child(CLI, *args, expect=expect, timeout=PATIENCE_S, **options)


def cells_in(log_path: Path) -> Counter[tuple[int, int]]:
    """Count the records of each cell."""
    return Counter((record["question_index"], record["model_index"]) for record in read_lines(log_path))


PATIENCE_S = 40.0  # a machine with other work starts three interpreters in this
pytestmark = pytest.mark.timeout(120)
ALL_ONCE = Counter([(1, 1), (1, 2), (2, 1), (2, 2)])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_run_that_goes_well_names_itself_first_and_ends_with_the_matrix(plan: Path, log_path: Path, processes: int):
    """The id and the way to resume come first, the matrix last, every cell is in the log, and the exit code is 0."""
    done = cli("run", plan, "--file", log_path, "--processes", processes)

    [execution_id] = {record["execution_id"] for record in read_lines(log_path)}
    first, second, *rest = done.stdout.splitlines()
    assert execution_id in first
    assert f"run {plan} --file {log_path} --resume {execution_id}" in second
    assert f"{execution_id}: 4 of 4 done, 0 failed, 0 missing" in rest[0]
    assert cells_in(log_path) == ALL_ONCE
    assert done.stderr == ""


@pytest.mark.slow
def test_failed_cells_make_the_exit_code_1_and_can_be_asked_again(plan: Path, log_path: Path, server: LocalModelServer):
    """Failed cells are named with the command that asks them again; when that goes well, so does the exit code."""
    server.reply_with(Reply(status=500), Reply(status=401), model="m2")

    failed = cli("run", plan, "--file", log_path, "--execution-id", "mine", expect=1)
    retried = cli("run", plan, "--file", log_path, "--resume", "mine", "--retry-failed")

    assert "2 of 4 done, 2 failed, 0 missing" in failed.stdout
    assert "--resume mine --retry-failed" in failed.stderr
    assert "4 of 4 done" in retried.stdout
    assert "Traceback" not in failed.stderr
    assert len(server.requests) == 4 + 2


@pytest.mark.slow
def test_json_is_one_document_with_the_matrix(plan: Path, log_path: Path, server: LocalModelServer):
    """Programs get the matrix's figures on standard output, and nothing else there."""
    server.reply_with(Reply(status=500), model="m2")

    done = cli("run", plan, "--file", log_path, "--json", "--execution-id", "mine", expect=1)

    document = json.loads(done.stdout)
    assert {name: document[name] for name in ("execution_id", "expected", "done", "failed", "missing", "file")} == {
        "execution_id": "mine", "expected": 4, "done": 3, "failed": 1, "missing": 0, "file": str(log_path),
    }  # fmt: skip
    assert document["lost_workers"] == []
    assert Counter(cell["status"] for cell in document["cells"]) == {"done": 3, "failed": 1}
    assert "run mine" in done.stderr


@pytest.mark.slow
@pytest.mark.faults
def test_run_whose_workers_were_killed_is_resumed_to_the_end(plan: Path, log_path: Path, server: LocalModelServer):
    """Killed workers are reported, what they left is counted as missing with exit code 1, and resuming completes it."""
    server.reply_always(Reply(hold=threading.Event()))

    arguments = ["run", plan, "--file", log_path, "--processes", 2, "--execution-id", "mine"]
    with child_process(CLI, *arguments) as child:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        for pid in workers_of(child.pid):
            os.kill(pid, signal.SIGKILL)
        out, errors = child.communicate(timeout=PATIENCE_S)
    server.reply_always(Reply())
    unknown = cli("run", plan, "--file", log_path, "--resume", "mine", expect=2)
    cli("run", plan, "--file", log_path, "--execution-id", "mine", "--processes", 2)

    assert child.returncode == 1
    assert errors.count("killed by SIGKILL") == 2
    assert "missing cells: 4" in errors
    assert "0 of 4 done, 0 failed, 4 missing" in out
    assert "start it as a new one with the same id" in unknown.stderr
    assert cells_in(log_path) == ALL_ONCE


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run, as /proc tells."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("concurrency: 0", "concurrency must be a whole number from 1 to 10000, got 0; it is set under concurrency in"),
        ("colour: red", "'colour' is no key of a plan"),
        ("system: [", "is no YAML"),
        ("system: 'you advise {brand}'", "{brand} is no placeholder; did you mean {brandName}?"),
        ("max_retries: 1", "max_retries stands twice, in lines 6 and 7"),
    ],
)
def test_bad_plan_is_exit_code_2_and_one_line(
    tmp_path: Path, log_path: Path, server: LocalModelServer, more: str, says: str
):
    """A wrong plan is one line with the key's path; nothing is asked and no log begun."""
    done = cli("run", plan_in(tmp_path, server, more), "--file", log_path, expect=2)

    assert says in done.stderr
    assert "plan.yaml" in done.stderr
    assert "line" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert server.requests == []
    assert not log_path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume", "a", "--execution-id", "b"], "leave --execution-id out"),
        (["--retry-failed"], "goes with resume"),
        (["--resume", "never-seen"], "no cell of execution never-seen"),
        (["--processes", "0"], "--processes"),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_line(plan: Path, log_path: Path, arguments: list[str], says: str):
    """What cannot be meant is refused in one line."""
    done = cli("run", plan, "--file", log_path, *arguments, expect=2)

    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_dry_run_says_what_would_be_asked_and_leaves_no_trace(plan: Path, log_path: Path, server: LocalModelServer):
    """Cells and tokens, as text and as JSON; no call, no log, exit code 0."""
    text = cli("run", plan, "--file", log_path, "--dry-run")
    document = json.loads(cli("run", plan, "--file", log_path, "--dry-run", "--max-calls", 3, "--json").stdout)

    assert "a new run would ask 4 of 4 cells" in text.stdout
    assert re.search(r"^local +4 +~20 +\?", text.stdout, re.MULTILINE)
    assert text.stdout.endswith(f"log: {log_path}\n")
    assert (document["expected"], document["calls"], document["prompt_tokens"]) == (4, 3, 15)
    assert [each["platform"] for each in document["platforms"]] == ["local"]
    assert server.requests == []
    assert not log_path.exists()


@pytest.mark.slow
def test_dry_run_complains_as_a_run_does(tmp_path: Path, log_path: Path):
    """A key that is not set is found by looking, too."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("questions: [why]\nmodels: [{platform: p, model: m, api_key_env: NO_SUCH_KEY}]", encoding="utf-8")

    ended = cli("run", plan, "--file", log_path, "--dry-run", expect=2, env={"NO_SUCH_KEY": ""})

    assert "NO_SUCH_KEY is not set" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "says"),
    [("--max-calls=3", "the budget of calls (max_calls) is used up"), ("--max-tokens=26", "the budget of tokens")],
)
def test_budget_ends_with_1_and_the_command_it_prints_goes_on(
    tmp_path: Path, log_path: Path, server: LocalModelServer, option: str, says: str
):
    """What was left is counted, named with its reason, and asked by resuming."""
    server.reply_always(Reply(usage={"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}))
    plan = plan_in(tmp_path, server, "concurrency: 1")

    first = cli("run", plan, "--file", log_path, option, expect=1)
    last = cli(*first.stderr.split("get them with: ai-responses ")[1].split())

    assert says in first.stderr
    assert "3 of 4 done, 0 failed, 1 missing" in first.stdout
    assert "4 of 4 done" in last.stdout
    assert cells_in(log_path) == ALL_ONCE


@pytest.mark.slow
def test_missing_plan_and_missing_key_are_exit_code_2(tmp_path: Path, log_path: Path):
    """A file that is not there, and a key that is not set, are named."""
    plan = tmp_path / "plan.yaml"
    missing = cli("run", plan, "--file", log_path, expect=2)
    plan.write_text("questions: [why]\nmodels: [{platform: p, model: m, api_key_env: NO_SUCH_KEY}]", encoding="utf-8")
    keyless = cli("run", plan, "--file", log_path, expect=2, env={"NO_SUCH_KEY": ""})

    assert str(plan) in missing.stderr
    assert "NO_SUCH_KEY is not set" in keyless.stderr
    assert "models[0].api_key_env" in keyless.stderr


@pytest.mark.slow
def test_missing_sdk_is_exit_code_4_with_the_command_that_installs_it(plan: Path, log_path: Path):
    """Without the extra the message says what to install."""
    without = "import importlib.util; importlib.util.find_spec = lambda name: None\n" + CLI

    done = run_child(without, "run", plan, "--file", log_path, expect=4)

    assert "pip install 'ai-response-logging[openai]'" in done.stderr
