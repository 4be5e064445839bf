"""``ai-responses config``: presets to look at and to copy, and files checked."""

from __future__ import annotations

import json
import logging.config
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from ai_response_logging.config import PRESET_NAMES, preset_yaml

if TYPE_CHECKING:
    from .conftest import Cli


def test_every_preset_is_listed_with_its_figures(cli: Cli):
    """
    One column a preset; the figures are those of the presets themselves.
    """
    ended = cli("config", "list")
    rows = {one.split()[0]: one.split()[1:] for one in ended.out.partition("\n\n")[0].splitlines()[1:]}

    assert ended.code == 0
    assert ended.out.splitlines()[0].split() == list(PRESET_NAMES)
    assert rows["queue_max_size"] == ["1000", "2000", "500", "1000"]
    assert rows["batch_size"] == ["10", "20", "5", "10"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_list_of_presets_fits_any_width(cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int):
    """
    Nothing is cut off on a narrow terminal.
    """
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("config", "list").out

    assert "…" not in shown
    assert max(map(len, shown.split("\n\n")[0].splitlines())) <= width


def test_list_as_json_has_every_preset(cli: Cli):
    """
    Programs get the same figures.
    """
    listed = json.loads(cli("config", "list", "--json").out)

    assert [one["preset"] for one in listed] == list(PRESET_NAMES)
    assert listed[1]["queue_max_size"] == 2000


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_preset_is_printed_as_the_file_it_is(cli: Cli, name: str):
    """
    What is printed is the exact text of the file, ready to be redirected into one.
    """
    ended = cli("config", "show", name)

    assert (ended.code, ended.out) == (0, preset_yaml(name))
    assert yaml.safe_load(ended.out)["version"] == 1


def test_printed_preset_works_through_dictconfig_alone(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Copied to a file, a preset needs nothing of ours but its class name.
    """
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load(cli("config", "show", "default").out)
    settings["handlers"]["ai_responses"]["durability"] = "memory"
    logging.config.dictConfig(settings)
    logging.getLogger("ai_responses").info("ai_response", extra={"question": "q"})
    for handler in logging.getLogger("ai_responses").handlers:
        handler.flush()

    assert (tmp_path / "data/ai_responses/ai_responses.jsonl").read_text("utf-8").count("\n") == 1


def test_unknown_preset_is_used_wrongly(cli: Cli):
    """
    Exit code 2, and the names there are.
    """
    ended = cli("config", "show", "fast")

    assert (ended.code, ended.out) == (2, "")
    assert all(name in ended.err for name in ("fast", *PRESET_NAMES))


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_preset_checked_as_a_file_is_fine(cli: Cli, tmp_path: Path, name: str):
    """
    What we ship passes our own check.
    """
    file = tmp_path / "logging.yaml"
    file.write_text(preset_yaml(name), "utf-8")
    ended = cli("config", "check", file)

    assert not [one for one in ended.out.splitlines() if one.startswith(f"{file}: ") and "tmpfs" not in one][1:]
    assert f"{file}: fine\n" in ended.out or "tmpfs" in ended.out


def test_each_complaint_names_the_full_path_of_its_key(cli: Cli, tmp_path: Path):
    """
    Exit code 1; every complaint is a line of its own, and all are told at once.
    """
    file = tmp_path / "logging.yaml"
    text = preset_yaml("default").replace("batch_size: 10", "batch_size: 0").replace("max_retries:", "max_retrys:")
    file.write_text(text, "utf-8")
    ended = cli("config", "check", file)

    assert ended.code == 1
    said = [one for one in ended.out.splitlines() if not one.startswith("  ")]
    assert [one for one in said if not one.startswith(f"{file}: ")] == []
    assert "handlers.ai_responses.batch_size" in ended.out
    assert "handlers.ai_responses.max_retrys" in ended.out
    assert len(json.loads(cli("config", "check", file, "--json").out)["complaints"]) == len(said)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_file_that_is_no_configuration_is_one_complaint(cli: Cli, tmp_path: Path, text: str):
    """
    Broken YAML, another shape, nothing: a complaint, never a traceback.
    """
    file = tmp_path / "logging.yaml"
    file.write_text(text)
    ended = cli("config", "check", file)

    assert (ended.code, ended.out.count("\n"), ended.err) == (1, 1, "")


def test_file_named_like_a_preset_is_checked_as_a_file(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    `config check` takes a file: one called "default" is not taken for the preset.
    """
    monkeypatch.chdir(tmp_path)
    Path("default").write_text("- 1\n")

    assert cli("config", "check", "default").code == 1


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_no_file_to_check_is_used_wrongly(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """
    Nothing there, or a directory: exit code 2 and one line.
    """
    monkeypatch.chdir(tmp_path)
    ended = cli("config", "check", name)

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
