"""Fixtures of the fault tests: where notes go, small real disks, and a shim that makes writes fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _children import Notes, SmallDisk, run_or_skip
from _disks import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIM = Path(__file__).with_name("shim.c")
# Both keep the promise, and a run tries both; of the other Pythons `.ci/run` tries each at one.
DURABILITIES = os.environ.get("AI_RESPONSES_TEST_DURABILITIES", "memory crash").split()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """Return where this test's writers note what they logged."""
    return Notes(tmp_path / "notes")


@pytest.fixture(params=DURABILITIES)
def durability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let this test's writers, which inherit the environment, log at each durability that must keep the promise."""
    monkeypatch.setenv("DURABILITY", request.param)
    return str(request.param)


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a small real disk for the length of a test."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    place, image = tmp_path / "disk", tmp_path / "image"
    place.mkdir()
    device = ""
    try:
        if request.param == "tmpfs":
            run_or_skip("mount", "-t", "tmpfs", "-o", "size=1m", "small", place)
        else:
            with image.open("wb") as file:
                file.truncate(4 << 20)
            run_or_skip("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image)
            device = run_or_skip("losetup", "--find", "--show", image)
            run_or_skip("mount", device, place)
        yield SmallDisk(place)
    finally:
        if os.path.ismount(place):
            subprocess.run(["umount", "-l", place], check=True)
        if device:
            subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the shim that makes a process's own writes to the log fail; see there."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    run_or_skip("gcc", "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl")
    return library


@pytest.fixture
def others_directory() -> Iterator[Path]:
    """Make a directory that belongs to another user, below one that everybody may enter."""
    place = Path(tempfile.mkdtemp())
    try:
        os.chown(place, 65534, 65534)
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Mount a file system that a test may kill."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    if shutil.which(f"mkfs.{request.param}") is None:
        pytest.skip(f"there is no mkfs.{request.param}")
    disk = Disk(request.param, tmp_path / "disk", tmp_path / "image")
    try:
        disk.mount()
        yield disk
    finally:
        disk.remove()


@pytest.fixture(scope="session")
def shim_sync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the shim that makes a process's own syncs fail; see there."""
    library = tmp_path_factory.mktemp("shim") / "shim_sync.so"
    run_or_skip("gcc", "-O1", "-shared", "-fPIC", "-o", library, SHIM.with_name("shim_sync.c"), "-ldl")
    return library
