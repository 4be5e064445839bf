"""
What a record is: its fields, its identity, its checksum and where it goes.

One record is one line: a flat JSON object that ends with ``"writer_id"``, ``"seq"`` and ``"checksum"``.
``docs/reference/record.md`` describes every field.
"""

from __future__ import annotations

import os
import re
import socket
import time
import zlib
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from . import _libc
from ._fast_json import dumps_plain
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "CHECKSUM_MARK",
    "DEFAULT_LOG_FILE",
    "EVENTS",
    "LOGGER_NAME",
    "OWN_FIELDS",
    "PROVIDERS",
    "SCHEMA_VERSION",
    "Encoded",
    "checksum",
    "crc32_of",
    "date_and_time",
    "default_log_path",
    "logged_at",
    "new_writer_id",
    "path_of",
    "provider_of",
    "seal",
    "tail_of",
    "timestamp",
    "uuid7",
]

SCHEMA_VERSION: Final = "1.0"
LOGGER_NAME: Final = "ai_responses"
DEFAULT_LOG_FILE: Final = "data/ai_responses/ai_responses.jsonl"
CHECKSUM_MARK: Final = b',"checksum":"'
EVENTS: Final = frozenset({"response", "start", "attempt", "tombstone"})

# Always written by us. A caller's value under one of these names is kept as metadata["caller.<name>"].
OWN_FIELDS: Final = frozenset({
    "schema_version", "timestamp", "unix_timestamp", "writer_id", "seq", "level", "logger", "message",
    "host", "pid", "thread", "checksum", "encode_errors", "redacted", "blobs",
})  # fmt: skip

# The provider's stable, lower-case name <- its platforms as people write them.
_PLATFORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("anthropic", "claude"),
    "azure.openai": ("azure.openai", "azure", "azure openai"),
    "deepseek": ("deepseek", "深度求索"),
    "doubao": ("doubao", "豆包", "字节", "火山引擎", "volcengine", "ark"),
    "gemini": ("gemini", "google"),
    "hunyuan": ("hunyuan", "混元", "腾讯混元", "元宝", "腾讯元宝"),
    "moonshot": ("moonshot", "月之暗面", "kimi"),
    "openai": ("openai", "chatgpt", "gpt"),
    "qwen": ("qwen", "通义千问", "通义", "千问", "阿里云百炼", "dashscope", "tongyi"),
    "spark": ("spark", "讯飞星火", "星火"),
    "wenxin": ("wenxin", "文心一言", "文心", "百度", "ernie", "qianfan"),
    "zhipu": ("zhipu", "智谱", "智谱ai", "智谱清言", "zhipuai", "chatglm", "glm"),
}
PROVIDERS: Final[Mapping[str, str]] = {name: provider for provider, names in _PLATFORMS.items() for name in names}


class Encoded(NamedTuple):
    """One record as bytes, still without writer, number and checksum; see :func:`seal`."""

    body: bytes
    record_id: str
    replaced: bool


def provider_of(platform: str) -> str:
    """Return the stable provider name for *platform* as a caller wrote it; unknown ones in lower case."""
    return _provider_of(platform) if type(platform) is str else _provider_of(str.strip(platform))


@lru_cache(maxsize=256)
def _provider_of(platform: str) -> str:
    name = platform.strip().lower()
    return PROVIDERS.get(name, name)


_PAIRS: Final = tuple(f"{number:02x}" for number in range(256))  # of hex digits
_VERSION_AND_VARIANT: Final = 7 << 76 | 2 << 62
_PIECES: Final = 25
_PIECE_BYTES: Final = 10
_FREE_BITS: Final = (1 << 128) - 1 - (15 << 76 | 3 << 62 | 1 << 47)  # what counts does not run over


class _Ids:
    """Makes UUIDv7 that count up within a millisecond, from a random start; a child begins with noise of its own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget the noise."""
        # Process and millisecond, an id but for its last two digits, those still to come, what counts in steps of 256.
        self._series: tuple[int, int, str, Iterator[str], count[int]] = (0, -1, "", iter(()), count())
        self._noise: tuple[int, Iterator[bytes]] = (0, iter(()))  # process, and pieces that no series has begun with

    def make(self, ms: int, pid: int) -> str:
        """Return the next id of millisecond *ms* in process *pid*."""
        known_pid, known_ms, begin, digits, steps = self._series
        if known_ms != ms or known_pid != pid:  # each thread that comes here at once has a series of its own
            value = (ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(self._piece(pid), "big")
            value = value & _FREE_BITS | _VERSION_AND_VARIANT
            text, steps, digits = (
                value.to_bytes(16, "big").hex(),
                count((value >> 8 & 0xFF_FFFF_FFFF) + 1),
                iter(_PAIRS),
            )
            digits.__setstate__(value & 0xFF)  # type: ignore[attr-defined]  # a tuple's iterator has it: go on from there
            begin = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:30]}"
            self._series = (pid, ms, begin, digits, steps)
        while True:
            for two in digits:  # one step of it: no other thread gets the same
                return begin + two
            begin, digits = f"{begin[:24]}{next(steps):010x}", iter(_PAIRS)
            self._series = (pid, ms, begin, digits, steps)

    def _piece(self, pid: int) -> bytes:
        """Return noise that nobody in process *pid* has had; several pieces at once cost the kernel one call."""
        known_pid, pieces = self._noise
        while True:
            for piece in pieces if known_pid == pid else ():  # one step of it, as below
                return piece
            noise = _libc.noise(_PIECES * _PIECE_BYTES)
            known_pid, pieces = pid, iter([noise[at : at + _PIECE_BYTES] for at in range(0, len(noise), _PIECE_BYTES)])
            self._noise = pid, pieces


_ids = _Ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.renew)


def uuid7(ms: int | None = None, pid: int | None = None) -> str:
    """
    Return a new UUIDv7 as text: 48 bits of milliseconds, 26 random bits, 48 bits that count up from a random start.

    The noise comes from the kernel; each millisecond and process has its own.

    Args:
        ms: Since 1970; None for now.
        pid: Of this process, if it is known.

    Source: RFC 9562, sections 5.7 and 6.2 (monotonic random).
    """
    return _ids.make(time.time_ns() // 1_000_000 if ms is None else ms, os.getpid() if pid is None else pid)


def new_writer_id() -> str:
    """
    Return an id for one writer: ``<host>-<pid>-<start, ms since 1970, hex>-<64 random bits, hex>``.

    The random bits are the identity; the rest is for people. Containers share host names and are all pid 1.
    """
    return f"{host_name()}-{os.getpid()}-{time.time_ns() // 1_000_000:x}-{os.urandom(8).hex()}"


def host_name() -> str:
    """Return this machine's name, or ``localhost`` where it has none."""
    return socket.gethostname().encode("utf-8", "replace").decode() or "localhost"


_UNIX_TIMESTAMP: Final = rb'"unix_timestamp":\s*(\d+(?:\.\d+)?)'
_second: tuple[int, bytes] = (-1, b"")


def date_and_time(seconds: int) -> bytes:
    """Return seconds since 1970 as RFC 3339 in UTC without a zone, as in ``2026-11-23T19:05:41``."""
    global _second  # noqa: PLW0603  one immutable tuple, so a race between threads only formats twice
    known, text = _second
    if known != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode("ascii")
        _second = (seconds, text)
    return text


def timestamp(created_us: int) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC, as in ``2026-11-23T19:05:41.000123Z``."""
    seconds, micros = divmod(created_us, 1_000_000)
    return f"{date_and_time(seconds).decode()}.{micros:06d}Z"


def logged_at(line: bytes) -> float | None:
    """Return the Unix time at which *line*, or the beginning of one, says that it was logged; None if it does not."""
    found = re.compile(_UNIX_TIMESTAMP).search(line, 0, line.find(b"\n") if b"\n" in line else len(line))
    return float(found[1]) if found else None


def checksum(prefix: bytes) -> bytes:
    """Return the 8 lower-case hex digits that belong behind *prefix*, a line's bytes before :data:`CHECKSUM_MARK`."""
    return b"%08x" % zlib.crc32(prefix)


def tail_of(writer_id: str) -> bytes:
    """Return what stands between a line's body and its number, for :func:`seal`; the same for all lines of a writer."""
    return b',"writer_id":%b,"seq":' % dumps_plain(writer_id)


def seal(body: bytes, tail: bytes, seq: int, begun: int | None = None) -> bytes:
    """
    Return *body* as a finished line: with its writer, its number, its checksum and its newline.

    Args:
        body: A JSON object in UTF-8 without its closing brace.
        tail: The writer, see :func:`tail_of`.
        seq: The line's number within its writer, from 0.
        begun: What :func:`crc32_of` says of the body, where that is known.
    """
    number = b"%b%d" % (tail, seq)
    value = zlib.crc32(number, crc32_of(body) if begun is None else begun)
    return b"".join((body, number, b',"checksum":"%08x"}\n' % value))


_HELD_BYTES: Final = 5 << 10


def crc32_of(data: bytes) -> int:
    """Return the CRC-32 of *data* without giving up the interpreter lock, as :func:`zlib.crc32` does for more bytes."""
    if len(data) <= _HELD_BYTES:
        return zlib.crc32(data)
    value, whole = 0, memoryview(data)
    for start in range(0, len(data), _HELD_BYTES):
        value = zlib.crc32(whole[start : start + _HELD_BYTES], value)
    return value


def default_log_path(filename: str | os.PathLike[str] | None = None) -> str:
    """
    Return the absolute path of the log.

    *filename*, else the environment variable ``AI_RESPONSES_FILE``, else :data:`DEFAULT_LOG_FILE` below the
    current directory.

    Raises:
        ConfigError: It is no path, or none that the system can take.
    """
    chosen = filename or os.environ.get("AI_RESPONSES_FILE") or DEFAULT_LOG_FILE
    if (path := path_of(chosen)) is None:
        raise ConfigError(f"filename must be a path, got {chosen!r}", "filename")
    return os.path.abspath(os.path.expanduser(path))


def path_of(value: object) -> str | None:
    """Return *value* as a path, or None: it is of another kind, or has what no path of this system can have."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        return None
    try:
        path = os.fsdecode(value)
        return None if b"\0" in os.fsencode(path) else path
    except UnicodeError:  # half of a surrogate pair
        return None
