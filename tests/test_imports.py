"""What ``import ai_response_logging`` costs and offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run_child

import ai_response_logging
from ai_response_logging import errors

HEAVY = ("concurrent_log_handler", "yaml", "openai", "rich", "typer")
# Ours that no program needs which only records: for readers, for the command line, for mistakes.
NOT_AT_SET_UP = {
    f"ai_response_logging.{name}"
    for name in (
        "_config_place", "_config_review", "_followed", "_journal_read", "_nested", "_numbers", "_parse", "_receipt",
        "_review", "_shapes", "_snapshot", "_typed", "analysis", "cli", "convert", "export", "filters", "follow",
        "forget", "integrations", "matrix", "pytest_plugin", "reader", "report", "shipping", "testing", "verify",
    )
}  # fmt: skip
SET_UP_AND_FIRST_CALL = """
from ai_response_logging import configure, log_ai_response
configure(filename={path!r})
log_ai_response(question="why?", response="because", model="m")
"""
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
def test_a_program_that_names_no_file_loads_only_what_records(log_path: Path) -> None:
    """A preset costs no YAML reader, and recording nothing that is for readers, the command line or type checkers."""
    loaded = loaded_after(SET_UP_AND_FIRST_CALL.format(path=str(log_path)))

    assert "ai_response_logging.writer" in loaded
    assert loaded.isdisjoint({"yaml", "difflib"} | NOT_AT_SET_UP), sorted(loaded & NOT_AT_SET_UP)


@pytest.mark.slow
def test_set_up_has_loaded_all_that_recording_needs(log_path: Path) -> None:
    """The first record loads no module: files that are replaced, or all in use, by then do not matter."""
    done = run_child(
        f"""
        import sys
        from ai_response_logging import configure, log_ai_response
        handler = configure(filename={str(log_path)!r})
        before = set(sys.modules)
        log_ai_response(question="why?", response="because", model="m")
        handler.flush()
        print(sorted(set(sys.modules) - before))
        """
    )

    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_set_up_makes_no_dataclass_and_no_dictionary_for_type_checkers_but_one(log_path: Path) -> None:
    """Each dataclass of ours is compiled anew in every program that logs, for 1 to 2 ms; typed keys are as dear."""
    done = run_child(
        f"""
        import dataclasses, json, sys, typing
        {SET_UP_AND_FIRST_CALL.format(path=str(log_path)).strip().replace(chr(10), "; ")}
        made = {{
            f"{{one.__module__}}.{{one.__qualname__}}"
            for name, module in list(sys.modules.items()) if name.startswith("ai_response_logging")
            for one in vars(module).values()
            if isinstance(one, type) and (dataclasses.is_dataclass(one) or typing.is_typeddict(one))
        }}
        print(json.dumps(sorted(made)))
        """
    )

    # What the functions return; it has four keys.
    assert set(json.loads(done.stdout)) <= {"ai_response_logging.api.LogResult", "ai_response_logging.api._LogResult"}


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
