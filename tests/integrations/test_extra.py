"""What an extra brings, and what is said where it is missing: :mod:`ai_response_logging.integrations._extra`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ai_response_logging.errors import MissingExtraError
from ai_response_logging.integrations._extra import brought_by


def test_package_that_is_missing_is_named_with_what_installs_it() -> None:
    """By the name that installs it, of the whole package whatever module of it was asked for."""
    with pytest.raises(
        MissingExtraError, match=r"a-stranger is not installed; .*ai-response-logging\[more\]"
    ) as caught:
        brought_by("more", "a_stranger.inner")
    assert caught.value.package == "a-stranger"


@pytest.mark.parametrize("needed", ["something_else", "a_stranger_too"])
def test_package_that_lacks_something_itself_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: str
) -> None:
    """It is there: to install it once more would help nobody."""
    (tmp_path / "a_stranger").mkdir()
    (tmp_path / "a_stranger" / "__init__.py").write_text(f"import {needed}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=needed) as caught:
        brought_by("more", "a_stranger")
    assert not isinstance(caught.value, MissingExtraError)


def test_module_of_a_package_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module itself, not the package above it."""
    (tmp_path / "a_stranger").mkdir()
    (tmp_path / "a_stranger" / "__init__.py").touch()
    (tmp_path / "a_stranger" / "inner.py").write_text("found = 1")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert brought_by("more", "a_stranger.inner").found == 1
    finally:
        for name in ("a_stranger", "a_stranger.inner"):
            sys.modules.pop(name, None)
