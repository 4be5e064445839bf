"""The shims of the tests in the writers: writes and syncs that fail now and then, and a clock that jumps."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["Shims"]

_SOURCES: Final = Path(__file__).resolve().parent.parent.parent / "tests" / "faults"
_CALLS: Final = 5000
# One letter a call, see the sources: pass, short, half and then no space, error.  Of those to the log.
_WRITES: Final = {".": 60, "s": 2, "h": 1, "e": 1}
_SYNCS: Final = {".": 60, "e": 1, "n": 1}


class Shims:
    """
    What is loaded into the writers; nothing where there is no C compiler.

    Args:
        folder: Where they are built, and told what to do.
        log: The file whose writes and syncs fail.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.log = log
        self.refusal, self.clock, self.played = folder / "refusal", folder / "clock", folder / "played"
        self.libraries: list[str] = []
        self.played.touch()
        if shutil.which("gcc") is not None:
            self.libraries = [self._build(folder, name) for name in ("shim", "shim_sync", "clock")]

    @staticmethod
    def _build(folder: Path, name: str) -> str:
        library = str(folder / f"{name}.so")
        source = str(_SOURCES / f"{name}.c")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        return library

    def env(self, chance: random.Random) -> dict[str, str]:
        """Return the environment of a writer, with a plan of its own."""
        if not self.libraries:
            return {}
        return {
            "LD_PRELOAD": ":".join(self.libraries),
            "SHIM_FILE": self.log.name, "SHIM_PLAN": _plan(_WRITES, chance), "SHIM_SWITCH": str(self.refusal),
            "SHIM_COUNT": str(self.played), "SYNC_FILE": f"*{self.log.name}*", "SYNC_PLAN": _plan(_SYNCS, chance),
            "CLOCK_FILE": str(self.clock),
        }  # fmt: skip

    def rest(self) -> None:
        """Refuse nothing any more, and have the right time."""
        for file in (self.refusal, self.clock):
            file.unlink(missing_ok=True)


def _plan(letters: dict[str, int], chance: random.Random) -> str:
    return "".join(chance.choices(list(letters), list(letters.values()), k=_CALLS)) + "."
