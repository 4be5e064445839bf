from __future__ import annotations

import json
from pathlib import Path

import pytest
from _children import OBEY, PREAMBLE, Notes, Writer, assert_kept, writer
from helpers import child_process, has_gcc

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]


class Shim:
    """Makes a writer's own writes to the log fail, by a library loaded before all others."""

    def __init__(self, library: Path, counter: Path) -> None:
        self.library, self.counter = library, counter

    def env(self, plan: str, log: Path) -> dict[str, str]:
        """Return the environment in which a writer's writes go by *plan*, as shim.c says."""
        return {
            "LD_PRELOAD": str(self.library),
            "SHIM_FILE": f"/{log.name}",
            "SHIM_PLAN": plan,
            "SHIM_COUNT": str(self.counter),
        }

    def fired(self) -> int:
        """Return how many faults were played."""
        return len(self.counter.read_bytes()) if self.counter.exists() else 0


@pytest.fixture
def faulty(shim: Path, tmp_path: Path) -> Shim:
    """Return what makes writes fail."""
    return Shim(shim, tmp_path / "fired")


@has_gcc
@pytest.mark.parametrize(
    ("plan", "fired"),
    [
        pytest.param("s", 9, id="every write is short"),
        pytest.param(".sss.", 3, id="short three times"),
        pytest.param(".h.", 2, id="short, then no space"),
        pytest.param(".hh.", 4, id="short, then no space, twice"),
        pytest.param(".eh.", 3, id="error, then short, then no space"),
    ],
)
def test_short_writes_go_on_with_the_rest_and_never_with_the_block_again(
    log_path: Path, notes: Notes, faulty: Shim, plan: str, fired: int
):
    """Whatever piece of a block the kernel takes, each record stands in the log once and whole."""
    with writer(log_path, notes, env=faulty.env(plan, log_path)) as one:
        for number in range(4):
            one.log(f"group{number}", 5)
            assert one.ask("flush")
        one.end()

    assert faulty.fired() >= fired
    assert_kept(log_path, notes)


@has_gcc
def test_short_write_then_no_space_counts_whole_lines_as_written_at_once(log_path: Path, notes: Notes, faulty: Shim):
    """Whole lines in front of the failure have arrived: they are counted, and not written a second time."""
    with writer(log_path, notes, env=faulty.env("he", log_path), max_retries=0) as one:
        one.log("block", 10)
        assert one.ask("flush", 0) is False
        snapshot = one.ask("stats")
        whole = log_path.read_bytes()

    assert whole.endswith(b"\n")
    assert 0 < whole.count(b"\n") == snapshot["written"] < 10
    assert snapshot["pending"] == 10 - snapshot["written"]
    assert_kept(log_path, notes, sure=[f"block-{number}" for number in range(snapshot["written"])])


@has_gcc
def test_short_writes_beside_other_writers_tear_nobodys_lines(log_path: Path, notes: Notes, faulty: Shim):
    """One process with a failing disk neither tears nor doubles what the others write between its attempts."""
    with (
        writer(log_path, notes, env=faulty.env("sh.", log_path), batch_size=3, flush_interval=0.01) as bad,
        writer(log_path, notes, batch_size=3, flush_interval=0.01) as good,
    ):
        for number in range(10):
            bad.send("log", f"bad{number}", 5, 3000)
            good.send("log", f"good{number}", 5, 3000)
        for one in (bad, good):
            for _ in range(10):
                one.answer()
            assert one.ask("all_home")
            one.end()

    assert faulty.fired() >= 3
    assert_kept(log_path, notes)


def test_file_size_limit_keeps_whole_lines_and_refuses_the_rest(log_path: Path, notes: Notes):
    """At RLIMIT_FSIZE the kernel takes a part and then says EFBIG: whole lines stay, the rest waits or is refused."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
    lifted = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    code = PREAMBLE + limited + OBEY.replace("does = {", f'does = {{"lift": lambda: {lifted}, ')
    options = json.dumps({"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.01, "queue_max_size": 30})
    with child_process(code, log_path, notes.path, options) as process:
        one = Writer(process)
        one.log("block", 30, 1000)
        assert one.ask("flush", 0.02) is False
        snapshot = one.ask("stats")
        assert log_path.read_bytes().endswith(b"\n")
        assert log_path.read_bytes().count(b"\n") == snapshot["written"] > 10

        one.ask("lift")
        assert one.ask("flush")
        one.end()

    assert "errno 27" in snapshot["last_error"]
    assert_kept(log_path, notes)
