"""Real file systems in a file, which a test may kill and repair."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from typing import TYPE_CHECKING

from _children import run_or_skip

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SYNCED", "UNSYNCED", "Disk"]

SHUT_DOWN = 0x8004587D  # XFS_IOC_GOINGDOWN; ext4 has taken it over as EXT4_IOC_SHUTDOWN
SYNCED, UNSYNCED = 0, 2


class Disk:
    """A real file system in a file, which can die; a repaired one then takes its place, while the dead one is open."""

    def __init__(self, kind: str, place: Path, image: Path) -> None:
        self.kind, self.path, self._image = kind, place, image
        self._devices: list[str] = []
        self._mounted = 0
        with image.open("wb") as file:
            file.truncate(320 << 20)  # the least that mkfs.xfs makes
        run_or_skip(f"mkfs.{kind}", "-q", image)
        place.mkdir()

    def mount(self) -> None:
        """Mount it, over the dead one if there is one, as whoever repairs it does."""
        self._devices.append(run_or_skip("losetup", "--find", "--show", self._image))
        options = {"ext4": "errors=remount-ro", "xfs": "nouuid"}  # the dead one has the same UUID
        run_or_skip("mount", "-o", options[self.kind], self._devices[-1], self.path)
        self._mounted += 1

    def shut_down(self, flag: int) -> None:
        """Let every later access fail; what was written before is on the disk first if the *flag* says so."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, SHUT_DOWN, struct.pack("I", flag))
        finally:
            os.close(folder)

    def restart(self) -> None:
        """Unmount it, which nobody may use any more, and mount what is on the disk."""
        subprocess.run(["umount", self.path], check=True)
        subprocess.run(["losetup", "-d", self._devices.pop()], check=True)
        self._mounted -= 1
        self.mount()

    def remount(self, options: str) -> None:
        """Mount it again with other *options*."""
        run_or_skip("mount", "-o", f"remount,{options}", self.path)

    def remove(self) -> None:
        """Give everything back."""
        for _ in range(self._mounted):
            subprocess.run(["umount", "-l", self.path], check=True)
        for device in self._devices:
            subprocess.run(["losetup", "-d", device], check=True)
