"""Many attempts, each in a process of its own, in several processes at once."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .shim import library

__all__ = ["work_off"]

T = TypeVar("T")


def work_off(jobs: Sequence[T], attempt: Callable[[T], list[Any]], workers: int) -> Iterator[tuple[T, list[Any]]]:
    """Attempt all *jobs* in so many processes; yield what came of each as it comes: JSON, of less than PIPE_BUF."""
    read_end, write_end = os.pipe()
    pids = []
    for worker in range(workers):
        if pid := os.fork():
            pids.append(pid)
            continue
        try:
            os.close(read_end)
            rows = open(write_end, "wb", buffering=0)  # noqa: SIM115  until the process ends
            library().shim_share()  # its counts are shared with its own children alone
            for index in range(worker, len(jobs), workers):
                row = json.dumps([index, *attempt(jobs[index])]).encode()
                rows.write(row + b"\n")  # less than PIPE_BUF: whole, whoever else writes
        except BaseException:  # noqa: BLE001  no frame of the parent's may run on here
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write_end)
    came = 0
    with open(read_end, encoding="utf-8") as pipe:
        for text in pipe:
            index, *row = json.loads(text)
            came += 1
            yield jobs[index], row
    if came != len(jobs):
        sys.exit(f"a worker ended early: {came} of {len(jobs)} attempts were made")
    for pid in pids:
        os.waitpid(pid, 0)
