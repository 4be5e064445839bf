"""What ``import ai_response_logging`` costs and offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run_child

import ai_response_logging
from ai_response_logging import errors

HEAVY = ("concurrent_log_handler", "yaml", "openai", "rich", "typer")
# What issues and documents name; it may grow, and each name stays.
PROMISED = {
    "AIResponseFormatter",
    "AIResponseHandler",
    "AsyncAIResponseLogger",
    "BatchFileHandler",
    "BatchQueueListener",
    "DurabilityWarning",
    "ResponseQueueHandler",
    "configure",
    "get_async_logger",
    "log_ai_response",
    "log_ai_response_async",
    "log_ai_response_enhanced",
}


def loaded_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after *code*."""
    done = run_child(f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    return set(json.loads(done.stdout))


def is_ours(value: object) -> bool:
    """Say whether a class or function is defined in the package, and not borrowed from elsewhere."""
    return str(getattr(value, "__module__", "")).partition(".")[0] == "ai_response_logging"


@pytest.mark.slow
def test_importing_the_package_loads_nothing_heavy() -> None:
    """Importing the library costs an application neither the locking package nor any extra."""
    loaded = loaded_after("import ai_response_logging")

    assert "ai_response_logging" in loaded
    assert loaded.isdisjoint(HEAVY), f"loaded on import: {sorted(loaded & set(HEAVY))}"


@pytest.mark.slow
def test_the_writing_side_loads_no_screen_and_no_model() -> None:
    """An application that only logs never loads the command line's packages or a model's SDK."""
    loaded = loaded_after(
        "import ai_response_logging\nfrom ai_response_logging import AIResponseHandler, log_ai_response"
    )

    assert "concurrent_log_handler" in loaded
    assert loaded.isdisjoint({"openai", "rich", "typer"}), sorted(loaded & {"openai", "rich", "typer"})


@pytest.mark.slow
def test_a_program_that_names_no_file_reads_no_yaml(log_path: Path) -> None:
    """A preset, which is what a program without a configuration file has, costs no YAML reader; nor does a function."""
    loaded = loaded_after(
        f"from ai_response_logging import configure, log_ai_response\n"
        f"configure(filename={str(log_path)!r})\nlog_ai_response(question='why?')"
    )

    assert loaded.isdisjoint({"yaml", "difflib"}), sorted(loaded & {"yaml", "difflib"})


@pytest.mark.slow
def test_an_application_without_extras_can_import_every_public_name() -> None:
    """No public name needs an extra: each resolves in an interpreter that cannot import openai."""
    done = run_child(
        """
        import sys
        sys.modules["openai"] = None
        import ai_response_logging
        for name in ai_response_logging.__all__:
            getattr(ai_response_logging, name)
        print(len(ai_response_logging.__all__))
        """
    )

    assert int(done.stdout) == len(ai_response_logging.__all__)


def test_all_is_sorted_and_without_doubles() -> None:
    """The list of public names reads like an index."""
    assert list(ai_response_logging.__all__) == sorted(set(ai_response_logging.__all__))


@pytest.mark.parametrize("name", ai_response_logging.__all__)
def test_every_public_name_resolves(name: str) -> None:
    """Every name in ``__all__`` is there, however late it is loaded."""
    assert getattr(ai_response_logging, name) is not None


def test_all_is_complete() -> None:
    """What the issues promise, every error and every public name that the package holds stand in ``__all__``."""
    held = {name for name, value in vars(ai_response_logging).items() if is_ours(value) and not name.startswith("_")}
    tree = {name for name, value in vars(errors).items() if is_ours(value)}

    assert PROMISED | tree | held <= set(ai_response_logging.__all__)


def test_dir_lists_late_names() -> None:
    """An editor that asks ``dir()`` sees the late names as well."""
    assert set(ai_response_logging.__all__) <= set(dir(ai_response_logging))


def test_a_name_that_is_not_there_says_so() -> None:
    """A misspelt name is an AttributeError that names it, not a KeyError from the late loading."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ai_response_logging.no_such_name
