from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from ai_response_logging._options import Options
from ai_response_logging.errors import ConfigError

# As the issue lists them; file modes are tested apart.
DEFAULTS = {
    "queue_max_size": 1000, "queue_max_bytes": 64 * 1024 * 1024, "batch_size": 10, "flush_interval": 5,
    "max_retries": 3, "retry_delay": 0.5, "durability": "crash", "lock_timeout": 10, "caller_timeout": 1,
    "close_timeout": 10, "max_bytes": 0, "when": "", "interval": 1, "utc": False, "backup_count": 0,
    "retain_days": 0, "max_total_bytes": 0, "compress": False, "file_mode": 0o600, "directory_mode": 0o700,
    "journal_directory": None, "journal_max_bytes": 64 * 1024 * 1024,
    "max_inline_bytes": 1024 * 1024, "redact": ["secrets"],
}  # fmt: skip
# name: least, most
COUNTS = {
    "queue_max_size": (1, 10_000_000), "queue_max_bytes": (1, 1 << 62), "batch_size": (1, 10_000),
    "max_retries": (0, 1_000_000), "max_bytes": (0, 1 << 62), "backup_count": (0, 1 << 62),
    "interval": (1, 100_000), "max_total_bytes": (0, 1 << 62), "journal_max_bytes": (1 << 20, 1 << 62),
    "max_inline_bytes": (0, 1 << 62),
    "file_mode": (0, 0o777), "directory_mode": (0, 0o777),
}  # fmt: skip
SECONDS = ("flush_interval", "retry_delay", "lock_timeout", "caller_timeout", "close_timeout")
MOST_SECONDS = 1e9
ENDS = [(name, end) for name, ends in COUNTS.items() for end in ends]
ENDS += [(name, end) for name in SECONDS for end in (0.0, MOST_SECONDS)]
BEYOND = [(name, value) for name, (least, most) in COUNTS.items() for value in (least - 1, most + 1)]
BEYOND += [(name, value) for name in SECONDS for value in (-5e-324, math.nextafter(MOST_SECONDS, math.inf))]


def test_the_defaults_are_as_promised() -> None:
    """Who sets nothing gets what the documentation says, and there is no option beside these."""
    found = vars(Options())
    assert {**found, "redact": [rule.name for rule in found["redact"]]} == DEFAULTS


@pytest.mark.parametrize(("given", "unit"), [(None, ""), ("", ""), ("h", "H"), ("MIDNIGHT", "midnight"), ("w6", "W6")])
def test_unit_of_time_may_be_written_as_the_standard_library_does(given: str | None, unit: str) -> None:
    """`when` takes the words of TimedRotatingFileHandler in any case; nothing means never."""
    assert Options.checked({"when": given}).when == unit


@pytest.mark.parametrize("given", ["W7", "weekly", 1, True, "S "])
def test_unit_of_time_that_is_none_is_refused_with_those_that_are(given: object) -> None:
    """A typing error in `when` must not mean never."""
    with pytest.raises(ConfigError, match=r"^when must be empty \(never by time\) or one of S, M, H, D, midnight, W0"):
        Options.checked({"when": given})


@pytest.mark.parametrize(("name", "end"), ENDS)
def test_each_end_of_a_range_is_allowed(name: str, end: float) -> None:
    """The bounds belong to the range."""
    assert getattr(Options.checked({name: end}), name) == end


@pytest.mark.parametrize(("name", "value"), BEYOND)
def test_one_beyond_a_range_is_refused_and_named(name: str, value: float) -> None:
    """One too few or too many is an error that names the option, and the range."""
    with pytest.raises(ConfigError, match=rf"^{name} must be \S+ to \S+ .*, got ") as caught:
        Options.checked({name: value})

    assert caught.value.where == name


@pytest.mark.parametrize("name", ["batch_size", "retry_delay", "file_mode"])
@pytest.mark.parametrize(
    "value", [True, None, "ten", math.nan, math.inf, -math.inf, [1], pytest.param(10**400, id="400 digits")]
)
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    """Neither true nor NaN nor text nor an integer that no float holds passes for a number."""
    with pytest.raises(ConfigError, match=f"^{name} must be "):
        Options.checked({name: value})


@pytest.mark.parametrize("name", ["batch_size", "max_bytes"])
def test_half_a_record_is_refused_and_a_whole_float_taken(name: str) -> None:
    """YAML and JSON may say 3.0 where 3 is meant; 3.5 records there are not."""
    with pytest.raises(ConfigError, match=f"^{name} must be "):
        Options.checked({name: 3.5})

    taken = getattr(Options.checked({name: 3.0}), name)
    assert (taken, type(taken)) == (3, int)


@pytest.mark.parametrize(
    ("written", "mode"),
    [("0640", 0o640), ("0o640", 0o640), ("'640'", 0o640), ("'0640'", 0o640), ("416", 0o640), ("0", 0), ("0777", 0o777)],
)
@pytest.mark.parametrize("name", ["file_mode", "directory_mode"])
def test_a_mode_in_yaml_is_octal_however_it_is_written(name: str, written: str, mode: int) -> None:
    """YAML hands over 0640 as a number and 0o640 as text; both are the same permissions."""
    options = yaml.safe_load(f"{name}: {written}")

    assert getattr(Options.checked(options), name) == mode


@pytest.mark.parametrize("written", ["640", "rw-r-----", "0689", "01777", "-0600"])
def test_a_mode_that_is_none_is_refused(written: str) -> None:
    """640 without its 0 is decimal and means other rights: it is refused instead of opening a log to everybody."""
    with pytest.raises(ConfigError, match=r"^file_mode must be "):
        Options.checked(yaml.safe_load(f"file_mode: {written}"))


@pytest.mark.parametrize("durability", ["memory", "crash", "power"])
def test_each_durability_is_accepted(durability: str) -> None:
    """The three words of the promise are options from the first version on."""
    assert Options.checked({"durability": durability}).durability == durability


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("durability", "disk", "memory, crash, power"), ("durability", ["crash"], "memory, crash, power"),
        ("durability", False, "memory, crash, power"), ("compress", "yes", "true or false"),
        ("compress", 1, "true or false"),
    ],
)  # fmt: skip
def test_a_word_that_is_none_is_refused_with_those_that_are(name: str, value: Any, allowed: str) -> None:
    """The error says what was found and what there is."""
    with pytest.raises(ConfigError) as caught:
        Options.checked({name: value})

    assert caught.value.where == name
    assert allowed in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("bach_size", "batch_size"),
        ("max_retry", "max_retries"),
        ("flushinterval", "flush_interval"),
        ("mode", "file_mode"),
    ],
)
def test_an_unknown_option_names_the_nearest(typed: str, meant: str) -> None:
    """A misspelt option is never ignored, and the error says which one was meant."""
    with pytest.raises(ConfigError, match=rf"'{typed}'.*did you mean {meant}\?"):
        Options.checked({typed: 1})


def test_an_option_like_no_other_names_them_all() -> None:
    """Where nothing is near, all names are given."""
    with pytest.raises(ConfigError) as caught:
        Options.checked({"zzz": 1})

    assert [name for name in DEFAULTS if name not in str(caught.value)] == []


def test_options_do_not_change() -> None:
    """Options that are checked stay as they were checked."""
    with pytest.raises(AttributeError, match="batch_size cannot be set to 0"):
        Options().batch_size = 0
    with pytest.raises(AttributeError, match="cannot be taken away"):
        del Options().batch_size


def test_a_journal_directory_may_be_any_path(tmp_path: Path) -> None:
    """Text or a Path; made absolute, since the program may go elsewhere."""
    assert Options.checked({"journal_directory": str(tmp_path)}).journal_directory == str(tmp_path)
    assert Options.checked({"journal_directory": tmp_path}).journal_directory == str(tmp_path)
    assert Options.checked({"journal_directory": "here"}).journal_directory == str(Path.cwd() / "here")


@pytest.mark.parametrize("wrong", ["", 7, "two\nlines", ["a"]])
def test_a_journal_directory_that_is_no_path_is_an_error(wrong: object) -> None:
    """What cannot be noted as one line is no place for a journal."""
    with pytest.raises(ConfigError, match="journal_directory must be the path of a directory"):
        Options.checked({"journal_directory": wrong})
