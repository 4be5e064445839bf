"""Look at what two left that met: every record once, nothing of those forgotten, a log that proves whole."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Final

from helpers import log_files, read_lines  # type: ignore[import-not-found]  # of the tests

from ai_response_logging.forget import Selector, forget
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.reader import read_log
from ai_response_logging.verify import verify_log

from .jobs import is_deleted

__all__ = ["judge", "users_of"]

_PATIENT_S: Final = 20.0
_MAY_STAY: Final = re.compile(r"log\.jsonl\.(blobs|journal)|\.__log\.jsonl\.lock|log\.jsonl\.torn-.*")


def users_of(log: str) -> dict[str, str]:
    """Return whose each record of *log* is."""
    return {record["record_id"]: str(record.get("user_id", "")) for record in read_log(log)}


def judge(place: str, notes: str, *, gone: set[str], may_go: set[str], packs: bool) -> None:
    """
    Note what is wrong.

    Args:
        place: Where both ran.
        notes: What they noted, and where to note it.
        gone: Records that were to be forgotten.
        may_go: Records that might be deleted.
        packs: Whether whoever comes next compresses old files.
    """
    log = os.path.join(place, "logs", "log.jsonl")
    words = [line.split() for line in Path(notes).read_text("utf-8").splitlines()]
    accepted = {one[1] for one in words if one[0] == "record" and one[2] != "failed"}
    problems = _found_by_readers(log, accepted - gone - may_go, accepted, may_go)
    handler = AIResponseHandler(log, close_timeout=_PATIENT_S, flush_interval=1000.0, retry_delay=0.001, compress=packs)
    if not handler.flush():
        problems.append(f"it does not all come home: {handler.get_stats()['last_error']}")
    handler.close()
    if gone:
        report = forget(log, Selector(user_id="bob"))
        problems += [f"forget: {complaint}" for complaint in report.complaints]
    problems += _in_files(log, accepted - gone, may_go)
    problems += _of_verify("in the end", log, may_go)
    problems += _left_over(log)
    with open(notes, "a", encoding="utf-8") as file:
        file.writelines("problem {}\n".format(problem.replace("\n", "\x1f")) for problem in problems)


def _found_by_readers(log: str, wanted: set[str], accepted: set[str], may_go: set[str]) -> list[str]:
    """Return what is wrong for a reader before anybody else has come."""
    found = Counter(record["record_id"] for record in read_log(log) if record.get("event") != "forgotten")
    return [*_compared("before anybody else came", wanted, accepted, found), *_of_verify("then", log, may_go)]


def _in_files(log: str, accepted: set[str], may_go: set[str]) -> list[str]:
    try:
        records = [record for file in log_files(log) for record in read_lines(file)]
    except AssertionError as error:
        return [str(error)]
    found = Counter(record["record_id"] for record in records if record.get("event") != "forgotten")
    return _compared("in the end", accepted - may_go, accepted, found)


def _compared(when: str, wanted: set[str], accepted: set[str], found: Counter[str]) -> list[str]:
    lost = sorted(wanted - found.keys())
    doubled = sorted(record_id for record_id, count in found.items() if count > 1)
    foreign = sorted(found.keys() - accepted)
    if not (lost or doubled or foreign):
        return []
    return [f"{when}: lost {lost}, doubled {doubled}, there although not accepted, or forgotten, {foreign}"]


def _of_verify(when: str, log: str, may_go: set[str]) -> list[str]:
    problems = verify_log(log).problems
    return [f"{when}: verify tells of {one}" for one in problems if not (may_go and is_deleted(one.kind, one.detail))]


def _left_over(log: str) -> list[str]:
    ours, names = {file.name for file in log_files(log)}, os.listdir(os.path.dirname(log))
    left = [name for name in names if name not in ours and not _MAY_STAY.fullmatch(name)]
    left += [str(path) for path in Path(f"{log}.journal").rglob("*") if path.name != "location"]
    left += [str(path) for path in Path(f"{log}.blobs").rglob("*.*")]
    return [f"left over: {sorted(left)}"] if left else []
