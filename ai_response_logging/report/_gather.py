"""Everything the page says, from one pass over the records; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..analysis._figures import ENDS, Tally, figures
from ..matrix.grid import Grid, grids_of
from ._calls import ChosenCalls, text_of
from ._matrix import runs_shown
from ._timeline import Timeline

__all__ = ["gather"]

_BY: Final = ("platform", "model")
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
_MOST_GROUPS: Final = 200
_MOST_NAME_CHARS: Final = 200
_MOST_ERRORS: Final = 50
_MOST_MODELS: Final = 3  # that an error names


class _Errors:
    """Counts failed calls by kind and, within it, by model."""

    def __init__(self) -> None:
        self._by_kind: dict[str | None, Counter[str | None]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        kind, model = text_of(record.get("error_type")), text_of(record.get("model"))
        self._by_kind.setdefault(kind, Counter())[model] += 1

    def kinds(self) -> list[dict[str, Any]]:
        ordered = sorted(self._by_kind.items(), key=lambda entry: (-entry[1].total(), entry[0] or ""))
        return [
            {"error_type": kind, "calls": models.total(), "models": models.most_common(_MOST_MODELS)}
            for kind, models in ordered
        ]


class _Pass:
    """All that is counted while records go by on their way to the grids."""

    def __init__(self, offset_s: int, calls: ChosenCalls) -> None:
        self.groups, self.all = Tally(_BY), Tally(())
        self.timeline, self.errors, self.calls = Timeline(offset_s), _Errors(), calls
        self.questions: dict[str, str] = {}
        self.first_s: float | None = None
        self.last_s: float | None = None

    def through(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for record in records:
            if record.get("event") in ENDS:
                self._add(record)
            yield record

    def _add(self, record: Mapping[str, Any]) -> None:
        self.groups.add(record)
        self.all.add(record)
        self.calls.add(record)
        is_success = record.get("success") is True
        unix_s, tokens = record.get("unix_timestamp"), record.get("tokens_used")
        if not isinstance(unix_s, int | float) or isinstance(unix_s, bool) or not 0 <= unix_s <= _LAST_SECOND:
            unix_s = None
        else:
            self.first_s = unix_s if self.first_s is None else min(self.first_s, unix_s)
            self.last_s = unix_s if self.last_s is None else max(self.last_s, unix_s)
        self.timeline.add(unix_s, succeeded=is_success, tokens=tokens if type(tokens) is int else 0)
        if not is_success:
            self.errors.add(record)
        if record.get("execution_id") and not record.get("question_index"):
            # The grid keeps no text of a question without a number; the page has to name it.
            question, record_id = text_of(record.get("question"), 120), record.get("record_id")
            if question and isinstance(record_id, str):
                self.questions[record_id] = question


def _clipped(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures with names that are no longer than anybody reads."""
    return dict(group) | {name: text_of(group[name], _MOST_NAME_CHARS) for name in _BY}


def gather(
    records: Iterable[Mapping[str, Any]], *, offset_s: int = 0, calls: ChosenCalls | None = None
) -> dict[str, Any]:
    """
    Return the page's data but for its head: figures, runs, time line, errors, calls.

    Args:
        records: Flat records, read once.
        offset_s: Of the zone in which the time line's days begin, in seconds east of UTC.
        calls: Holds the calls whose texts may be shown.
    """
    counted = _Pass(offset_s, calls or ChosenCalls())
    grids: list[Grid] = list(grids_of(counted.through(records)).values())
    by_model = figures(_BY, counted.groups.groups(), 0)
    whole = figures((), counted.all.groups(), 0)["groups"]
    errors, chosen = counted.errors.kinds(), counted.calls.chosen()
    return {
        "records": by_model["records"],
        "succeeded": by_model["succeeded"],
        "failed": by_model["failed"],
        "latency_ms": whole[0]["latency_ms"] if whole else {},
        "tokens": whole[0]["tokens"] if whole else 0,
        "first_s": counted.first_s,
        "last_s": counted.last_s,
        "groups": [_clipped(group) for group in by_model["groups"][:_MOST_GROUPS]],
        "groups_in_all": len(by_model["groups"]),
        "timeline": counted.timeline.buckets(),
        "errors": errors[:_MOST_ERRORS],
        "errors_in_all": len(errors),
        "runs": runs_shown(grids, chosen["calls"], counted.questions),
        "runs_in_all": len(grids),
        "calls": chosen,
    }
