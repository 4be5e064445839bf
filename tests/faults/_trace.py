"""What a process asked of the kernel, by strace: each call with where in the trace it began and where it ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Call", "calls_of", "strace"]

# `-f` joins a line that another thread came in between of as "<unfinished ...>" and "<... NAME resumed>"; the result
# then stands behind any number of blanks.
_LINE: Final = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)\Z")
_RESUMED: Final = re.compile(r"<\.\.\. \w+ resumed>,? ?(?P<rest>.*)\Z")
_CALL: Final = re.compile(r"(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|\?)")
_UNFINISHED: Final = "<unfinished ...>"
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PATH: Final = re.compile(r"\d+<([^>]*)>")


class Call(NamedTuple):
    """One system call that ended well; a call that began after another one ended has `began > other.ended`."""

    pid: int
    name: str
    args: str
    result: int
    path: str
    """Of the descriptor that it was about; empty if it was about none."""
    texts: tuple[bytes, ...]
    """Its texts: names, or what was written."""
    began: int
    ended: int

    @property
    def offset(self) -> int:
        """The last of its arguments: where a pwrite64 wrote, how long an ftruncate or fallocate makes a file."""
        return int(self.args.rsplit(",", 1)[1])


def strace(trace: Path, *names: str) -> list[str]:
    """Return the command to put in front of the interpreter: whole bytes, with the paths of descriptors."""
    return ["strace", "-f", "-qq", "-y", "-xx", "-s", "4194304", "-o", str(trace), "-e", f"trace={','.join(names)}"]


def calls_of(trace: Path) -> list[Call]:
    """Return the calls in *trace* that ended well, in the order in which they began."""
    return sorted(_calls(trace.read_text("ascii").splitlines()), key=lambda call: call.began)


def _calls(lines: list[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, str]] = {}
    for ended, line in enumerate(lines):
        if (found := _LINE.match(line)) is None:
            continue
        pid, rest = found["pid"], found["rest"]
        began = ended
        if rest.endswith(_UNFINISHED):
            begun[pid] = (ended, rest.removesuffix(_UNFINISHED).rstrip())
            continue
        if resumed := _RESUMED.match(rest):
            began, before = begun.pop(pid)
            rest = before + resumed["rest"]
        call = _CALL.match(rest)
        if call is None or not call["result"].isdigit():  # a signal, an end, or a call that failed
            continue
        path = _PATH.match(call["args"])
        yield Call(
            int(pid), call["name"], call["args"], int(call["result"]), _name(path[1]) if path else "",
            tuple(bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(call["args"])), began, ended,
        )  # fmt: skip


def _name(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text
