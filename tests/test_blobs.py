"""Texts too large for a line, beside the log: :mod:`ai_response_logging.blobs`."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from helpers import run_child
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging import _whole_file, blobs
from ai_response_logging.blobs import MARK, BlobStore, blob_path, bring_back, directory_of, set_apart
from ai_response_logging.errors import LogReadError

PICTURE = "data:image/png;base64," + "iVBORw0KGgo" * 10_000


def store_at(log: Path, *, is_synced: bool = False) -> BlobStore:
    """Return a store beside *log*."""
    return BlobStore(str(log), file_mode=0o600, directory_mode=0o700, is_synced=is_synced)


def apart(fields: dict[str, Any], log: Path, most_bytes: int = 1000) -> dict[str, Any]:
    """Return *fields* as a reader gets them after their large texts were set apart."""
    left = orjson.loads(orjson.dumps(fields))
    entries = set_apart(left, most_bytes, len(orjson.dumps(left)), store_at(log).keep)
    return {**left, "blobs": entries} if entries else left


def files_of(log: Path) -> list[str]:
    """Return the names of all files beside *log* that hold texts."""
    return sorted(name for _, _, names in os.walk(directory_of(str(log))) for name in names)


def test_a_large_text_goes_and_comes_back(tmp_path: Path) -> None:
    """Exactly as it was; in the line stands its hash, and the record says where."""
    log = tmp_path / "a.jsonl"
    fields = {"question": "?", "messages": [{"content": [{"image_url": {"url": PICTURE}}]}], "response": "短" * 20_000}
    left = apart(fields, log)
    digest = hashlib.sha256(PICTURE.encode()).hexdigest()
    assert left["messages"][0]["content"][0]["image_url"]["url"] == f"{MARK}{digest}"
    assert [entry["bytes"] for entry in left["blobs"]] == [len(PICTURE), 60_000]
    assert left["blobs"][0] == {
        "path": ["messages", 0, "content", 0, "image_url", "url"],
        "sha256": digest,
        "bytes": len(PICTURE),
    }
    assert Path(blob_path(str(log), digest)).read_text() == PICTURE
    before = orjson.dumps(left)
    assert bring_back(left, str(log)) == fields
    assert orjson.dumps(left) == before  # it is its owner's


def test_only_as_many_go_as_must(tmp_path: Path) -> None:
    """The largest first; small ones never, however many they are."""
    fields = {"a": "x" * 100_000, "b": "y" * 200_000, "c": ["z" * 1000] * 100}
    left = apart(fields, tmp_path / "a.jsonl", most_bytes=250_000)
    assert left["a"] == fields["a"]
    assert [entry["path"] for entry in left["blobs"]] == [["b"]]
    assert apart(fields, tmp_path / "a.jsonl", most_bytes=0)["c"] == fields["c"]


def test_the_same_text_is_one_file(tmp_path: Path) -> None:
    """However many records, threads and processes keep it."""
    log = tmp_path / "a.jsonl"
    text = b"x" * 3_000_000
    store = store_at(log)
    threads = [threading.Thread(target=store.keep, args=(text,)) for _ in range(8)]
    program = f"import sys; sys.path[:0] = {sys.path!r}\nfrom ai_response_logging.blobs import BlobStore\n"
    program += f"BlobStore({str(log)!r}, file_mode=0o600, directory_mode=0o700, is_synced=True).keep(b'x' * 3_000_000)"
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait() for child in children] == [0, 0, 0]
    assert files_of(log) == [hashlib.sha256(text).hexdigest()]


def test_modes(tmp_path: Path) -> None:
    """As the log's own files and directories, whatever the umask."""
    log = tmp_path / "a.jsonl"
    digest = BlobStore(str(log), file_mode=0o640, directory_mode=0o750, is_synced=False).keep(b"x")
    path = blob_path(str(log), digest)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o750


@pytest.mark.parametrize("left", [b"", b"te", b"\0\0\0\0"])
def test_what_a_loss_of_power_left_is_made_anew(tmp_path: Path, left: bytes) -> None:
    """A file whose bytes never reached the disk is short, or zeros; the next record with that text mends it."""
    log = tmp_path / "a.jsonl"
    digest = store_at(log).keep(b"text")
    Path(blob_path(str(log), digest)).write_bytes(left)
    store_at(log).keep(b"text")
    assert Path(blob_path(str(log), digest)).read_bytes() == b"text"


def test_synced_means_its_names_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes, the file's name, and those of the directories above it, also of a text that stood there already."""
    synced: list[str] = []
    monkeypatch.setattr(blobs, "sync_directory", lambda path: synced.append(os.path.relpath(path, tmp_path)))
    for module in (_whole_file, blobs):
        monkeypatch.setattr(module, "sync_file", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")[-4:]))
    log = tmp_path / "a.jsonl"
    digest = store_at(log, is_synced=True).keep(b"text")
    names = [
        f"a.jsonl.blobs/sha256/{digest[:2]}/{digest}",
        f"a.jsonl.blobs/sha256/{digest[:2]}",
        "a.jsonl.blobs/sha256",
    ]
    assert synced == [".new", digest[-4:], *names, "a.jsonl.blobs"]
    synced.clear()
    store_at(log, is_synced=True).keep(b"text")
    assert synced == [digest[-4:], *names, "a.jsonl.blobs"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_no_more_leaves_the_text_in_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Too large a line is better than none; nothing half-written stays, and a short write is gone on with."""
    log = tmp_path / "a.jsonl"
    real_write, calls = os.write, 0

    def write(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(code, os.strerror(code))
        return real_write(descriptor, data[: len(data) // 2 + 1])

    monkeypatch.setattr(os, "write", write)
    fields = {"response": "x" * 100_000}
    assert apart(fields, log) == fields
    assert calls == 3
    assert files_of(log) == []
    assert apart(fields, log)["blobs"]
    assert bring_back(apart(fields, log), str(log)) == fields


def test_a_kill_in_the_middle_leaves_no_half_text_under_its_name(tmp_path: Path) -> None:
    """The name is there only when all of the text is."""
    log = tmp_path / "a.jsonl"
    program = (
        f"import os, sys; sys.path[:0] = {sys.path!r}\nfrom ai_response_logging.blobs import BlobStore\n"
        "import ai_response_logging.blobs as blobs\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        f"BlobStore({str(log)!r}, file_mode=0o600, directory_mode=0o700, is_synced=False).keep(b'x' * 5_000_000)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert [name.endswith(".new") for name in files_of(log)] == [True]
    digest = store_at(log).keep(b"x" * 5_000_000)
    assert Path(blob_path(str(log), digest)).stat().st_size == 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["memory", "crash", "power"])
@pytest.mark.parametrize("has_name", [False, True])
def test_text_is_there_before_any_file_has_the_line_that_names_it(
    tmp_path: Path, durability: str, *, has_name: bool
) -> None:
    """Killed in the instant before or behind the one in which the text gets its name, no line names what is not."""
    log = tmp_path / "log.jsonl"
    kill = f"""
        import logging, os, sys
        from ai_response_logging import AIResponseHandler
        logger = logging.getLogger("test")
        logger.addHandler(AIResponseHandler(sys.argv[1], durability=sys.argv[2], max_inline_bytes=1000))
        real = os.replace
        def replace(here, there):
            if {has_name}:
                real(here, there)
            os.kill(os.getpid(), 9)
        os.replace = replace
        logger.error("x", extra={{"response": "text" * 20_000}})
    """
    run_child(kill, log, durability, expect=-signal.SIGKILL)

    texts = [path for path in tmp_path.rglob("*") if path.is_file() and ".blobs" in str(path)]
    assert len(texts) == 1
    assert texts[0].name.endswith(".new") is not has_name
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path not in texts]
    assert [path for path in others if MARK.encode() in path.read_bytes()] == []


def test_what_is_not_there_stays_a_mark(tmp_path: Path) -> None:
    """A record without its texts can still be read, and says what it lacks."""
    log = tmp_path / "a.jsonl"
    left = apart({"response": PICTURE, "question": PICTURE + "?"}, log)
    os.unlink(blob_path(str(log), hashlib.sha256(PICTURE.encode()).hexdigest()))
    whole = bring_back(left, str(log))
    assert whole["question"] == PICTURE + "?"
    assert whole["response"] == left["response"]
    assert [entry["path"] for entry in whole["blobs"]] == [["response"]]


def test_another_text_under_its_name_is_said(tmp_path: Path) -> None:
    """What was changed is not handed out as what was logged."""
    log = tmp_path / "a.jsonl"
    left = apart({"response": PICTURE}, log)
    Path(blob_path(str(log), left["blobs"][0]["sha256"])).write_text("other")
    with pytest.raises(LogReadError, match="it is not the text that was kept here"):
        bring_back(left, str(log))


@pytest.mark.parametrize(
    "entries",
    [
        "no list",
        [{"path": ["response"], "sha256": "../../../../etc/passwd", "bytes": 1}],
        [{"path": ["response"], "sha256": "a" * 63 + "/", "bytes": 1}],
        [{"path": [], "sha256": "a" * 64}],
        [{"path": ["other", 5], "sha256": "a" * 64}],
        [{"sha256": "a" * 64}, None, 5, {"path": "response", "sha256": 5}],
    ],
)
def test_entries_that_are_none_of_ours_do_no_harm(tmp_path: Path, entries: object) -> None:
    """A line may come from anybody: no file elsewhere is read, and nothing raises."""
    record = {"response": f"{MARK}{'a' * 64}", "blobs": entries}
    assert bring_back(record, str(tmp_path / "a.jsonl")) == record


_values = st.recursive(
    st.one_of(st.integers(0, 9), st.none(), st.text(max_size=3), st.integers(30_000, 40_000).map("字".__mul__)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1, max_size=3), _values, max_size=4), st.integers(0, 200_000))
def test_whatever_goes_comes_back(fields: dict[str, Any], most_bytes: int) -> None:
    """Any shape, any size; a text of the application that looks like a mark of ours stays one."""
    kept: dict[str, bytes] = {}

    def keep(text: bytes) -> str:
        digest = hashlib.sha256(text).hexdigest()
        kept[digest] = text
        return digest

    try:
        left = orjson.loads(orjson.dumps(fields))
    except TypeError:  # a lone surrogate
        return
    entries = set_apart(left, most_bytes, len(orjson.dumps(left)), keep)
    for entry in entries:
        place = left
        for key in entry["path"][:-1]:
            place = place[key]
        assert place[entry["path"][-1]] == MARK + entry["sha256"]
        place[entry["path"][-1]] = kept[entry["sha256"]].decode()
    assert left == fields
