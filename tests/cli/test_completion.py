"""Completion in real shells: installed, and what it offers."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """#!{python}
import sys
sys.path[:0] = {path!r}
from ai_response_logging.cli import main
main()
"""
SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home of its own, with the program on the PATH and a log with a run."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    program = binaries / "ai-responses"
    program.write_text(PROGRAM.format(python=sys.executable, path=sys.path))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    lines = [f'{{"record_id":"id-{n}","execution_id":"exec_{n % 2}","model":"m","success":true}}\n' for n in range(4)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"execution_id":"exec_\\u001b[31m"}\n')
    return tmp_path


def run(home: Path, shell: str, script: str) -> str:
    """Return what *script* prints in a *shell* at home."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    env = {
        "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "dumb", "LANG": "C.UTF-8",
        "AI_RESPONSES_FILE": str(home / "log.jsonl"), "XDG_CONFIG_HOME": str(home / ".config"),
    }  # fmt: skip
    child = subprocess.run(
        [shell, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False, cwd=home
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


def offered(home: Path, shell: str, line: str) -> list[str]:
    """Return what a shell with our script offers behind *line*."""
    words = line.split(" ")
    scripts = {
        # The scripts' own functions, called as the shell calls them when somebody presses Tab.
        "bash": f'eval "$(ai-responses --show-completion)"; COMP_WORDS=({line!s}); COMP_CWORD={len(words) - 1}; '
        + ('COMP_WORDS+=("");' if not words[-1] else "")
        + '_ai_responses_completion ai-responses; printf "%s\\n" "${COMPREPLY[@]}"',
        "fish": f'ai-responses --show-completion | source; complete -C "{line}"',
        # zsh hands it to _arguments, which works in its line editor only: what it would hand over is looked at.
        "zsh": "autoload -U compinit; compinit -u; compdef() { }; _describe() { eval print -l -- \\$$3 }; "
        "_arguments() { print -r -- $1 }; ai-responses --show-completion > script; source ./script; "
        f'words=({line!s}); _TYPER_COMPLETE_ARGS="{line}" _AI_RESPONSES_COMPLETE=complete_zsh ai-responses',
    }
    return run(home, shell, scripts[shell] + "; true").splitlines()


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("ai-responses ver", ["verify"], ["tail"]),
        ("ai-responses tail --fo", ["--follow"], ["--failed"]),
        ("ai-responses config show hi", ["high_concurrency", "high_reliability"], ["default"]),
        ("ai-responses matrix exec_", ["exec_0", "exec_1"], ["31m"]),
        ("ai-responses tail --execution-id exec_", ["exec_0", "exec_1"], ["31m"]),
        ("ai-responses show id-", ["id-0", "id-3"], ["exec"]),
    ],
)
def test_shell_offers_commands_options_presets_runs_and_records(
    home: Path, shell: str, line: str, wanted: list[str], unwanted: list[str]
):
    """
    Whatever can be known cheaply.
    """
    found = "\n".join(offered(home, shell, line))

    assert all(one in found for one in wanted), found
    assert not any(one in found for one in unwanted), found


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_installed_for_the_shell_that_asks(home: Path, shell: str):
    """
    `--install-completion` writes to that shell's own files; a new shell then knows it.
    """
    run(home, shell, "ai-responses --install-completion; true")
    knows = {
        "bash": "source ~/.bashrc; complete -p ai-responses",
        "zsh": "source ~/.zshrc; print -r -- $_comps[ai-responses]",
        "fish": "complete -C 'ai-responses ver'",
    }

    known = {"bash": "_ai_responses_completion", "zsh": "_ai-responses", "fish": "verify"}

    assert known[shell] in run(home, shell, knows[shell])


@pytest.mark.slow
def test_log_that_cannot_be_read_offers_nothing_and_complains_of_nothing(home: Path):
    """
    Whoever presses Tab wants no error in his line.
    """
    (home / "log.jsonl").unlink()

    assert offered(home, "bash", "ai-responses matrix exec_") in ([], [""])
