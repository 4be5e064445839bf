"""
python-json-logger's options: which of them a line can follow, and what they make of a record's fields.

They act on the application's fields only. What stands around those, and how bytes are made of both, is
:mod:`.formatter`'s affair; without an option in effect it does not come here at all.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS, BaseJsonFormatter

from ._json_default import ask_by, plain_fields_asking
from ._plain import plain_fields
from .errors import ConfigError, ConfigWarning

__all__ = ["NOT_EXTRA", "FieldsFormatter", "copy_of", "created_us"]

# What is not the application's data: LogRecord's own attributes, and what formatters leave on a record.
NOT_EXTRA: Final = frozenset({*vars(logging.makeLogRecord({})), *RESERVED_ATTRS, "taskName"})

# option: the value that asks for what a line is anyway, and why no other can be followed
_UNFOLLOWED: Final[Mapping[str, tuple[object, str]]] = {
    "prefix": ("", "a line is a JSON object from its first byte on"),
    "json_indent": (None, "a record is one line"),
    "json_ensure_ascii": (False, "text stands in the file as it is, so that grep finds it"),
    "json_serializer": (None, "orjson writes the lines; json_default may say how objects are written"),
}
_UNCALLED: Final = ("format", "serialize_log_record", "jsonify_log_record")
_TRACES: Final = frozenset({"exc_info", "stack_info"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999_S: Final = 253_370_764_800

_Named = list[dict[str, str]]


class FieldsFormatter(BaseJsonFormatter):
    """
    python-json-logger's formatter as far as a record's fields.

    Args:
        fmt, datefmt, style, validate: As of python-json-logger; None is the same as not given.
        options: As of python-json-logger's ``JsonFormatter``. ``docs/reference/configuration.md`` says what each does.

    Raises:
        ConfigError: An option cannot be used; the text names it.
        TypeError: There is no such option (the type by which dictConfig finds out that ``format`` is ``fmt`` here).

    Warns:
        ConfigWarning: An option would make a line something else than one line of JSON in UTF-8, or a subclass
            overrides what is never called. It has no effect.
    """

    def __init__(
        self,
        fmt: str | Sequence[str] | None = None,
        datefmt: str | None = None,
        style: str | None = "%",
        validate: bool | None = True,  # noqa: FBT001, FBT002  dictConfig passes it by position
        **options: Any,
    ) -> None:
        _check_format(fmt, datefmt, style)
        unfollowed = {name: options.pop(name) for name in _UNFOLLOWED if name in options}
        self._ask = ask_by(options.pop("json_default", None), options.pop("json_encoder", None))
        for name in ("rename_fields", "static_fields", "defaults"):
            options[name] = _mapping(name, options.get(name))
        options["reserved_attrs"] = _reserved(options.get("reserved_attrs"))
        try:
            super().__init__(fmt, datefmt, style or "%", validate is not False, **options)
        except ValueError as error:  # not TypeError: dictConfig wants to see that one
            raise ConfigError(f"fmt (format in a dictConfig) {fmt!r} of style {style!r} is none: {error}") from error
        self._wanted = [*self._required_fields, *sorted(NOT_EXTRA - self.reserved_attrs)]
        self._left_out = self.reserved_attrs - NOT_EXTRA
        overrides = (
            type(self).add_fields is not FieldsFormatter.add_fields
            or type(self).process_log_record is not BaseJsonFormatter.process_log_record
        )
        # The message is wanted where nothing was said, and stands in the line anyway.
        self._is_plain = not (
            overrides or {*self._wanted} - {"message"} or self.rename_fields or self.static_fields
            or self.defaults or self.timestamp or self._left_out
        )  # fmt: skip
        _warn_of(unfollowed, type(self))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """
        Put a record's fields into *log_data*; each of these gives way to those behind it.

        ``defaults``; what the format names or ``reserved_attrs`` leaves of `logging`'s own; ``static_fields``;
        *message_dict*; the record's extra fields. A None, which means unknown, takes nobody's place.
        """
        known = record.__dict__
        # Tracebacks are left to message_dict, where they are text.
        wanted = {name: None if name in _TRACES else known.get(name) for name in self._wanted}
        extra = {key: value for key, value in known.items() if key not in self._left_out and key not in NOT_EXTRA}
        for source in (self.defaults, wanted, self.static_fields, message_dict, extra):
            self._put(log_data, source)
        if self.timestamp:
            name = self.timestamp if isinstance(self.timestamp, str) else "timestamp"
            log_data[self.rename_fields.get(name, name)] = _instant(record)
        if self.rename_fields_keep_missing:
            for name in self.rename_fields.values():
                log_data.setdefault(name, None)

    def _put(self, log_data: dict[str, Any], source: Mapping[Any, Any]) -> None:
        taken: set[Any] = set()
        for key, value in source.items():
            name = self.rename_fields.get(key, key)
            # Two values under one name would be one value: the second keeps the name that it came with.
            if name in taken and log_data[name] is value:
                continue
            if name != key and (name in taken or (name in source and name not in self.rename_fields)):
                name = key
            while name in taken:
                name = f"{name}#2"
            if value is not None:
                taken.add(name)
                log_data[name] = value
            else:
                log_data.setdefault(name, None)

    def _fields_by_options(
        self, record: logging.LogRecord, message_dict: Mapping[Any, Any], named: _Named
    ) -> dict[str, Any]:
        """
        Return the application's fields as options and overrides want them, without None.

        Args:
            record: A copy from :func:`copy_of`, ours to change.
            message_dict: Fields that are no attributes of it.
            named: What has to be replaced is added here.
        """
        given = {key: value for key, value in message_dict.items() if key not in self._left_out}
        for name, value in self._exception_fields(record, named).items():
            if given.get(name) is None:
                given[name] = value
        if "asctime" in self._required_fields:
            record.asctime = self.formatTime(record, self.datefmt)
        log_data: dict[str, Any] = {}
        self.add_fields(log_data, record, given)
        processed: object = self.process_log_record(log_data)
        if not isinstance(processed, dict):
            # The fields as they were before are not taken instead: an override may be there to take something out.
            raise TypeError(f"{type(self).__name__}.process_log_record must return a dict, got {processed!r:.80}")
        fields = {key: value for key, value in processed.items() if value is not None}
        # A record is found by its id: no option and no override parts the two.
        own_id = record.__dict__.get("record_id")
        fields.setdefault("record_id", message_dict.get("record_id") if own_id is None else own_id)
        for name, ours in (("message", record.message), ("timestamp", _instant(record))):
            if type(fields.get(name)) is type(ours) and fields[name] == ours:
                del fields[name]  # it is in the line anyway
        return fields

    def _exception_fields(self, record: logging.LogRecord, named: _Named) -> dict[str, Any]:
        """Return what *record* says of an exception and of the stack, as fields."""
        fields: dict[str, Any] = {}
        info: Any = record.exc_info
        if isinstance(info, BaseException):
            info = (type(info), info, info.__traceback__)
        if isinstance(info, tuple) and len(info) == 3 and isinstance(info[0], type):  # noqa: PLR2004  as exc_info() gives
            fields["error_class"] = info[0].__qualname__
            fields["error_message"] = _text_of(info[1], named)
            fields["exc_info"] = self.formatException(info)
        elif record.exc_text:
            fields["exc_info"] = _split(record.exc_text) if self.exc_info_as_array else record.exc_text
        elif not (isinstance(info, tuple) and all(one is None for one in info)):  # a record from elsewhere
            fields["exc_info"] = info or None
        if record.stack_info:
            text = isinstance(record.stack_info, str)
            fields["stack_info"] = self.formatStack(record.stack_info) if text else record.stack_info
        return {name: value for name, value in fields.items() if value is not None}

    def _plain_fields(self, fields: Mapping[Any, object]) -> tuple[dict[str, object], _Named]:
        """Return *fields* as plain JSON values, and what had to be replaced; json_default is asked before."""
        return plain_fields(fields) if self._ask is None else plain_fields_asking(self._ask, fields)


def copy_of(record: logging.LogRecord, message: str) -> logging.LogRecord:
    """
    Return a copy of *record* for options and overrides to work on: with *message*, and a time that is one.

    A LogRecord from elsewhere may carry any time, and what writes it out again would raise.
    """
    # No copy.copy() and no makeLogRecord(): both run the application's code.
    known = logging.LogRecord.__new__(type(record))
    known.__dict__.update(record.__dict__)
    known.message = message
    micros = created_us(record.created)
    if not _is_time(record.created):
        known.created = micros / 1e6
    if type(known.__dict__.get("msecs")) not in (int, float) or not 0 <= known.msecs < 1000:  # noqa: PLR2004  ms in a s
        known.msecs = micros % 1_000_000 / 1000
    return known


def created_us(created: float) -> int:
    """Return a LogRecord's ``created``, seconds since 1970, in microseconds; now, if it is no time that can be."""
    if type(created) is float and 0.0 <= created < _YEAR_9999_S:  # the quick way
        return round(created * 1e6)
    return round(created * 1e6) if _is_time(created) else time.time_ns() // 1000


def _is_time(created: Any) -> bool:
    return issubclass(type(created), (float, int)) and 0 <= created < _YEAR_9999_S


def _instant(record: logging.LogRecord) -> datetime:
    return _EPOCH + timedelta(microseconds=created_us(record.created))


def _text_of(error: object, named: _Named) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  an exception's __str__ is foreign code as well
        named.append({"path": "error_message", "type": type(error).__name__})
        return f"<{type(error).__name__}>"


def _split(text: object) -> object:
    return text.splitlines() if isinstance(text, str) else text


# --- what is checked when a formatter is made --------------------------------------------------------------------


def _check_format(fmt: object, datefmt: object, style: object) -> None:
    names = [fmt] if isinstance(fmt, str) or fmt is None else fmt
    if not isinstance(names, Sequence) or not all(name is None or isinstance(name, str) for name in names):
        raise ConfigError(f"fmt (format in a dictConfig) must be text or a sequence of fields' names, got {fmt!r}")
    if style is not None and not isinstance(style, str):
        raise ConfigError(f"style must be one of % {{ $ and the comma, got {style!r}")
    if datefmt is not None:
        try:
            time.strftime(datefmt, time.gmtime(0))  # type: ignore[arg-type]  # finding that out is the point
        except (TypeError, ValueError) as error:
            raise ConfigError(f"datefmt must be a format for time.strftime, got {datefmt!r}: {error}") from error


def _mapping(option: str, given: object) -> dict[Any, Any]:
    """Return an option's mapping as a dict; item by item, since dictConfig resolves an ``ext://`` when it is got."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{option} must be a mapping, got {given!r}")
    values = {key: given[key] for key in given}
    if option == "rename_fields":
        if not all(isinstance(name, str) for name in values.values()):
            raise ConfigError(f"rename_fields must map names to names, got {values!r}")
    elif "record_id" in values:
        raise ConfigError(f"{option} must not set record_id, got {values['record_id']!r}: no two records have the same")
    return values


def _reserved(given: object) -> list[Any]:
    if given is None:
        return list(NOT_EXTRA)
    if isinstance(given, str) or not isinstance(given, (Sequence, set, frozenset)):
        raise ConfigError(f"reserved_attrs must be a list of names, got {given!r}")
    return list(given)


def _warn_of(unfollowed: Mapping[str, object], made: type) -> None:
    complaints = [
        f"{name}={value!r} has no effect: {_UNFOLLOWED[name][1]}"
        for name, value in unfollowed.items()
        if value is not None and value != _UNFOLLOWED[name][0]
    ]
    for name in _UNCALLED:
        owner = next(one for one in made.__mro__ if name in vars(one))
        if owner.__module__.partition(".")[0] not in {__package__, "pythonjsonlogger"}:
            complaints.append(f"{owner.__name__}.{name} is not called by our handlers; override process_log_record")
    for complaint in complaints:
        warnings.warn(complaint, ConfigWarning, stacklevel=4)
