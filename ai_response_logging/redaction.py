"""
Take secrets out of a record before anything keeps it: the journal, the queue and the log see only what is left.

Pure. Looking is quick and works on texts as they are, since nearly every record has nothing to take out; taking out is
slow and exact, and works on the values. What is taken out is named in the record, as ``{"path": ..., "rule": ...}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from ._redaction_rules import BUILT_IN, MARKS, Rule

__all__ = ["MAX_NAMED", "Names", "Redactor"]

MAX_NAMED: Final = 100
"""Entries of ``redacted``; more places are taken out all the same."""

# A key is a long run of these; everything else becomes a blank, so that one search finds any of them.
_RUN_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_RUNS: Final = bytes(0x61 if byte in _RUN_BYTES else 0x20 for byte in range(256))
_RUN: Final = b"a" * 19  # each of _KEYS, _BEARER and _BASIC has one; so has a private key, in its base64
# Bytes of a run, and of an escape before it ("u0001"); a picture in base64 is one of a megabyte ...
_LONGEST_SEARCHED: Final = 512 + 5
_START_SEARCHED: Final = 128  # ... and only its beginning is looked at
# What a key begins with. It stands where a word of letters and digits may begin, which in a run is behind one of the
# two other bytes; so the run's beginning and those places are looked at. Searching the run for each of these, or with
# a regular expression, would cost ten times as much, and most records have some id in them that is a run; one of
# hexadecimal digits alone is not even looked at.
_ID_BYTES: Final = b"0123456789abcdef-"
_KEY_BEGINS: Final = (
    b"sk-", b"xai-", b"pplx-", b"nvapi-", b"glpat-", b"xox", b"fw-", b"tgp_v1-", b"ALTAK-",
    b"sk_live_", b"sk_test_", b"rk_live_", b"rk_test_", b"pk_live_", b"pk_test_", b"gsk_", b"hf_", b"r8_", b"ghp_",
    b"gho_", b"ghu_", b"ghs_", b"ghr_", b"npm_", b"github_pat_",
    b"AIza", b"AKIA", b"AKID", b"ASIA", b"LTAI", b"eyJ",
)  # fmt: skip
_BEHIND_AN_ESCAPE: Final = (1, 5)  # places in a run that follows a backslash: "nsk-..." and "u000ask-..."
_TOKEN_WORDS: Final = (b"bearer ", b"basic ", b"ya29.")
_BEFORE_A_RUN: Final = max(map(len, _TOKEN_WORDS))
# Names of fields and of machines, ids of models: the same runs come again and again, each with what stands around it.
_harmless_runs: Final[set[bytes]] = set()
_MOST_RUNS: Final = 256
_LONGEST_KNOWN: Final = 64
_HEX_DIGITS: Final = 32  # of Zhipu's keys, which have a point behind them
_PARAMETER_HINTS: Final = (b"key=", b"token=", b"secret=", b"password=", b"sig=", b"signature=", b"passwd=", b"pwd=")


def _may_hold_secrets(line: bytes) -> bool:
    """
    Say whether a secret may be in *line*, JSON in UTF-8: quickly, and never no where the rule ``secrets`` finds one.

    Of half a kilobyte and more of letters and digits without a break, a picture's or a digest's, only the beginning is
    looked at.
    """
    # find() and not `in`: that one first asks whether the bytes are a number, and the answer is an exception.
    find = line.find
    if find(b"@") >= 0 and find(b"://") >= 0:
        return True
    if find(b"=") >= 0 and (find(b"&") >= 0 or find(b"?") >= 0 or find(b"\\u0026") >= 0):
        small = line.lower()
        if any(small.find(hint) >= 0 for hint in _PARAMETER_HINTS):
            return True
    runs = line.translate(_RUNS)
    at = runs.find(_RUN)
    while at >= 0:
        end = runs.find(b" ", at)
        end = len(runs) if end < 0 else end
        seen = line[max(at - _BEFORE_A_RUN, 0) : min(end, at + _LONGEST_KNOWN) + 1]
        if seen not in _harmless_runs:
            if _holds_a_key(line, at, end):
                return True
            if end - at <= _LONGEST_KNOWN:
                if len(_harmless_runs) >= _MOST_RUNS:
                    _harmless_runs.clear()
                _harmless_runs.add(seen)
        at = runs.find(_RUN, end)
    # One byte is found many times as fast as several, and capital letters like these are rare.
    return find(b"V") >= 0 and find(b"K") >= 0 and find(b"PRIVATE KEY") >= 0


def _holds_a_key(line: bytes, at: int, end: int) -> bool:
    """Say whether a secret may be in the run that stands in *line* from *at* to *end*."""
    till = end if end - at <= _LONGEST_SEARCHED else at + _START_SEARCHED
    if _begins_a_key(line, at, till):
        return True
    if end - at >= _HEX_DIGITS and line[end : end + 1] == b".":
        return True
    return line[max(at - _BEFORE_A_RUN, 0) : at].lower().endswith(_TOKEN_WORDS)


def _begins_a_key(line: bytes, at: int, till: int) -> bool:
    """Say whether a key may begin in the run that stands in *line* from *at* to *till*."""
    if not line[at:till].translate(None, _ID_BYTES):
        return False
    begins = line.startswith
    if begins(_KEY_BEGINS, at):
        return True
    if line[at - 1 : at] == b"\\" and any(begins(_KEY_BEGINS, at + place) for place in _BEHIND_AN_ESCAPE):
        return True
    for byte in (b"-", b"_"):
        place = line.find(byte, at, till)
        while place >= 0:
            if begins(_KEY_BEGINS, place + 1):
                return True
            place = line.find(byte, place + 1, till)
    return False


def _always(line: bytes) -> bool:  # noqa: ARG001  a hint like the others
    """Say that only taking a close look tells."""
    return True


_HINTS: Final[Mapping[tuple[tuple[str, int], ...], Callable[[bytes], bool]]] = {
    BUILT_IN["secrets"].patterns: _may_hold_secrets,
    BUILT_IN["email"].patterns: lambda line: line.find(b"@") >= 0,
}


class Names(Protocol):
    """Names of fields, where they are remembered because record after record comes with the same ones."""

    all: tuple[Any, ...]
    """Each that a record of these may have, also if its value is None this time and it is left out."""
    harmless_to: object
    """The redactor that wants none of them."""


class Redactor:
    """
    Finds what a set of rules takes out of a record, and takes it out.

    Args:
        rules: In the order in which they are tried; where two want the same text, the first one has it.

    Threads: Any.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._paths = [rule for rule in rules if rule.path]
        self._named = [rule for rule in rules if rule.names]
        # By what a rule looks for, never by its name, which a person may have chosen.
        self._hints = [_HINTS.get(rule.patterns, _always) for rule in rules if rule.patterns]
        self._always = _always in self._hints
        # Keys that no rule wants at the top of a record: applications use a few, again and again.
        self._harmless: set[str] = set()

    def suspects(self, line: bytes, fields: Iterable[object], below: Iterable[object], names: Names) -> bool:
        """
        Say whether a record may hold something to take out; quick, and never no where :meth:`redact` would find it.

        Args:
            line: The record's fields as JSON.
            fields: Their names.
            below: The dicts in their values, at any depth; of what is none, only a close look tells.
            names: What is remembered of those of the fields.
        """
        if self._always or not self._rules:
            return self._always
        if names.harmless_to is not self:
            if self._wants_any(fields):
                return True
            if not self._wants_any(names.all):
                names.harmless_to = self
        for one in below:
            if type(one) is not dict or self._wants_any(one):
                return True
        # All texts at once, as they stand in the line: each look has a price of its own, whatever it looks at.
        return self._suspects_line(line)

    def _suspects_line(self, line: bytes) -> bool:
        """Say whether a rule's pattern may find something in a text of *line*, which is JSON."""
        for hint in self._hints:  # noqa: SIM110  a generator for any() would cost as much as most of them
            if hint(line):
                return True
        return False

    def _wants_any(self, keys: Iterable[object]) -> bool:
        return not self._harmless.issuperset(keys) and any(map(self._is_wanted, keys))

    def suspects_text(self, text: str) -> bool:
        """Say whether a rule's pattern may find something in *text*."""
        return self._always or self._suspects_line(text.encode("utf-8", "replace"))

    def _is_wanted(self, key: object) -> bool:
        # A key of a class of its own may be anything: it gets the close look.
        if type(key) is not str or self._whole(key, (key,)) or any(rule.path[0] in {key, "*"} for rule in self._paths):
            return True
        if self.suspects_text(key):
            return True
        if len(self._harmless) < _MOST_KEYS:
            self._harmless.add(key)
        return False

    def redact(self, fields: dict[str, Any]) -> list[dict[str, str]]:
        """
        Take out of *fields*, plain JSON values that nobody else has, what the rules want; return what was taken.

        No recursion: an application may log with its stack nearly full.
        """
        taken: list[dict[str, str]] = []
        waiting: list[tuple[dict[str, Any] | list[Any], tuple[str, ...]]] = [(fields, ())]
        while waiting:
            container, path = waiting.pop()
            if isinstance(container, dict):
                self._rename(container, path, taken)  # first: what is named below is named by these keys
            for key, value in _items(container):
                here = (*path, str(key))
                rule = self._whole(str(key), here)
                if rule is not None and _hides(rule, value):
                    _take(container, key, rule, value)
                    _note(taken, here, rule)
                elif isinstance(value, str):
                    container[key] = self.text(value, here, taken)
                elif isinstance(value, (dict, list)):
                    waiting.append((value, here))
        return taken

    def text(self, text: str, path: tuple[str, ...], taken: list[dict[str, str]]) -> str:
        """Return *text* without what the rules' patterns find in it; what that was is added to *taken*."""
        for rule, pattern, group in self._patterns():
            pieces, end = [], 0
            for match in pattern.finditer(text):
                found = match[group]
                if found and not found.startswith(MARKS) and (rule.is_right is None or rule.is_right(found)):
                    pieces += [text[end : match.start(group)], rule.instead_of(found)]
                    end = match.end(group)
            if pieces:
                text = "".join([*pieces, text[end:]])
                _note(taken, path, rule)
        return text

    def _patterns(self) -> Iterator[tuple[Rule, re.Pattern[str], int]]:
        for rule in self._rules:
            for pattern, group in rule.patterns:
                yield rule, re.compile(pattern), group

    def _whole(self, key: str, path: tuple[str, ...]) -> Rule | None:
        """Return the rule that takes the value under *key*, at *path*, whatever it is."""
        for rule in self._paths:
            if len(rule.path) == len(path) and all(a in {"*", b} for a, b in zip(rule.path, path, strict=True)):
                return rule
        name = key.lower().replace("-", "").replace("_", "") if self._named else ""
        return next((rule for rule in self._named if name in rule.names or name.endswith(rule.endings)), None)

    def _rename(self, container: dict[str, Any], path: tuple[str, ...], taken: list[dict[str, str]]) -> None:
        """Take out of a dict's keys what the patterns find: some are keyed by what should not be seen."""
        spares: dict[str, int] = {}  # remembered: of ten thousand keys alike the last must not try all numbers again
        for key in list(container):
            name = left = self.text(key, (*path, "key"), taken)
            if name != key:
                while name in container:
                    spares[left] = spares.get(left, 1) + 1
                    name = f"{left}#{spares[left]}"
                container[name] = container.pop(key)


_MOST_KEYS: Final = 4096
_PATH_NAME_CHARS: Final = 200  # of a key, in the path of what is below it: each place there gets a copy
_TYPES: Final = ("string", "str", "integer", "number", "boolean", "object", "array")


def _items(container: dict[str, Any] | list[Any]) -> list[tuple[Any, Any]]:
    return list(container.items()) if isinstance(container, dict) else list(enumerate(container))


def _hides(rule: Rule, value: object) -> bool:
    """
    Say whether there is anything to hide in *value*: no name without a value, no yes or no.

    By its name alone an object is not taken: a tool's parameter called "password" is described by one, or by its type.
    """
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return False
    if isinstance(value, str) and value.startswith(MARKS):
        return False
    return bool(rule.path) or not (isinstance(value, dict) or value in _TYPES)


def _take(container: Any, key: Any, rule: Rule, value: object) -> None:
    if rule.action == "drop" and isinstance(container, dict):
        del container[key]
    else:
        container[key] = rule.instead_of(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _note(taken: list[dict[str, str]], path: tuple[str, ...], rule: Rule) -> None:
    if len(taken) < MAX_NAMED:
        names = (name if len(name) <= _PATH_NAME_CHARS else f"{name[:_PATH_NAME_CHARS]}..." for name in path)
        entry = {"path": ".".join(names), "rule": rule.name}
        if entry not in taken:
            taken.append(entry)
