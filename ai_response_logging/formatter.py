"""
One LogRecord -> exactly one line of bytes.

The short way takes the record's extra fields straight into orjson behind a head of our own fields. What orjson
refuses, or would falsify, goes the careful way through :mod:`._plain`; nothing makes a record vanish.
"""

from __future__ import annotations

import copy
import logging
import marshal
import os
import threading
import time
from datetime import date, datetime
from datetime import time as time_of_day
from functools import lru_cache
from itertools import count
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

import orjson

from . import _fast_json
from ._cleaning import SECRETS_ONLY, Cleaner, Parts
from ._fast_json import SMALL, claim_stack, dumps, dumps_plain, loads_plain, look_again
from ._formatter_options import NOT_EXTRA, FieldsFormatter, copy_of, created_us
from ._plain import has_unfaithful_null, plain_fields
from .record import (
    OWN_FIELDS,
    SCHEMA_VERSION,
    Encoded,
    date_and_time,
    host_name,
    new_writer_id,
    provider_of,
    seal,
    tail_of,
    uuid7,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["STATUS_ATTRIBUTE", "AIResponseFormatter", "Head", "Status", "cleaned_by", "current_head"]

STATUS_ATTRIBUTE: Final = "ai_status"
_IN_HEAD: Final = OWN_FIELDS | {"record_id", "event"}
_BEGIN: Final = b'{"schema_version":"%b","record_id":' % SCHEMA_VERSION.encode("ascii")
_NO_ARGS: Final = ()  # there is one such object
_PLAIN: Final = frozenset({str, int, NoneType})
_USUAL_BYTES: Final = 100
_MOST_KNOWN: Final = 512
_MOST_NAMES: Final = 200
_MOST_LOOKS: Final = 50
# LogRecord's own attributes come first in its __dict__, in this order; what follows is the application's.
_ATTRIBUTES: Final = tuple(vars(logging.LogRecord("", 0, "", 0, "", (), None)))


class Status(str):
    """What became of a record, as it stands on the LogRecord; a str that knows who gave it, and to which record."""

    __slots__ = ("given", "taken")

    taken: object
    """Which record was taken, and where; equal for the same record and the same log of one process."""
    given: object
    """What the application itself had put there; None for nothing."""

    @classmethod
    def of(cls, status: str, taken: object, before: object) -> Status:
        """Return *status*, given for *taken*, in the place of *before*."""
        new = cls(status)
        new.taken, new.given = taken, before.given if type(before) is Status else before
        return new


_new: Final = tuple.__new__  # what a NamedTuple's own does in Python code
_EMPTY: Final = len(b"{}")


class Head(NamedTuple):
    """What `logging` itself knows of a record; `created` is in seconds since 1970."""

    created: float
    level: str
    logger: str
    message: str
    pid: int
    thread: str | None


_Head = Head | tuple[float, str, str, str, int, str | None]


@lru_cache(maxsize=512)
def _quoted(text: str) -> bytes:
    """Return *text* as a JSON string; for the few texts that come again and again."""
    return _quote(text, "", [])


def _quote(value: object, path: str, named: list[dict[str, str]]) -> bytes:
    """Return *value* as a JSON string, whatever it is; what had to be replaced is added to *named*."""
    try:
        text = value if type(value) is str else _text_of(value, path, named)
        return dumps_plain(text, is_small=len(text) <= SMALL)
    except UnicodeEncodeError:  # a lone surrogate
        return dumps_plain(_text_of(value, path, named))


def _text_of(value: object, path: str, named: list[dict[str, str]]) -> str:
    plain, replaced = plain_fields({path: value})
    named.extend(replaced)
    text = plain[path]
    return text if isinstance(text, str) else dumps_plain(text).decode()


class AIResponseFormatter(FieldsFormatter):
    """
    Formats a LogRecord as one line of the log.

    It is a python-json-logger formatter and takes that package's options (``rename_fields``, ``static_fields``,
    ``defaults``, ``json_default``, ...) for the application's own fields; the fields that make a line
    provable (:data:`~.record.OWN_FIELDS`, ``record_id``) keep their names.

    Raises:
        ConfigError: An option cannot be used; the text names it.

    Threads: any.
    """

    cleaner: Cleaner = SECRETS_ONLY
    """What goes over a record before anything keeps it; a handler of ours sets its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._host = _quoted(host_name())
        self._known: dict[tuple[object, ...], bytes] = {}
        self._own_pid = 0

    def format(self, record: logging.LogRecord) -> str:
        """
        Return *record* as one line without its newline, for use on any handler.

        The formatter is a writer of its own then, with its own numbers.
        """
        if self._own_pid != os.getpid():  # the first line; and a child must not go on with its parent's numbers
            self._own_pid, self._own_tail, self._own_lines = os.getpid(), tail_of(new_writer_id()), count()
        return seal(self.encode(record).body, self._own_tail, next(self._own_lines)).decode().removesuffix("\n")

    def encode(self, record: logging.LogRecord) -> Encoded:
        """Return *record* encoded, as :attr:`cleaner` leaves it; never raises for a value in it."""
        named: list[dict[str, str]] = []
        message, is_text = record.msg, type(record.msg) is str
        if not is_text or record.args is not _NO_ARGS:
            message = self._message_of(record, named)
        if self._is_plain and (is_text or not _is_dict(record.msg)):
            fields, plan = _extra_of(record.__dict__)
            if not (record.exc_info is None and record.exc_text is None and record.stack_info is None) and any(
                map(_is_given, (record.exc_info, record.exc_text, record.stack_info))
            ):
                for name, value in self._exception_fields(record, named).items():
                    fields.setdefault(name, value)
                plan = _plan_of(fields)
        else:
            known = copy_of(record, message)
            _take_back(known.__dict__)
            message_dict = dict.copy(record.msg) if _is_dict(record.msg) else {}
            fields = self._fields_by_options(known, message_dict, named)
            plan = _plan_of(fields)
        head = (record.created, record.levelname, record.name, message, _pid_of(record), record.threadName)
        return self._encode(fields, plan, head, named)

    def encode_fields(self, fields: dict[str, Any], head: Head) -> Encoded:
        """
        Return *fields* encoded behind *head*, as the options want them.

        Args:
            fields: The application's fields; the dict is ours to change, its values are not.
            head: What stands before them.
        """
        named: list[dict[str, str]] = []
        if not self._is_plain:
            given = {key: value for key, value in fields.items() if value is not None}
            fields = self._fields_by_options(_record_of(head), given, named)
        return self._encode(fields, _plan_of(fields), head, named)

    def _encode(self, fields: dict[str, Any], plan: _Plan, head: _Head, named: list[dict[str, str]]) -> Encoded:
        if plan.own:
            _set_aside(fields, plan.own)
        if plan.has_platform and issubclass(type(platform := fields["platform"]), str):
            fields["provider"] = provider_of(platform)
        created, level, logger, message, pid, thread = head
        micros = created_us(created)
        second, micro = divmod(micros, 1_000_000)
        before, between = _times_of(second)
        given = fields.pop("record_id", None) if plan.has_id else None
        if given is not None and _is_given(given):
            quoted = _quote(given, "record_id", named)
            record_id = loads_plain(quoted)
        else:
            record_id = uuid7(micros // 1000, pid)
            quoted = b'"%b"' % record_id.encode("ascii")
        event = fields.pop("event", None) if plan.has_event else None
        taken: list[dict[str, str]] = []
        circumstances = self._circumstances((level, logger, message, pid), event, named, taken)
        text, parts = (None, None) if named else _short_way(fields, plan)
        text = self.cleaner.clean(self._careful_way(fields, named) if text is None else text, parts, taken)
        digits = b"%06d" % micro
        pieces = (_BEGIN, quoted, before, digits, between, digits, circumstances, _name(thread), b",", text[1:-1])
        body = b"".join(pieces)
        return _new(Encoded, (body if len(text) > _EMPTY else body[:-1], record_id, bool(named)))

    def _careful_way(self, fields: Mapping[Any, Any], named: list[dict[str, str]]) -> bytes:
        claim_stack()
        plain, replaced = self._plain_fields({key: value for key, value in fields.items() if value is not None})
        named.extend(replaced)
        # A key that was no text may read like one of ours now.
        if not _IN_HEAD.isdisjoint(plain):
            _set_aside(plain, [(name, f"caller.{name}") for name in _IN_HEAD & plain.keys()])
        if named:
            plain["encode_errors"] = named
        return dumps_plain(plain)

    def _circumstances(
        self, about: tuple[str, str, str, int], event: object, named: list[dict[str, str]], taken: list[dict[str, str]]
    ) -> bytes:
        """Return what stands between a line's times and its thread's name; the same for nearly all lines."""
        level, logger, message, pid = about
        if event is None and type(message) is str and len(message) <= _USUAL_BYTES:
            try:
                return self._known[about]
            except Exception:  # noqa: BLE001, S110  not known yet, or a name from elsewhere that cannot be looked up
                pass
        made = b',"event":%b,"level":%b,"logger":%b,"message":%b,"host":%b,"pid":%d,"thread":' % (
            _quote(event if _is_given(event) else "response", "event", named), _name(level), _name(logger),
            _quote(self.cleaner.message(message, taken), "message", named), self._host, pid,
        )  # fmt: skip
        if (
            event is None
            and not named
            and not taken
            and len(message) <= _USUAL_BYTES
            and _PLAIN.issuperset(map(type, about))
        ):
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[about] = made
        return made

    def _message_of(self, record: logging.LogRecord, named: list[dict[str, str]]) -> str:
        if _is_dict(record.msg):  # python-json-logger's habit: the dict is the fields, its "message" ours
            text = dict.get(record.msg, "message")
            return text if type(text) is str else ""
        try:
            return record.getMessage()
        except Exception as error:  # noqa: BLE001  bad %-arguments or a __str__ that raises: keep what can be kept
            plain, _ = plain_fields({"message": record.msg, "args": record.args})
            named.append({"path": "message", "type": type(error).__name__})
            return f"{plain['message']} {plain['args']}"


_second: tuple[int, bytes, bytes] = (-1, b"", b"")


def _times_of(second: int) -> tuple[bytes, bytes]:
    """Return what stands before the microseconds of a line's timestamp, and between those and its unix_timestamp's."""
    global _second  # noqa: PLW0603  one immutable tuple, so a race between threads only makes it twice
    known, before, between = _second
    if known != second:
        look_again()
        before, between = b',"timestamp":"%b.' % date_and_time(second), b'Z","unix_timestamp":%d.' % second
        _second = (second, before, between)
    return before, between


def cleaned_by(formatter: AIResponseFormatter, cleaner: Cleaner) -> AIResponseFormatter:
    """Return *formatter* with *cleaner*, or a copy of it where it serves a handler with another one already."""
    if formatter.cleaner is not cleaner:
        if formatter.cleaner is not SECRETS_ONLY:
            formatter = copy.copy(formatter)
        formatter.cleaner = cleaner
    return formatter


def current_head(message: str, level: str, logger: str) -> Head:
    """Return the head of a record that is made here and now, without a LogRecord."""
    return _new(Head, (time.time(), level, logger, message, os.getpid(), threading.current_thread().name))


def _record_of(head: Head) -> logging.LogRecord:
    """Return *head* as a LogRecord, for options and overrides that want one."""
    level = logging.getLevelNamesMapping().get(head.level, logging.INFO)
    record = logging.LogRecord(head.logger, level, "", 0, head.message, (), None)
    record.created, record.process, record.threadName = head.created, head.pid, head.thread
    return copy_of(record, head.message)


class _Plan:
    """What fields of certain names, in a certain order, need."""

    __slots__ = ("all", "harmless_to", "has_event", "has_id", "has_platform", "is_extra", "looks", "own")

    def __init__(self, names: Collection[Any]) -> None:
        self.own = tuple((name, f"caller.{name}") for name in OWN_FIELDS.intersection(names))
        """Names of ours among them, and those that they get instead."""
        self.all = (*names, "provider", "metadata")
        """They, and those that we may add; with :attr:`harmless_to` for the look for secrets."""
        self.harmless_to: object = None
        self.has_platform = "platform" in names and "provider" not in names
        self.has_id, self.has_event = "record_id" in names, "event" in names
        self.is_extra = NOT_EXTRA.isdisjoint(names) and STATUS_ATTRIBUTE not in names
        """Whether all of them are the application's, if they are on a LogRecord."""
        self.looks: dict[tuple[type, ...], _Looks] = {}
        """For the classes of their values, in the same order."""


# What of a record's fields must be looked at before they are kept, as their values' classes ask: the names of unknown
# ones, of floats, of containers, of texts. A NamedTuple takes longer to take apart.
_Looks = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


# Applications log the same fields again and again: what their names ask for is found out once.
_plans: dict[tuple[Any, ...], _Plan] = {}


def _plan_of(fields: dict[str, Any]) -> _Plan:
    """Return what *fields* need."""
    names = tuple(fields)
    try:
        return _plans[names]
    except Exception:  # noqa: BLE001, S110  not known yet, or names that cannot be looked up
        pass
    plan = _Plan(fields.keys())
    # Few, and none of foreign classes: those are equal to whatever they say.
    if len(names) <= _MOST_NAMES and all(type(name) is str and len(name) <= _USUAL_BYTES for name in names):
        if len(_plans) >= _MOST_KNOWN:
            _plans.clear()
        _plans[names] = plan
    return plan


def _extra_of(attributes: dict[str, Any]) -> tuple[dict[str, Any], _Plan]:
    """Return those of a record's *attributes* that are the application's, in a new dict, and what they need."""
    # Taking the others out of a copy costs a third of putting these into a new one.
    extra = attributes.copy()
    try:
        for name in _ATTRIBUTES:
            del extra[name]
    except KeyError:  # a record from elsewhere
        pass
    plan = _plan_of(extra)
    if plan.is_extra:
        return extra, plan
    extra = {key: value for key, value in extra.items() if key not in NOT_EXTRA}
    if STATUS_ATTRIBUTE in extra:
        _take_back(extra)
    return extra, _plan_of(extra)


def _take_back(fields: dict[str, Any]) -> None:
    """Put back what the application had under the name of the status that a handler before us left; it is no data."""
    status = fields.get(STATUS_ATTRIBUTE)
    if type(status) is Status:
        fields[STATUS_ATTRIBUTE] = status.given
        if status.given is None:
            del fields[STATUS_ATTRIBUTE]


# Values are of foreign classes: isinstance() asks them what they are (a Mock says whatever it was told), and their
# truth may raise (an array's does).


def _is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    return issubclass(type(value), dict)


def _is_given(value: object) -> bool:
    """Say whether *value* is anything but None, empty or zero."""
    try:
        return bool(value)
    except Exception:  # noqa: BLE001  as said
        return True


def _pid_of(record: logging.LogRecord) -> int:
    pid = record.process
    return pid if type(pid) is int and pid else os.getpid()  # a record from elsewhere may carry anything


def _name(name: object) -> bytes:
    """Return a level's, logger's or thread's name as a JSON string; a record from elsewhere may have none."""
    return _quoted(name) if type(name) is str else _quote(name if _is_given(name) else "", "name", [])


def _set_aside(fields: dict[str, Any], names: Iterable[tuple[str, str]]) -> None:
    """Move the caller's values under names of ours into ``metadata``, a new dict, under those told beside them."""
    metadata = fields.get("metadata")
    moved = dict.copy(metadata) if _is_dict(metadata) else {} if metadata is None else {"metadata": metadata}
    for name, other in names:
        moved[other] = fields.pop(name)
    fields["metadata"] = moved


# orjson leaves out a zero in the microseconds of some times.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME
_TIMES: Final = (datetime, date, time_of_day)
_LEAVES: Final = frozenset({str, int, bool, *_TIMES})
_FLAT: Final = frozenset({str, int, bool, NoneType})
_KINDS: Final = frozenset({*_FLAT, *_LEAVES, float, dict, list, tuple})
_INFINITY: Final = float("inf")
_MOST_LEVELS: Final = 50


def _own(value: Any, dicts: list[Any], characters: list[int], levels: int = _MOST_LEVELS) -> Any:
    """
    Return a copy of the list or dict *value* that nobody else has; ValueError where only the careful way is right.

    All dicts that were copied are added to *dicts*, and how much text was met to the first of *characters*.

    orjson walks a list or a dict without holding what is in it. Python code that it calls on the way (an enum's value,
    a time's zone) may change that list, or let another thread change it, and the process ends with a SIGSEGV. So it
    gets a copy of each, in which all is of classes without Python code.
    """
    kind = type(value)
    if not levels:
        raise RecursionError
    own: Any
    items: Any
    if kind is dict:
        own = value.copy()
        dicts.append(own)
        items = own.items()
    elif kind is list or kind is tuple:
        own = [*value]
        items = enumerate(own)
    else:
        raise ValueError
    met = 0
    for place, item in items:
        if (kind := type(item)) is str:
            met += len(item)
        elif kind is float:
            if not -_INFINITY < item < _INFINITY:
                raise ValueError
        elif kind not in _FLAT:
            own[place] = _own(item, dicts, characters, levels - 1)
    characters[0] += met
    return own


def _inner(value: Any) -> orjson.Fragment:
    """Return the list or dict *value* as JSON, as :func:`_own` does with its copy; for what is nested deep."""
    own = marshal.loads(marshal.dumps(value))  # noqa: S302  our own bytes, and marshal refuses what has Python code
    text = dumps(own)
    if b"null" in text and has_unfaithful_null(own):
        raise ValueError
    return orjson.Fragment(text)


def _default(value: object) -> object:
    """Give orjson the one kind that it is told to leave to us; anything else goes the careful way."""
    if type(value) in _TIMES:
        return value.isoformat()  # type: ignore[attr-defined]  # as the line above says
    raise TypeError


def _short_way(fields: dict[str, Any], plan: _Plan) -> tuple[bytes, Parts] | tuple[None, None]:
    """Return *fields*, which are ours to change, as a JSON object; None where only the careful way is right."""
    kinds = tuple(map(type, fields.values()))
    try:
        unknown, floats, containers, texts = plan.looks.get(kinds) or _looks_at(fields, kinds, plan)
        characters = [0]
        for name in texts:
            characters[0] += len(fields[name])
        for name in unknown:
            del fields[name]
        for name in floats:
            if not -_INFINITY < fields[name] < _INFINITY:
                return None, None
        dicts: list[Any] = []
        for name in containers:
            value = fields[name]
            try:
                fields[name] = _own(value, dicts, characters)
            except RecursionError:
                inner = _inner(value)
                dicts.append(inner)
                characters[0] += SMALL + 1
                fields = {**fields, name: inner}  # in a dict of our own: the careful way must find the value
        # For little text it is enough to have asked within the last second: two system calls less for most records.
        encode = dumps if _fast_json.memory_could_end or characters[0] > SMALL else orjson.dumps
        return encode(fields, _default, _OPTIONS), (fields, dicts, plan)
    except Exception:  # noqa: BLE001  whatever a value's class raises, the careful way is there for it
        return None, None


def _looks_at(fields: dict[str, Any], kinds: tuple[type, ...], plan: _Plan) -> _Looks:
    """Return what of *fields*, whose values are of *kinds*, must be looked at, and remember it for the next record."""
    of = list(zip(fields, kinds, strict=True))
    unknown, floats, texts = (tuple(name for name, one in of if one is kind) for kind in (NoneType, float, str))
    leaves = {NoneType, float, *_LEAVES}
    looks = (unknown, floats, tuple(name for name, one in of if one not in leaves), texts)
    if _KINDS.issuperset(kinds):  # a foreign class would be kept alive
        if len(plan.looks) >= _MOST_LOOKS:
            plan.looks.clear()
        plan.looks[kinds] = looks
    return looks
