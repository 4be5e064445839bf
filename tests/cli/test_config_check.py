"""A whole application's configuration looked at: :mod:`ai_response_logging._review`."""

from __future__ import annotations

import json
import logging.config
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ai_response_logging._config_place import Place, durability_at, file_system_of
from ai_response_logging._review import review
from ai_response_logging.config import PRESET_NAMES, check, preset_yaml
from ai_response_logging.errors import ConfigError

if TYPE_CHECKING:
    from .conftest import Cli

Change = Callable[[dict[str, Any]], object]
OURS = "ai_response_logging.AIResponseHandler"


def a_mapping(path: Path, **options: Any) -> dict[str, Any]:
    """Return a configuration of a whole application about which there is nothing to say."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(message)s", "style": "%"}},
        "handlers": {
            "ai": {"class": OURS, "filename": str(path), **options},
            "console": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"},
            "file": {"class": "logging.handlers.RotatingFileHandler", "filename": "app.log", "maxBytes": 1},
            "memory": {"class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "late"},
            "late": {"class": "my.Handler", "anything": 1},
        },
        "loggers": {
            "ai_responses": {"level": "INFO", "handlers": ["ai"], "propagate": False},
            "app": {"handlers": ["file", "memory"]},
        },
        "root": {"level": "WARNING", "handlers": ["console"]},
    }


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every path be on a disk: the machine's own temporary directory may be in memory."""
    monkeypatch.setattr("ai_response_logging._config_place.file_system_of", lambda _: Place("/", "ext4", "rw"))


def found(mapping: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what there is to say."""
    return [(complaint.where, complaint.problem) for _, complaint in review({"x": mapping}).complaints]


def at(*path: str) -> Change:
    """Return a change that sets the last of *path* at the keys before it."""
    *keys, key, value = path

    def change(it: dict[str, Any]) -> None:
        for one in keys:
            it = it[one]
        it[key] = value

    return change


MISTAKES: list[tuple[str, str, Change]] = [
    ("loger", "did you mean loggers?", at("loger", {})),
    ("disable_existing_loggers", "is true", lambda it: it.pop("disable_existing_loggers")),
    ("disable_existing_loggers", "is true", at("disable_existing_loggers", True)),
    ("disable_existing_loggers", "must be true or false", at("disable_existing_loggers", "no")),
    ("incremental", "makes none of the handlers", at("incremental", True)),
    ("formatters.plain.fromat", "did you mean format?", at("formatters", "plain", "fromat", "x")),
    ("handlers.ai.bach_size", "did you mean batch_size?", at("handlers", "ai", "bach_size", 1)),
    ("handlers.ai.flush_interval", "seconds", at("handlers", "ai", "flush_interval", "5s")),
    ("handlers.ai.compress", "true or false", at("handlers", "ai", "compress", "yes")),
    ("handlers.ai.backup_count", "set max_bytes or when, too", at("handlers", "ai", "backup_count", 3)),
    ("handlers.ai.interval", "when is not set", at("handlers", "ai", "interval", 3)),
    ("handlers.ai.level", "are dropped", at("handlers", "ai", "level", "WARNING")),
    ("handlers.console.steam", "did you mean stream?", at("handlers", "console", "steam", 1)),
    ("handlers.console.class", "did you mean logging.StreamHandler?",
     at("handlers", "console", "class", "logging.StreamHandle")),
    ("handlers.console", "needs a class", lambda it: it["handlers"]["console"].pop("class")),
    ("handlers.file", "no logger has this handler", lambda it: it["loggers"]["app"]["handlers"].remove("file")),
    ("handlers.late", "no logger has this handler", lambda it: it["handlers"]["memory"].pop("target")),
    ("handlers.ai", "no logger has this handler", lambda it: it["loggers"]["ai_responses"]["handlers"].clear()),
    ("loggers.ai_responses.handlers", "'al' is not under handlers", at("loggers", "ai_responses", "handlers", ["al"])),
    ("loggers.ai_responses.levle", "did you mean level?", at("loggers", "ai_responses", "levle", 1)),
    ("loggers.ai_responses.propagate", "'no', which logging takes for true",
     at("loggers", "ai_responses", "propagate", "no")),
    ("loggers.ai_responses.propagate", "goes to console of root",
     lambda it: it["loggers"]["ai_responses"].pop("propagate")),
    ("loggers.ai_responses.level", "are dropped", at("loggers", "ai_responses", "level", "ERROR")),
    ("root.level", "are dropped", lambda it: it["loggers"]["ai_responses"].pop("level")),
    ("loggers.ai_responses.level", "no level is set",
     lambda it: (it["loggers"]["ai_responses"].pop("level"), it["root"].pop("level"))),
    ("loggers.ai_responses", "make one of their own",
     lambda it: it["loggers"].update(ai=it["loggers"].pop("ai_responses"))),
    ("handlers.file.filename", "are no records",
     lambda it: it["handlers"]["file"].update(filename=it["handlers"]["ai"]["filename"])),
    ("root.propagte", "did you mean propagate?", at("root", "propagte", 1)),
]  # fmt: skip


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize(
    ("where", "words", "change"), MISTAKES, ids=[f"{index}-{one[0]}" for index, one in enumerate(MISTAKES)]
)
def test_what_is_not_meant_is_said_with_the_full_path_of_its_key(
    log_path: Path, where: str, words: str, change: Change
) -> None:
    """Whatever logging takes without a word."""
    mapping = a_mapping(log_path)
    change(mapping)

    assert [one for one in found(mapping) if one[0] == where and words in one[1]], found(mapping)


@pytest.mark.usefixtures("on_disk")
def test_nothing_is_said_of_what_is_meant(log_path: Path) -> None:
    """A configuration with handlers of all kinds, and each of our presets, is fine; nothing is left behind."""
    assert found(a_mapping(log_path, max_bytes=10**6, backup_count=5, durability="power")) == []
    assert os.listdir(log_path.parent) == []
    for name in PRESET_NAMES:
        assert review({name: name}).complaints == []
        assert "disable_existing_loggers: false" in preset_yaml(name)


@pytest.mark.usefixtures("on_disk")
def test_all_is_said_at_once(log_path: Path) -> None:
    """Nobody has to run it five times."""
    mapping = a_mapping(log_path, batch_size=0, bach_size=1)
    mapping["loggers"]["ai_responses"] |= {"propagate": "no", "level": "NONSENSE"}
    mapping.pop("disable_existing_loggers")

    assert {where for where, _ in found(mapping)} >= {
        "handlers.ai.batch_size", "handlers.ai.bach_size", "loggers.ai_responses.propagate",
        "loggers.ai_responses.level", "disable_existing_loggers",
    }  # fmt: skip


@pytest.mark.usefixtures("on_disk")
def test_our_handler_met_twice_is_no_mistake(log_path: Path) -> None:
    """It records each record once, as dictConfig makes it: measured, not believed."""
    mapping = a_mapping(log_path)
    mapping["loggers"] = {"ai_responses": mapping["loggers"]["ai_responses"]}
    mapping["loggers"]["ai_responses.deep"] = {"handlers": ["ai"], "level": "INFO"}
    mapping["handlers"] = {name: mapping["handlers"][name] for name in ("ai", "console")}

    assert found(mapping) == []
    logging.config.dictConfig(mapping)
    try:
        logging.getLogger("ai_responses.deep").info("once", extra={"response": "r"})
        logging.getLogger("ai_responses").handlers[0].flush()
        assert log_path.read_text().count('"response":"r"') == 1
    finally:
        logging.getLogger("ai_responses.deep").handlers.clear()
        logging.getLogger().handlers.pop()


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize(
    ("key", "value", "is_shared"),
    [("max_bytes", 5000, True), ("when", "D", True), ("durability", "power", True), ("batch_size", 3, False)],
)
def test_two_settings_for_one_log_are_told(log_path: Path, key: str, value: object, is_shared: bool) -> None:
    """Between two handlers of one process whatever differs; between processes what acts on the files."""
    one, other = a_mapping(log_path), a_mapping(log_path, **{key: value})
    both = review({"one": one, "other": other}).complaints
    in_one = a_mapping(log_path)
    in_one["handlers"]["second"] = other["handlers"]["ai"]
    in_one["loggers"]["ai_responses"]["handlers"].append("second")

    assert [(name, complaint.where) for name, complaint in both] == (
        [("other", f"handlers.ai.{key}")] if is_shared else []
    )
    assert [where for where, _ in found(in_one)] == [f"handlers.second.{key}"]


def test_key_that_stands_twice_in_a_file_is_told(tmp_path: Path) -> None:
    """YAML takes the last of two without a word."""
    file = tmp_path / "logging.yaml"
    file.write_text(preset_yaml("default") + "loggers: {}\n")
    complaints = [(one.where, one.problem) for _, one in review({"f": str(file)}).complaints]

    assert ("loggers", "it stands twice, in lines 14 and 19, and only the last counts") in complaints


# --- places ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "durability", "words"),
    [
        (("tmpfs", "rw"), "crash", ["keeps its files in memory"]),
        (("tmpfs", "rw"), "power", ["keeps its files in memory", "there is no disk to sync to"]),
        (("nfs4", "rw"), "crash", ["give each machine its own"]),
        (("fuse.sshfs", "rw"), "power", ["give each machine its own", "as far as its server's is"]),
        (("ext4", "rw,barrier=0"), "power", ["barriers off"]),
        (("ext4", "rw,barrier=0"), "crash", []),
        (("overlay", "rw"), "crash", []),
        (("", ""), "power", []),
    ],
)
def test_durability_is_told_as_the_file_system_has_it(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[str, str], durability: str, words: list[str]
) -> None:
    """Memory, network, a container's layer, barriers off; and what holds all the same."""
    kind, options = place
    monkeypatch.setattr("ai_response_logging._config_place.file_system_of", lambda _: Place("/x", kind, options))
    notes, complaints = durability_at("h", str(log_path), {"durability": durability})

    assert len(complaints) == len(words)
    assert all(word in one.problem for word, one in zip(words, complaints, strict=True))
    assert f"durability {durability} is here: kept over" in notes[-1]
    assert any("volume" in note for note in notes) is (kind == "overlay")
    assert ("not over loss of power" in notes[-1]) is (durability == "crash" or kind == "tmpfs")


def test_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    """Blanks in names, mounts over mounts, names that only begin alike."""
    (tmp_path / "a b").mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw,noatime - ext4 /dev/sda1 rw\n"
        f"2 1 8:2 / {tmp_path}/a rw - xfs /dev/sdb rw\n"
        f"3 1 0:9 / {tmp_path}/a\\040b rw shared:3 master:1 - nfs4 server:/x rw,hard\n"
        f"4 1 0:9 / {tmp_path}/a\\040b rw - tmpfs none rw,size=1k\nrubbish\n"
    )

    assert file_system_of(str(tmp_path / "a b" / "log"), str(mounts)) == Place(
        f"{tmp_path}/a b", "tmpfs", "rw,rw,size=1k"
    )
    assert file_system_of(str(tmp_path / "a bc"), str(mounts)).kind == "ext4"
    assert file_system_of("/x", str(tmp_path / "no")) == Place("", "", "")


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="there is no /proc")
def test_real_mount_is_known() -> None:
    """What the machine says of itself."""
    assert file_system_of("/proc/self").kind == "proc"


@pytest.mark.usefixtures("on_disk")
def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    """A directory, a link or a file in the way of the log, its directory or its journal."""
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "log.journal").touch()
    for name, where, words in (
        ("dir", "filename", "is a directory"),
        ("link", "filename", "is a symbolic link"),
        ("file/deep/log", "filename", "should be a directory"),
        ("log", "durability", "there can be no journal"),
    ):
        assert [w for w, problem in found(a_mapping(tmp_path / name)) if words in problem] == [f"handlers.ai.{where}"]


@pytest.mark.usefixtures("on_disk")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_directory_of_somebody_else_is_told_with_its_owner(tmp_path: Path) -> None:
    """As the user that runs the check."""
    code = (
        "import os, sys; os.setuid(65534); from ai_response_logging._config_place import complaints_at; "
        "print([one.problem for one in complaints_at('h', sys.argv[1], {})])"
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if not os.stat(parent).st_mode & 1:
            pytest.skip("others may not look into the temporary directory")
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new" / "log")], capture_output=True, text=True, check=False
    )
    if child.returncode:
        pytest.skip("others may not import the package here")

    assert f"{tmp_path} is owned by root with mode 0755" in child.stdout


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def command(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return the command line, in an empty directory on a disk."""
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.mark.usefixtures("on_disk")
def test_json_and_modules_are_checked_as_yaml_is(command: Cli, log_path: Path) -> None:
    """Whatever dictConfig is fed from; details for programs."""
    Path("log.json").write_text(json.dumps(a_mapping(log_path, batch_size=0), indent="\t"))
    Path("my_settings.py").write_text(f"class S:\n    LOGGING = {a_mapping(log_path, batch_size=0)!r}\n")
    for source in ("log.json", "my_settings:S.LOGGING"):
        ended = command("config", "check", source)
        assert (ended.code, ended.out.split(":")[-1].strip()[:8]) != (0, "")
        assert "handlers.ai.batch_size: batch_size must be" in ended.out
    document = json.loads(command("config", "check", "log.json", "my_settings:S.LOGGING", "--json").out)
    assert [(one["source"], one["where"]) for one in document["details"]] == [
        ("log.json", "handlers.ai.batch_size"), ("my_settings:S.LOGGING", "handlers.ai.batch_size"),
    ]  # fmt: skip
    assert document["files"] == ["log.json", "my_settings:S.LOGGING"]


@pytest.mark.parametrize("source", ["no.such_module:X", "json:nothing", "json:loads", "nowhere.yaml"])
def test_source_that_is_none_is_used_wrongly(command: Cli, source: str) -> None:
    """Exit code 2 and one line."""
    ended = command("config", "check", source)

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)


def test_broken_json_is_a_complaint(command: Cli) -> None:
    """With the place."""
    Path("x.json").write_text('{"version": 1,}')
    ended = command("config", "check", "x.json")

    assert ended.code == 1
    assert "not valid JSON" in ended.out


def test_check_warns_of_nothing_and_configures_nothing(command: Cli) -> None:
    """It looks, and that is all."""
    Path("x.yaml").write_text(preset_yaml("default"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        command("config", "check", "x.yaml")

    assert logging.getLogger("ai_responses").handlers == []
    assert sorted(os.listdir()) == ["x.yaml"]


@pytest.mark.parametrize("filename", ["\0", "\ud800", 5])
def test_filename_that_is_no_path_is_told_at_its_key(filename: Any):
    """Before a handler is made, and not as what the system says of it."""
    told = check({**a_mapping(Path("log.jsonl")), "handlers": {"ai": {"class": OURS, "filename": filename}}})

    assert any("filename must be a path, got" in one and "handlers.ai.filename" in one for one in told)


# --- whatever stands in it -----------------------------------------------------------------------------------------

STRANGE = (None, 5, 1.5, True, "", "x", "\n", "\0", "\ud800", b"x", [], [[]], [{}], {}, {5: 1}, {None: 1}, 10**400)


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value in *value*, itself included, and to one more in each dict."""
    yield place
    if isinstance(value, dict):
        for key in (*value, 5, "more"):
            yield from places_in(value.get(key), (*place, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from places_in(one, (*place, at))


def with_strange(mapping: Any, place: tuple[Any, ...], strange: Any) -> Any:
    """Return *mapping* with *strange* at *place*."""
    if not place:
        return strange
    at = mapping
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = strange
    return mapping


def strange_mapping() -> dict[str, Any]:
    """Return what is changed: of each option's kind one."""
    return {
        **a_mapping(Path("log.jsonl"), batch_size=1, durability="crash", journal_directory="j", file_mode="0600"),
        "filters": {"some": {"name": "a"}},
    }


@settings(max_examples=300)
@given(place=st.sampled_from(sorted(places_in(strange_mapping()), key=repr)), strange=st.sampled_from(STRANGE))
@example(place=("handlers", "ai", 5), strange=1)
@example(place=("loggers", "ai_responses", "handlers"), strange=[[]])
@example(place=("handlers", "ai", "durability"), strange=[])
@example(place=("handlers", "ai", "filename"), strange="\0")
@example(place=("handlers", "ai", "journal_directory"), strange="\ud800")
@example(place=("handlers", "file", "filename"), strange="\0")
@example(place=(), strange=5)
@example(place=(), strange="\0")
def test_whatever_stands_in_it_is_told_or_fine_and_never_a_traceback(place: tuple[Any, ...], strange: Any):
    """YAML has keys that are numbers, and places for lists where a name belongs."""
    mapping = with_strange(strange_mapping(), place, strange)

    complaints = review({"name": mapping}).complaints

    try:
        told = check(mapping)
    except ConfigError as error:
        told = [str(error)]
    assert complaints or not told
