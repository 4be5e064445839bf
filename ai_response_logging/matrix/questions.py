"""Questions from a file: one a line, one JSON value a line, or a table; each complaint names the line."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from ..errors import ConfigError
from .parts import QUESTION_KEYS, Question


class QuestionLine(NamedTuple):
    """A question, and the line of its file on which it begins."""

    line: int
    question: Question


def load_questions(path: str | os.PathLike[str]) -> list[Question]:
    """
    Read questions from a file in UTF-8.

    ``.txt`` holds one question a line; ``.jsonl`` a JSON text or an object with the keys of a question on each line;
    ``.csv`` a table whose header names those keys. Empty lines, and empty cells, are passed over.

    Raises:
        ConfigError: It cannot be read, has none, or one that is no question; the message names file and line.

    .. versionadded:: 0.1.0
    """
    return [each.question for each in question_lines(path)]


def question_lines(path: str | os.PathLike[str]) -> list[QuestionLine]:
    """Return the questions of a file with their lines; raises as `load_questions`."""
    name = os.fspath(path)
    ending = os.path.splitext(name)[1].lower()
    if ending not in _READERS:
        raise ConfigError(f"questions are read from {', '.join(_READERS)}, and {name} ends in none of these")
    try:
        # No newline translation: inside the quotes of a table a line may end as it likes.
        with open(name, encoding="utf-8-sig", newline="") as file:
            found = list(_READERS[ending](file, name))
    except OSError as error:
        raise ConfigError(f"the questions in {name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the questions in {name} are not in UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8"
        ) from error
    if not found:
        raise ConfigError(f"there is no question in {name}")
    return found


def known_keys(
    item: Mapping[Any, Any], allowed: Mapping[str, object], where: Callable[[object], str]
) -> dict[str, Any]:
    """
    Return *item* without the keys that have no value.

    Raises:
        ConfigError: It has a key that is not *allowed*; *where* makes its place of it.
    """
    for key in item:
        if key not in allowed:
            raise ConfigError(_unknown(key, list(allowed)), where(key))
    return {str(key): value for key, value in item.items() if value is not None}  # `seed:` with nothing behind it


def _unknown(key: object, allowed: list[str]) -> str:
    if key == "api_key":
        return "a key does not belong into a plan: put it into an environment variable and name that as api_key_env"
    near = "competitors" if key == "competitor" else next(iter(difflib.get_close_matches(str(key), allowed, n=1)), None)
    hint = f" (did you mean {near}?)" if near in allowed else ""
    return f"{key!r} is no key of a plan{hint}; allowed here: {', '.join(allowed)}"


def _question_of(keys: Mapping[Any, Any], where: str) -> Question:
    given = known_keys(keys, QUESTION_KEYS, lambda _key: where)
    if "text" not in given:
        raise ConfigError("text is missing: every question needs one", where)
    try:
        return Question(**given)
    except ConfigError as error:
        raise ConfigError(error.problem, where) from None


def _from_text(file: Any, _name: str) -> Iterator[QuestionLine]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield QuestionLine(number, Question(line.strip()))


def _from_json_lines(file: Any, name: str) -> Iterator[QuestionLine]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"this is no JSON: {error}", where) from None
        if not isinstance(item, str | dict):
            raise ConfigError(f"a JSON text or an object with the key text is needed, got {item!r}", where)
        yield QuestionLine(number, _question_of({"text": item} if isinstance(item, str) else item, where))


def _from_table(file: Any, name: str) -> Iterator[QuestionLine]:
    table = csv.reader(file, strict=True)  # or a quote that nobody closes would swallow the rest of the file
    begun = 1
    try:
        header = [cell.strip() for cell in next(table, [])]
        known_keys(dict.fromkeys(header), QUESTION_KEYS, lambda _column: f"{name}, line 1")
        if "text" not in header or len(set(header)) < len(header):
            raise ConfigError(
                f"the first line must name the columns, each once, and text among them; it has {', '.join(header)}",
                f"{name}, line 1",
            )
        begun = table.line_num + 1
        for cells in table:
            where = f"{name}, line {begun}"
            if any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    raise ConfigError(
                        f"{len(cells)} cells stand under {len(header)} columns; quote what has a comma", where
                    )
                keys = {column: cell for column, cell in zip(header, cells, strict=False) if cell.strip()}
                yield QuestionLine(begun, _question_of(keys, where))
            begun = table.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"this is no table of comma-separated values: {error}", f"{name}, line {begun}") from None


_READERS: Final[Mapping[str, Callable[[Any, str], Iterator[QuestionLine]]]] = {
    ".txt": _from_text,
    ".jsonl": _from_json_lines,
    ".csv": _from_table,
}
