from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging import _journal_format as fmt
from ai_response_logging._journal_format import MARK_BYTES, Intent, Mark, find_mark, whole_lines
from ai_response_logging.record import seal, tail_of

WRITER = "host-1-18c-0123456789abcdef"
NOTHING = Mark(-1, 0, None)

numbers = st.integers(0, 2**53)
marks = st.builds(
    Mark, numbers, numbers, st.none() | st.builds(Intent, numbers, numbers, numbers, numbers, numbers)
)  # fmt: skip


def mark_file(*noted: Mark) -> bytearray:
    """Return the bytes of a mark file after *noted* were written to it, in that order."""
    data = bytearray()
    for mark in noted:
        start, slot = mark.slot()
        data.extend(bytes(max(0, start + len(slot) - len(data))))
        data[start : start + len(slot)] = slot
    return data


def lines_of(count: int, first_seq: int = 0, writer: str = WRITER) -> list[bytes]:
    """Return finished lines, numbered from *first_seq* on."""
    return [seal(b'{"record_id":"r%d"' % seq, tail_of(writer), seq) for seq in range(first_seq, first_seq + count)]


def read(data: bytes, first_seq: int = 0, writer: str = WRITER) -> list[bytes]:
    """Return the lines of a segment that count."""
    return [one.line for one in whole_lines(data, writer, first_seq)]


# --- marks ---------------------------------------------------------------------------------------------------------


def test_no_mark_file_means_nothing_has_been_brought_home():
    """Where there is no mark, every line counts."""
    assert find_mark(b"") == NOTHING


@given(marks)
def test_mark_read_back_is_the_mark_that_was_noted(mark: Mark):
    """Number, consumed lines and intent come back as they were noted."""
    assert find_mark(mark_file(mark)) == mark


@given(marks)
def test_two_marks_in_a_row_never_share_a_slot(mark: Mark):
    """A mark that is torn while it is written leaves the one before it alone."""
    (start, slot), (next_start, next_slot) = mark.slot(), mark._replace(number=mark.number + 1).slot()

    assert {start, next_start} == {0, MARK_BYTES}
    assert len(slot) == len(next_slot) == MARK_BYTES


@given(st.lists(marks, min_size=1, max_size=5))
def test_of_several_marks_the_one_with_the_highest_number_counts(noted: list[Mark]):
    """Whatever the slots held before, the newest mark wins."""
    noted = [mark._replace(number=number) for number, mark in enumerate(noted, 7)]

    assert find_mark(mark_file(*noted)) == noted[-1]


@given(marks, marks, st.integers(0, MARK_BYTES - 1))
def test_mark_cut_off_while_it_is_written_leaves_the_one_before(before: Mark, torn: Mark, cut: int):
    """Of a slot that was written only in part nothing counts, unless the part is all that says anything."""
    before, torn = before._replace(number=4), torn._replace(number=5)
    start, slot = torn.slot()
    data = mark_file(before)
    data[start : start + cut] = slot[:cut]

    assert find_mark(data) == (torn if slot[cut:].isspace() else before)


@given(marks, marks, st.integers(0, MARK_BYTES - 1), st.integers(1, 255))
def test_any_byte_of_a_mark_changed_never_gives_another_mark(before: Mark, newest: Mark, place: int, flip: int):
    """A damaged slot is left out, or says what it said: it is never read as something else."""
    before, newest = before._replace(number=4), newest._replace(number=5)
    data = mark_file(before, newest)
    data[newest.slot()[0] + place] ^= flip

    assert find_mark(data) in {before, newest}


@given(marks, st.binary(max_size=MARK_BYTES), st.binary(max_size=MARK_BYTES))
def test_both_slots_torn_means_nothing_has_been_brought_home(mark: Mark, first: bytes, second: bytes):
    """Without a whole mark the bytes in the log are all there is to go by; that is no error."""
    data = mark_file(mark._replace(number=0), mark._replace(number=1))
    data[:MARK_BYTES] = first.ljust(MARK_BYTES, b"\0")
    data[MARK_BYTES:] = second.ljust(MARK_BYTES, b"\0")

    assert find_mark(data) == NOTHING


# --- lines ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 10**13))
def test_whole_segment_gives_all_its_lines(count: int, first_seq: int):
    """What was stored is what counts, from whichever number it begins."""
    lines = lines_of(count, first_seq)

    assert read(b"".join(lines), first_seq) == lines


@given(st.integers(0, 12), st.data())
def test_segment_cut_anywhere_gives_the_lines_before_the_cut(count: int, data: st.DataObject):
    """A writer killed at any byte of a store leaves the lines before it, and no half line."""
    lines = lines_of(count, 95)
    block = b"".join(lines)
    cut = data.draw(st.integers(0, len(block)))

    found = read(block[:cut], 95)

    assert found == [line for number, line in enumerate(lines, 1) if len(b"".join(lines[:number])) <= cut]


@given(st.integers(1, 12), st.data())
def test_any_byte_changed_costs_its_line_and_no_other(count: int, data: st.DataObject):
    """Of a damaged line nothing is taken for a record; what was stored behind it is nobody's to lose."""
    lines = lines_of(count, 8)
    block = bytearray(b"".join(lines))
    place, flip = data.draw(st.integers(0, len(block) - 1)), data.draw(st.integers(1, 255))
    block[place] ^= flip

    ends = [sum(map(len, lines[: number + 1])) for number in range(count)]
    hit = next(number for number, end in enumerate(ends) if place < end)
    glued = 1 if place == ends[hit] - 1 else 0  # its newline: the next line has no beginning any more
    assert read(bytes(block), 8) == lines[:hit] + lines[hit + 1 + glued :]


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_segment_cut_under_a_living_writer_keeps_what_is_stored_behind(before: int, after: int, data: st.DataObject):
    """Somebody cuts the file, and the next line leaves zeros before it: only the bytes that were cut off are gone."""
    lines, behind = lines_of(before, 3), lines_of(after, 3 + before)
    block = b"".join(lines)
    cut = data.draw(st.integers(0, len(block)))
    there = [line for number, line in enumerate(lines, 1) if len(b"".join(lines[:number])) <= cut]

    holed = block[:cut] + bytes(len(block) - cut)
    assert read(holed + b"".join(behind), 3) == there + behind


@given(st.integers(0, 6), st.integers(1, 6))
def test_older_lines_behind_the_newest_do_not_count(new: int, old: int):
    """What an earlier use left in the same space is whole and of this writer, and has smaller numbers: it is over."""
    block = b"".join([*lines_of(new, 100), *lines_of(old, 90)])

    assert read(block, 100) == lines_of(new, 100)


@pytest.mark.parametrize("first_seq", [10, 11, 70])
def test_segment_of_smaller_numbers_than_its_name_says_counts_for_nothing(first_seq: int):
    """The name says which number comes first: what is older has arrived long since."""
    assert read(b"".join(lines_of(3, 7)), first_seq) == []


def test_line_of_another_writer_does_not_count():
    """Lines of another writer are not this one's to bring home, whatever file they stand in."""
    block = b"".join([*lines_of(2), *lines_of(2, 2, "host-1-18c-fedcba9876543210"), *lines_of(2, 4)])

    assert read(block) == [*lines_of(2), *lines_of(2, 4)]


def test_lines_behind_a_gap_in_the_numbers_count():
    """What is missing was destroyed; what stands there whole is newer than all before, and waits to come home."""
    lines = [*lines_of(2), *lines_of(2, 3)]

    assert read(b"".join(lines)) == lines


def test_text_of_a_record_that_looks_like_the_end_of_a_line_does_not_end_it():
    """A response may quote a whole line of a log: only the line's own end says its number."""
    quoted = lines_of(1)[0].strip().replace(b'"', b'\\"')
    line = seal(b'{"response":"%b"' % quoted, tail_of(WRITER), 41)

    assert fmt.seq_of(line) == 41
    assert read(line, 41) == [line]


@given(st.binary(max_size=300))
def test_any_bytes_give_no_line_and_no_error(data: bytes):
    """Whatever stands in a file of a segment's name, nothing is made up of it."""
    assert read(data) == []


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [0, 7, 10**12 - 1, 10**12, 10**15])
def test_segment_is_found_by_its_name_with_its_number(seq: int):
    """The name of a segment leads back to its writer and its first number, however large that is."""
    assert fmt.segments_among([fmt.segment_name(WRITER, seq)], WRITER) == [(seq, fmt.segment_name(WRITER, seq))]


def test_segments_come_in_the_order_of_their_numbers_beyond_twelve_digits():
    """Order is that of the numbers, not of the letters in the names."""
    names = [fmt.segment_name(WRITER, seq) for seq in (10**13, 5, 10**12 - 1, 0)]

    assert [seq for seq, _ in fmt.segments_among(names, WRITER)] == [0, 5, 10**12 - 1, 10**13]


@pytest.mark.parametrize("similar", ["host", WRITER[:-1], f"{WRITER}0", f"x{WRITER}", f"{WRITER}.000000000000"])
def test_segments_of_a_writer_with_a_similar_name_are_not_taken(similar: str):
    """Hosts called `a` and `a.b` share a directory and nothing else."""
    names = [fmt.segment_name(WRITER, 0), fmt.segment_name(similar, 3)]

    assert fmt.segments_among(names, WRITER) == [(0, names[0])]
    assert fmt.segments_among(names, similar) == [(3, names[1])]


@pytest.mark.parametrize(
    "name", [f"{WRITER}.1.jsonl", f"{WRITER}.000000000000.jsonl~", f"{WRITER}.000000000000.jsonl.gz", f"{WRITER}.lock"]
)
def test_name_that_is_none_of_ours_is_no_segment(name: str):
    """What editors and people leave in the directory is not read."""
    assert fmt.segments_among([name], WRITER) == []


def test_writers_are_those_that_have_a_lock():
    """A journal begins and ends with its lock; whatever else lies there says nothing of a writer."""
    names = ["b.lock", fmt.segment_name("c", 0), fmt.mark_name("d"), "a.lock", "notes.txt"]

    assert fmt.writers_among(names) == ["a", "b"]
    assert fmt.lock_name("a") == "a.lock"


def test_directory_that_is_not_there_has_no_names(tmp_path: Path):
    """No journal directory, or something else in its place, means that there are no journals."""
    (tmp_path / "file").touch()

    assert fmt.directory_names(str(tmp_path / "none")) == []
    assert fmt.directory_names(str(tmp_path / "file")) == []
    assert fmt.directory_names(str(tmp_path / "file" / "below")) == []


def test_directory_behind_a_symbolic_link_is_not_looked_into(tmp_path: Path):
    """A link that somebody put in the journal's place does not lead to files of others, which a replay would remove."""
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "x.lock").touch()
    (tmp_path / "link").symlink_to(tmp_path / "others")

    assert fmt.directory_names(str(tmp_path / "others")) == ["x.lock"]
    assert fmt.directory_names(str(tmp_path / "link")) == []


def test_journals_of_a_log_lie_beside_it():
    """One place a log, that a person finds by the log's name."""
    assert fmt.journal_directory("/var/log/a.jsonl") == "/var/log/a.jsonl.journal"
