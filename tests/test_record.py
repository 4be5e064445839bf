from __future__ import annotations

import json
import os
import re
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import has_fork, run_child
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging import _libc, record
from ai_response_logging._typed import ResponseFields
from ai_response_logging.record import (
    OWN_FIELDS,
    PROVIDERS,
    checksum,
    default_log_path,
    new_writer_id,
    provider_of,
    seal,
    tail_of,
    timestamp,
    uuid7,
)

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_an_id_is_a_uuid_of_version_7() -> None:
    """Whoever parses a record_id finds version 7 and the variant of RFC 9562."""
    assert all(UUID7.fullmatch(uuid7()) for _ in range(200))


def test_an_id_carries_its_millisecond_and_sorts_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of different milliseconds sort as they were made, also where the leading digits roll over."""
    moments_ms = [0, 1, 0xFFFF, 0x10000, 1_795_000_000_000, 1_795_000_000_001, 2**48 - 1]
    ids = []
    for moment_ms in moments_ms:
        monkeypatch.setattr(record.time, "time_ns", lambda moment_ms=moment_ms: moment_ms * 1_000_000 + 999_999)
        ids.append(uuid7())

    assert ids == sorted(ids)
    assert [int(one.replace("-", "")[:12], 16) for one in ids] == moments_ms


@pytest.mark.slow
def test_a_hundred_thousand_ids_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of one and the same millisecond differ: 74 bits of each are random."""
    now_ns = record.time.time_ns()
    monkeypatch.setattr(record.time, "time_ns", lambda: now_ns)

    ids = {uuid7() for _ in range(100_000)}

    assert len(ids) == 100_000


@has_fork
def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    """Parent and child share no dice: neither record ids nor writers repeat after a fork."""
    done = run_child(
        """
        import json, os
        from ai_response_logging.record import new_writer_id, uuid7
        uuid7(), new_writer_id()
        ours, theirs = os.pipe()
        pid = os.fork()
        made = [uuid7()[14:] for _ in range(500)] + [new_writer_id()[-16:] for _ in range(500)]
        if pid == 0:
            os.write(theirs, json.dumps(made).encode())
            os._exit(0)
        os.close(theirs)
        with open(ours) as pipe:
            made += json.load(pipe)
        os.waitpid(pid, 0)
        print(len(made), len(set(made)))
        """
    )

    assert done.stdout.split() == ["2000", "2000"]


@has_fork
@pytest.mark.parametrize("ms", [5, 6], ids=["this", "next"])
@pytest.mark.parametrize(
    ("fork", "pid"), [("os.fork", "1"), ("ctypes.PyDLL(None).fork", "os.getpid()")], ids=["same pid", "in C"]
)
def test_a_child_forked_within_a_millisecond_makes_other_ids(fork: str, pid: str, ms: int) -> None:
    """Not even in one millisecond, this or the next: one with its parent's pid (another namespace), or forked in C."""
    done = run_child(
        f"""
        import ctypes, os
        from ai_response_logging.record import uuid7
        uuid7(5, {pid})
        child = {fork}()
        os.write(1, uuid7({ms}, {pid}).encode() + b"\\n")
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        """
    )

    assert len(set(done.stdout.split())) == 2


def test_milliseconds_share_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked once for many of them, and each piece of its answer begins one."""
    asked: list[int] = []
    real = _libc.noise
    monkeypatch.setattr(_libc, "noise", lambda size: (asked.append(size), real(size))[1])
    ids = [record._Ids().make(ms, 1)[14:] for ms in range(3)] + [*map(record._Ids().make, range(60), [1] * 60)]
    assert asked == [250, 250, 250, 250, 250, 250]
    assert len({one[-20:] for one in ids}) == 63


@pytest.mark.parametrize(
    ("platform", "provider"),
    [
        ("豆包", "doubao"), ("通义千问", "qwen"), ("智谱AI", "zhipu"), ("DeepSeek", "deepseek"),
        ("deepseek", "deepseek"),
        ("OpenAI", "openai"), ("文心一言", "wenxin"), ("Kimi", "moonshot"), ("腾讯混元", "hunyuan"),
        ("讯飞星火", "spark"), ("Claude", "anthropic"), ("Azure OpenAI", "azure.openai"), ("  Qwen\n", "qwen"),
        ("My-Own Model", "my-own model"),
    ],
)  # fmt: skip
def test_a_platform_as_people_write_it_has_one_provider(platform: object, provider: str) -> None:
    """One provider has one lower-case name, however its platform is written; an unknown one keeps its own."""
    assert provider_of(platform) == provider


def test_a_provider_is_its_own_provider() -> None:
    """Normalising twice changes nothing, and every name in the table can be met."""
    assert {provider_of(name) for name in PROVIDERS} == {provider_of(provider) for provider in PROVIDERS.values()}
    assert all(provider_of(provider) == provider for provider in PROVIDERS.values())
    assert all(name == name.strip().lower() for name in PROVIDERS)


def test_no_field_that_callers_may_set_is_ours() -> None:
    """Nothing that the typed functions offer is moved out of the way as a field of ours."""
    assert OWN_FIELDS.isdisjoint(ResponseFields.__annotations__)


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_timestamp_is_rfc_3339_in_utc_to_the_microsecond(created_us: int) -> None:
    """A timestamp reads back as the very instant, in any year that has four digits."""
    text = timestamp(created_us)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    read = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    assert (read.days * 86_400 + read.seconds) * 1_000_000 + read.microseconds == created_us


def test_a_local_time_zone_does_not_move_a_timestamp(tmp_path: Path) -> None:
    """Logs of machines in different zones line up: the text is UTC wherever it is made."""
    done = run_child(
        "from ai_response_logging.record import timestamp; print(timestamp(1_795_463_540_000_123))",
        env={"TZ": "Asia/Shanghai"},
        cwd=tmp_path,
    )

    assert done.stdout.strip() == "2026-11-23T19:52:20.000123Z"


def test_a_sealed_line_ends_with_writer_number_and_checksum() -> None:
    """The last three fields prove a line: who wrote it, which one it is, and that no byte changed."""
    line = seal('{"a":"ü"'.encode(), tail_of('w"1'), 12)

    prefix, mark, rest = line.partition(b',"checksum":"')
    assert prefix == '{"a":"ü","writer_id":"w\\"1","seq":12'.encode()
    assert mark + rest == b',"checksum":"%08x"}\n' % zlib.crc32(prefix)
    assert json.loads(line)["checksum"].encode() == checksum(prefix)


def test_a_checksum_has_eight_digits_also_when_it_is_small() -> None:
    """Leading zeros stay: a reader finds the mark at the same place in every line."""
    assert checksum(b"") == b"00000000"
    assert checksum(b"123456789") == b"cbf43926"


def test_two_writers_are_never_one() -> None:
    """Host, pid and start say who it was; the random end tells writers of one millisecond apart."""
    ids = {new_writer_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(re.fullmatch(rf".+-{os.getpid()}-[0-9a-f]+-[0-9a-f]{{16}}", one) for one in ids)


def test_the_argument_decides_where_the_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filename that is given wins over the environment; any path type will do."""
    monkeypatch.setenv("AI_RESPONSES_FILE", str(tmp_path / "environment.jsonl"))

    assert default_log_path(tmp_path / "argument.jsonl") == str(tmp_path / "argument.jsonl")


def test_the_environment_decides_where_no_argument_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AI_RESPONSES_FILE moves the log without a change of code, relative to the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AI_RESPONSES_FILE", "elsewhere/ai.jsonl")

    assert default_log_path() == str(tmp_path / "elsewhere" / "ai.jsonl")


@pytest.mark.parametrize("value", [None, ""])
def test_without_argument_and_environment_the_log_is_at_its_default_place(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default lies below the current directory and is absolute; an empty variable is none."""
    monkeypatch.chdir(tmp_path)
    if value is not None:
        monkeypatch.setenv("AI_RESPONSES_FILE", value)

    assert default_log_path() == str(tmp_path / "data" / "ai_responses" / "ai_responses.jsonl")


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/ai.jsonl` in a YAML file means what it means in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert default_log_path("~/ai.jsonl") == str(tmp_path / "ai.jsonl")
