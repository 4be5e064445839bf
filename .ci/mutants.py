"""
Break one line of the code at a time and see that a named test fails: what the promise says is held by a test.

Usage: python .ci/mutants.py [--only REGEX], from the repository's root, with an interpreter in which the tests run.

It works on a copy of the tree: what git knows, and the untracked files of the package and of the tests. First all the
named tests must pass there; then each line of MUTANTS is broken alone, and its tests must not. A hang is a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import hypothesis.strategies  # noqa: F401  here and not in each run, as pytest
import orjson  # noqa: F401  the same
import pytest
import yaml  # noqa: F401  the same

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE: Final = "ai_response_logging"
TEST_LIMIT_S: Final = 10  # for one test of a mutant; unbroken they take a second at most
RUN_LIMIT_S: Final = 60.0  # for the tests of one mutant, where pytest itself hangs
GRACE_S: Final = 5.0
LOOK_EVERY_S: Final = 0.02
# It warns of what is imported before it, and a warning is an error in the suite.
IMPORTED: Final = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
PYTEST: Final = ("-q", "--tb=no", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:cov", "-W", IMPORTED)
PASSED, FAILED = 0, 1  # pytest's exit codes; any other means that the tests could not be run


class Mutant(NamedTuple):
    """One guarantee, and a change that breaks it: *old* stands in *file* once; *tests* are pytest's ids."""

    guarantee: str
    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        return f"{self.guarantee} | {self.file} | {self.tests}"


# fmt: off
MUTANTS: Final = (
    # What logging calls.
    Mutant("None of them ever raises because of logging", "handler.py",
           "except Exception as error:  # noqa: BLE001  RecursionError and", "except OSError as error:  #",
           "tests/test_handler.py::test_fault_of_ours_is_counted_and_told_and_never_raised"),
    Mutant("Never: a handler raises into the application (a filter does)", "handler.py",
           "except Exception as error:  # noqa: BLE001  a filter is foreign code", "except OSError as error:  #",
           "tests/test_api.py::test_a_filter_that_raises_does_not_reach_the_application"),
    Mutant("Never: a change made to a dict after the call shows up in the log", "handler.py",
           "        self.submit(record)\n",
           "        self.late = [*getattr(self, 'late', ()), record]\n"
           "        self.flush = lambda *a: [self.submit(one) for one in self.late] and type(self).flush(self, *a)\n",
           "tests/test_handler.py::test_change_made_after_the_call_does_not_show"),
    Mutant("Kept means: exactly once (two handlers on one path)", "handler.py",
           "before.taken == self._taken(record)", "False",
           "tests/test_guarantees.py::test_record_that_passes_two_handlers_on_one_file_stands_there_once"),
    # One writer for one file in one process.
    Mutant("One writer for each real path in a process", "_pipeline.py",
           "key = os.path.realpath(path)", "key = path",
           "tests/test_handler.py::test_second_handler_by_another_way_to_the_same_file_shares_it_too"),
    Mutant("written_sync: the queue was full, so the caller wrote it", "_pipeline.py",
           'outcome="written_sync")', 'outcome="written")',
           "tests/test_handler.py::test_full_queue_the_call_itself_writes"),
    Mutant("written: by the caller because no listener runs (no thread to be had)", "_pipeline.py",
           "except RuntimeError:  # the system gives no thread", "except OSError:  #",
           "tests/test_handler.py::test_no_thread_to_be_had_the_call_itself_writes"),
    Mutant("queued: accepted, on its way to the file (the listener ended meanwhile)", "_pipeline.py",
           "elif not queue.listening and not self.listen():", "elif False:",
           "tests/test_pipeline.py::test_listener_that_ends_between_two_looks_costs_no_record"),
    Mutant("A flush followed by a close shares one budget", "_pipeline.py",
           "return spent_s if is_shared else 0.0", "return 0.0",
           "tests/test_pipeline.py::test_flush_and_the_close_behind_it_share_one_budget"),
    Mutant("A program that just ends has all its records in the file", "_exit.py",
           "atexit.register(self.end)", "str(self.end)",
           "tests/test_guarantees.py::test_program_that_just_ends_behind_somebodys_dict_config_has_its_records"),
    Mutant("What is left then stays in the journal (at memory one is made for it)", "_pipeline.py",
           "self._tell_what_is_left(user, waiting, min(self._stash(deadline_s), waiting))",
           "self._tell_what_is_left(user, waiting, 0)",
           "tests/test_guarantees.py::test_program_that_ends_under_a_strangers_lock_leaves_its_records_to_the_next"),
    Mutant("flush and close take at most close_timeout, also on a disk that never answers", "_pipeline.py",
           "else self.listener.drain(budget_s)", "else None",
           "tests/faults/test_ends_more.py::test_flush_and_close_come_back_from_a_disk_that_stands_still_and_what_is_left"
           "_comes_home_later"),
    Mutant("logrotate with create beside our writers loses nothing", "_shared_file.py",
           "            _rotate.await_successor(self.baseFilename)\n", "",
           "tests/test_rotate.py::test_log_that_logrotate_renamed_is_awaited_from_it_for_a_moment"),
    Mutant("Closing before the interpreter ends is a drain, also for the other handler", "_pipeline.py",
           "        if self.users:\n            return\n        self.listener.stop(", "        self.listener.stop(",
           "tests/test_handler.py::test_closing_one_of_two_handlers_leaves_the_other_at_work"),
    Mutant("Set-up beside somebody's dictConfig does not hang (only logging's own lock, and no disk under it)",
           "_pipeline.py", "made = _new(path, options)", "with _exit.lock: made = _new(path, options)",
           "tests/test_pipeline.py::test_a_handler_made_beside_somebodys_dict_config_does_not_hang"),
    Mutant("The functions' set-up beside somebody's dictConfig does not hang (no lock of our own around it)", "api.py",
           "name, made = config.make_default()",
           "with globals().setdefault('lock', logging.threading.RLock()): name, made = config.make_default()",
           "tests/test_api.py::test_first_calls_beside_somebodys_dict_config_do_not_hang[function]"),
    Mutant("A recorder's set-up beside somebody's dictConfig does not hang", "api.py",
           "made = AsyncAIResponseLogger(path)",
           "with globals().setdefault('lock', logging.threading.RLock()): made = AsyncAIResponseLogger(path)",
           "tests/test_api.py::test_first_calls_beside_somebodys_dict_config_do_not_hang[recorder]"),
    Mutant("The functions configure the default once, however many threads call first", "api.py",
           "handler = _handler_reached_from(logger) or config.attach_default", "handler = config.attach_default",
           "tests/test_api.py::test_without_a_handler_the_default_is_configured_once"),
    # The queue.
    Mutant("queue_max_bytes: what may wait in memory", "_queue.py",
           " and self._bytes + size <= self.max_bytes", "",
           "tests/test_queue.py::test_the_queue_is_bounded_by_its_bytes_too"),
    Mutant("batch_size: write as soon as so many wait", "_queue.py",
           "if waiting + 1 == (", "if -1 == (",
           "tests/test_listener.py::test_full_batch_wakes_whoever_waits_and_nothing_less_does"),
    Mutant("An exception or signal handler amid a call: the record is whole or absent", "_queue.py",
           "if seq == self._seq:", "if True:",
           "tests/test_writer.py::test_signal_handler_that_logs_while_a_record_is_taken_gets_a_number_of_its_own"),
    Mutant("Never: an exception thrown in leaves a lock held (here a signal handler hangs)", "_queue.py",
           "self.lock = threading.RLock()", "self.lock = threading.Lock()",
           "tests/test_writer.py::test_signal_handler_that_logs_while_a_record_is_taken_gets_a_number_of_its_own"),
    Mutant("None of them ever raises because of logging (gevent's sleep does, in its event loop)", "_queue.py",
           "            _sleep(_LOOK_S)\n", "            time.sleep(_LOOK_S)\n",
           "tests/test_queue.py::test_what_stands_in_the_place_of_sleep_is_not_called"),
    Mutant("power: what a signal handler stores in a segment of its own is synced", "_journal.py",
           "if self._descriptor >= 0:  # a signal handler has", "if False:  # a signal handler has",
           "tests/test_journal_space.py::test_what_a_signal_handler_stores_meanwhile_is_synced[5-after]"),
    Mutant("Never: a line in a file of the application's, which has got the number of ours", "_paths.py",
           "if found.is_at(info) and not found.closed:", "if True:",
           "tests/faults/test_interrupted_descriptors.py::"
           "test_file_that_the_application_gets_under_its_number_meanwhile_is_left_alone[False]"),
    Mutant("Never lost: a log that was renamed just after it was opened is not written to", "_paths.py",
           "file.close()\n        return None\n    if file.is_at", "return file\n    if file.is_at",
           "tests/test_append.py::test_log_that_is_renamed_just_after_it_was_opened_is_made_anew"),
    Mutant("... nor is that file closed", "_paths.py",
           "    file.leave()\n    return None", "    file.close()\n    return None",
           "tests/faults/test_interrupted_descriptors.py::"
           "test_file_that_the_application_gets_under_its_number_meanwhile_is_left_alone[False]"),
    Mutant("Never: hangs (power: a signal handler amid a change waits for who waits for its end)", "_kept.py",
           "not self.is_held_here():\n            return self._syncs", "True:\n            return self._syncs",
           "tests/test_synced.py::test_signal_handler_amid_a_change_waits_for_no_sync_of_another_thread"),
    Mutant("Never: hangs (a signal handler amid a change opens the journal as another thread)", "_journalling.py",
           " or self.queue.is_held_here()", "",
           "tests/test_synced.py::"
           "test_signal_handler_amid_a_change_waits_for_nobody_who_opens_the_journal[crash]"),
    Mutant("Never: hangs (power: a signal handler amid a change waits for the writer's turn)", "_caller.py",
           "is_amid = self.queue.is_held_here()", "is_amid = False",
           "tests/test_synced.py::test_signal_handler_amid_a_change_waits_for_nobody_who_writes"),
    Mutant("crash: kept whatever the journal's limit, where the write that is interrupted may never go on", "_queue.py",
           "force=force and not may_exceed", "force=force",
           "tests/test_journal_keep.py::"
           "test_record_of_a_signal_handler_amid_the_write_of_a_full_queue_is_in_the_full_journal"),
    Mutant("Never: hangs (a signal handler amid a change removes no journal)", "_kept.py",
           "if self.is_held_here():  # as in drop_journal", "if False:  # as in drop_journal",
           "tests/test_journal_keep.py::test_journal_that_takes_no_marks_is_not_given_up_amid_a_change"),
    Mutant("A forked child starts at 0", "_queue.py",
           "self.counted = {", "self.counted = getattr(self, 'counted', None) or {",
           "tests/test_queue.py::test_a_renewed_queue_is_another_writer_that_has_counted_nothing"),
    # The thread.
    Mutant("flush_interval: or after so many seconds, whichever comes first", "listener.py",
           "(self.flush_interval or _IDLE_S)", "3600.0",
           "tests/test_listener.py::test_lines_fewer_than_a_batch_go_out_when_the_interval_is_over"),
    Mutant("A normal end: nobody who goes on logging keeps it waiting (the thread)", "listener.py",
           "queue.listening = False\n                queue.wake()", "queue.wake()",
           "tests/faults/test_ends.py::test_end_is_not_kept_waiting_by_a_thread_that_goes_on_logging"),
    Mutant("A normal end: nobody who goes on logging keeps it waiting (the flush)", "_exit.py",
           "if not pipeline.flush(budget_s):", "if not pipeline.flush(budget_s) or pipeline.writer.has_waiting():",
           "tests/faults/test_ends.py::test_end_is_not_kept_waiting_by_a_thread_that_goes_on_logging"),
    Mutant("A close tells of what was there, not of what other threads log meanwhile", "_pipeline.py",
           "(waiting := min(self.queue.qsize(), until - self.queue.consumed))", "(waiting := self.queue.qsize())",
           "tests/test_pipeline.py::test_close_says_nothing_of_what_another_thread_logs_meanwhile"),
    Mutant("queued: on its way to the file (it comes while the thread ends)", "listener.py",
           "if not refused and queue.listening and not queue.empty():", "if False:",
           "tests/test_listener.py::test_line_that_comes_while_the_listener_ends_keeps_it_from_ending"),
    Mutant("Nothing else to start: a fault of one handler does not end the thread", "listener.py",
           "except Exception as error:  # noqa: BLE001  foreign handlers raise anything", "except OSError as error:  #",
           "tests/test_listener.py::test_handler_that_raises_ends_neither_the_thread_nor_the_others"),
    Mutant("Never: makes a child process hang after fork (it has no thread)", "listener.py",
           '"""Forget the thread: it stayed in the parent."""\n        self._begin()', "pass",
           "tests/test_listener.py::test_listener_forgets_its_thread_in_a_forked_child"),
    Mutant("Never sleeps on a wake: one that is taken in passing, while lines gather, is given back", "listener.py",
           "queue.wake()  # we have taken it, and it was not for this", "pass",
           "tests/test_listener.py::test_wake_that_comes_while_lines_gather_is_not_lost"),
    Mutant("Never sleeps on a wake: one that came before lines gather is looked at, too", "listener.py",
           "is_needed = me.requests or me.is_stopping or", "is_needed = ",
           "tests/test_listener.py::test_wake_that_comes_while_lines_gather_is_not_lost[0.0]"),
    Mutant("batch_size: a quarter of a queue is waited for only behind a write", "listener.py",
           "queue.is_gathering = False", "pass",
           "tests/test_listener.py::test_batch_behind_a_moment_of_gathering_wakes_the_listener_again"),
    # Attempts.
    Mutant("The n-th attempt waits n x retry_delay", "_retry.py",
           "yield attempt * retry_delay", "yield retry_delay",
           "tests/test_writer.py::test_pauses_between_attempts_grow_and_end_after_max_retries"),
    Mutant("Never twice: whole lines that arrived before the error have arrived", "writer.py",
           "source.consume(whole)", "source.consume(0)",
           "tests/test_writer.py::test_append_that_fails_part_way_is_finished_by_the_next_attempt"),
    Mutant("Kept means exactly once: of an interrupted append the bytes decide", "writer.py",
           "source.consume(arrived)", "source.consume(0)",
           "tests/test_writer.py::test_append_interrupted_at_any_byte_is_settled_by_the_next"),
    Mutant("Never glued: a signal handler does not write into the block it interrupts", "writer.py",
           "if self.turn.is_mine():\n            raise", "if False:\n            raise",
           "tests/test_writer.py::test_signal_handler_that_logs_in_mid_append_neither_tears_nor_hangs"),
    Mutant("failed: nowhere; error says why. Counted, reported, never silent", "_caller.py",
           "record.error = RefusedError(self.baseFilename, reason, record.id)\n        self._note(record.error)\n",
           "record.error = RefusedError(self.baseFilename, reason, record.id)\n",
           "tests/test_stats.py::test_a_refused_record_says_why_and_is_told"),
    Mutant("A refused record is never written later", "_caller.py",
           "if self.queue.withdraw(record):", "if False:",
           "tests/test_writer.py::test_refused_record_is_withdrawn_and_never_written_later"),
    Mutant("written_sync: in the file (and never of a record that is not)", "_caller.py",
           "if self.queue.withdraw(record):", "if not self.queue.withdraw(record):",
           "tests/test_guarantees.py::test_record_that_neither_waits_nor_is_written_says_failed_and_is_counted_so"),
    Mutant("accepted == written + written_sync + pending + failed in every snapshot", "writer.py",
           '"written": arrived - counted["written_sync"]', '"written": arrived',
           "tests/test_stats.py::test_every_status_is_counted_and_the_sum_holds"),
    Mutant("accepted == written + written_sync + pending + failed, after a fault too", "writer.py",
           '"accepted": arrived + pending + counted["failed"]', '"accepted": arrived + pending',
           "tests/test_stats.py::test_every_status_is_counted_and_the_sum_holds"),
    Mutant("Never twice: a forked child does not write what waits in its parent", "writer.py",
           "        self.queue.renew()\n", "",
           "tests/test_writer.py::test_forked_state_is_forgotten"),
    # Appending.
    Mutant("Never twice, never torn: after a short write the rest, not the block again", "_append.py",
           "os.write(descriptor, rest[written:])", "os.write(descriptor, rest)",
           "tests/test_append.py::test_short_writes_go_on_with_the_rest_of_the_same_block"),
    Mutant("Never glued to another record: a torn tail goes aside", "_append.py",
           "if is_whole(descriptor, size):", "if True:",
           "tests/test_append.py::test_torn_line_moves_aside_byte_for_byte"),
    Mutant("Never glued to another record: also one that was torn behind our last block", "_shared_file.py",
           "is_as_left = self._left == (info.st_dev, info.st_ino, info.st_size)", "is_as_left = bool(self._left)",
           "tests/test_writer.py::test_end_of_the_log_is_read_only_where_it_is_not_as_our_last_block_left_it"),
    Mutant("Torn bytes are synced aside before they are cut off", "_append.py",
           "os.fsync(target.fileno())", "str(target)",
           "tests/test_append.py::test_torn_bytes_are_synced_before_they_are_cut_off"),
    Mutant("Never lost: bytes of somebody who takes no lock are not cut", "_append.py",
           "if os.fstat(descriptor).st_size != expected:", "if False:",
           "tests/test_append.py::test_file_of_another_length_than_expected_is_not_cut"),
    Mutant("Never: a file is created readable by others", "_paths.py",
           "os.O_CLOEXEC, mode & 0o700)", "os.O_CLOEXEC, 0o666)",
           "tests/test_append.py::test_new_log_is_never_open_to_others_not_even_for_a_moment"),
    Mutant("Never: a symlink in its place is written to", "_paths.py",
           " | os.O_NOFOLLOW", "",
           "tests/test_append.py::test_anything_but_a_regular_file_is_refused_by_name"),
    # The lock.
    Mutant("Queue full: at most caller_timeout; lock waits are bounded", "_lock.py",
           "if nap is None or time.monotonic() - started_s >= timeout:", "if nap is None:",
           "tests/test_lock.py::test_naps_that_last_too_long_end_the_waiting_when_its_time_is_over"),
    Mutant("Any number of processes: a lock file that was replaced protects nothing", "_lock.py",
           "return info if there == (info.st_dev, info.st_ino) else None", "return info",
           "tests/test_guarantees.py::test_lock_file_that_somebody_removed_is_taken_anew_by_the_next_write"),
    Mutant("All comes home when a dead file system was repaired, whose descriptors tell nothing", "_lock.py",
           "    except OSError:  # EIO of an xfs that was shut down;", "    except ValueError:  #",
           "tests/test_lock.py::test_lock_file_whose_descriptor_tells_nothing_is_replaced_by_what_stands_there"),
    Mutant("Records go where they still can: a dead journal does not hold up a healthy log", "_kept.py",
           "except OSError:\n                # EIO, EROFS: its disk is dead", "except ValueError:\n                #",
           "tests/test_journal_keep.py::"
           "test_journal_that_takes_no_marks_and_cannot_be_removed_does_not_hold_up_the_log"),
    Mutant("What is behind a block in question is bounded, too", "_caller.py",
           "(intent is not None and record.line in self.queue.first(intent.lines))", "intent is not None",
           "tests/test_journal_keep.py::test_block_of_which_nobody_knows_whether_it_arrived_does_not_let_the_queue_grow"),
    Mutant("replayed: each line is counted by whoever brought it home", "_adopt.py",
           "if self.intent is None and self._home_seq > self._mark.consumed:", "if False:",
           "tests/test_journal.py::"
           "test_adopter_that_stops_half_way_leaves_nothing_that_the_next_would_count_again"),
    Mutant("Never: an exception thrown into a log call leaves a lock held", "_lock.py",
           "            self._lock.release()\n        return False", "            return True\n        return False",
           "tests/test_lock.py::test_turn_that_an_exception_left_behind_is_given_up_by_the_next_who_asks"),
    # Rotation and what is kept.
    Mutant("Kept across rotation: no rotated file is overwritten", "_rotate.py",
           'return os.path.lexists(target) or os.path.lexists(f"{target}.gz")', "return False",
           "tests/test_rotate.py::test_rotation_never_takes_a_name_that_is_there"),
    Mutant("Clocks: files keep the order in which they were put aside", "_rotate.py",
           "if moment <= last:", "if False:",
           "tests/test_rotate_time.py::test_names_sort_as_files_were_rotated_whatever_the_clock_did"),
    Mutant("Clocks: a jump ahead deletes nothing at once", "_rotate.py",
           "if clock_s - steady_s <= self._lead_s + _JUMP_S:", "if True:",
           "tests/test_rotate_time.py::test_clock_that_jumps_ahead_makes_no_file_old_until_it_has_lasted_a_day"),
    Mutant("Never torn: a log renamed behind a killed writer keeps no piece of a line", "_arrived.py",
           "if path != log and (found or os.fstat(descriptor).st_ino == intent.inode):", "if False:",
           "tests/faults/test_replay.py::"
           "test_log_renamed_behind_a_writer_killed_in_mid_line_keeps_no_piece_of_it"),
    Mutant("Never: rotation deletes anything unless the user sets how much to keep", "_rotate.py",
           "if options.retain_days:", "if True:",
           "tests/test_rotate.py::test_retention_deletes_the_oldest_and_nothing_unless_told"),
    Mutant("when: rotation by time", "_rotate.py",
           "return start_s + interval * _SECONDS[when]", "return _NEVER",
           "tests/test_rotate_time.py::test_file_of_a_fixed_length_begins_with_its_first_record"),
    Mutant("max_total_bytes: how much to keep", "_rotate.py",
           "if total <= options.max_total_bytes:", "if total >= 0:",
           "tests/test_retain.py::test_size_alone_keeps_the_newest_that_fit_together_with_the_live_file"),
    Mutant("Never lost: a plain file goes only for a compressed one with the same bytes", "_compress.py",
           "elif not (yield from _holds_the_same(plain, target)):", "elif False:",
           "tests/test_compress.py::test_plain_file_stays_when_the_compressed_one_differs"),
    Mutant("Loss of power: the compressed file is synced before the plain one goes", "_compress.py",
           "os.fsync(part.fileno())", "part.fileno()",
           "tests/test_guarantees.py::test_plain_file_goes_only_when_the_compressed_one_is_synced_and_has_its_name"),
    Mutant("Any number of processes: one compresses a file", "_compress.py",
           "if not _lock.try_acquire(part) or", "if",
           "tests/test_compress.py::test_second_to_come_leaves_the_first_alone"),
    # Loss of power.
    Mutant("power: a record is acknowledged by no sync that began before its write", "_journal.py",
           "self.synced_seq, self._synced_end = target, end", "self.synced_seq, self._synced_end = self.next_seq, end",
           "tests/test_synced.py::test_line_that_is_stored_during_a_sync_is_not_durable_by_it"),
    Mutant("power: a line under the name that its space had before hides no other", "_adopt.py",
           "if seq >= end_seq:", "if not end_seq:",
           "tests/test_journal.py::test_lines_in_used_space_whose_new_name_the_power_took_hide_no_others"),
    Mutant("power: a segment whose sync failed is never asked again", "_kept.py",
           "            with self.lock:\n                journal.begin_behind_synced()\n                for line",
           "            with self.lock:\n                for line",
           "tests/test_synced.py::test_segment_whose_sync_failed_is_left_for_a_new_one"),
    Mutant("power: a call returns when its record is synced, not before", "_journal.py",
           "            for copy in copies:\n                _append.sync_file(copy)", "            pass",
           "tests/test_synced.py::test_refused_record_is_in_no_journal_afterwards"),
    Mutant("power: what is refused comes home from no journal", "_journal.py",
           "os.truncate(self._path(name), self._synced_end[1])", "pass",
           "tests/test_synced.py::test_refused_record_is_in_no_journal_afterwards"),
    Mutant("power: the log's name is synced before its first block", "_shared_file.py",
           "            sync_directory(self.baseFilename)\n", "            pass\n",
           "tests/test_synced.py::test_name_of_a_log_is_synced_before_the_first_block_also_of_one_made_anew"),
    Mutant("power: a directory that others made is synced, too", "_journal_place.py",
           "for one in made or [directory]:", "for one in made:",
           "tests/test_synced.py::test_directory_that_others_made_is_synced_all_the_same"),
    Mutant("power: a log whose sync failed is never asked again", "_shared_file.py",
           "sealed = self._seal(descriptor, start, end)", 'sealed = "it stays"',
           "tests/test_synced.py::test_log_that_cannot_be_synced_is_sealed_and_not_asked_again"),
    Mutant("power: holes are filled also behind another's line", "_arrived.py",
           "if found < (holed := _append.holed_lines(descriptor, start, lines)):", "if holed := 0:",
           "tests/test_synced.py::test_holes_in_a_block_are_filled_also_when_somebody_has_logged_behind_them"),
    Mutant("power: a line goes to the log only when it is durable in the journal", "writer.py",
           "            source.make_durable(lines[-1])\n", "",
           "tests/test_synced.py::test_block_is_appended_behind_the_syncs_of_its_lines_and_its_intent"),
    Mutant("power: a block is appended only behind the sync of its intent", "_journal_files.py",
           "if self.is_synced and (intent is not None or", "if self.is_synced and (",
           "tests/test_synced.py::test_block_is_appended_behind_the_syncs_of_its_lines_and_its_intent"),
    Mutant("power: lines leave the journal only behind a sync of the log", "writer.py",
           "            if source.is_synced and start != end:\n", "            if not start:\n",
           "tests/test_synced.py::test_block_is_appended_behind_the_syncs_of_its_lines_and_its_intent"),
    # The file.
    Mutant("Never lost: a log that somebody renamed is not written to any more", "_shared_file.py",
           "if info is not None:", "if (info := os.fstat(descriptor)):",
           "tests/test_writer.py::test_interrupted_append_is_settled_also_when_the_log_was_rotated"),
    Mutant("max_bytes: a new file before the line that does not fit", "_shared_file.py",
           "size + len(line) > self.maxBytes", "size > self.maxBytes",
           "tests/test_rotate.py::test_writer_begins_a_new_file_before_the_line_that_does_not_fit"),
    Mutant("Disk refuses for a while: kept (a rotation that fails keeps no record out)", "_shared_file.py",
           "except OSError as error:  # a file that grows past its limit", "except ZeroDivisionError as error:  #",
           "tests/test_rotate.py::test_rotation_that_is_refused_lets_the_old_file_grow"),
    Mutant("Never lost: a late line stays with the period that has begun", "_shared_file.py",
           "(now_s if logged_s is None else logged_s) >= over_s", "now_s >= over_s",
           "tests/test_rotate_time.py::test_late_line_of_yesterday_stays_in_todays_file"),
    # Fork.
    Mutant("Kept exactly once after fork: a child forgets what is its parent's", "_fork.py",
           "        owner.after_fork_in_child()\n", "        pass\n",
           "tests/faults/test_fork.py::test_child_forked_with_records_waiting_does_not_write_the_parents"),
    Mutant("Kept exactly once after fork: a child forked in C, without Python's hooks, notices", "_fork.py",
           "if (type(pid) is int and pid == _pid) or os.getpid() == _pid:", "if True:",
           "tests/faults/test_fork_in_c.py::test_workers_forked_without_hooks_are_writers_of_their_own[killed]"),
    Mutant("Comes home by itself: a parent looks for what its killed child has left", "_journalling.py",
           "(has_forked() and quiet_s >= _LOOK_FOR_CHILDREN_S)", "False",
           "tests/faults/test_readers.py::test_idle_parent_brings_home_what_its_killed_child_left"),
    Mutant("Comes home by itself: a process knows that it has forked", "_fork.py",
           "_forked[0] = True", "pass",
           "tests/faults/test_readers.py::test_only_a_process_that_has_forked_itself_looks_for_children"),
    Mutant("A child has no children yet, and does not look for any", "_fork.py",
           "_forked[0] = False  # the children", "pass  #",
           "tests/faults/test_readers.py::test_only_a_process_that_has_forked_itself_looks_for_children"),
    Mutant("Ids are unique: a forked child with its parent's pid (another namespace) makes its own", "record.py",
           "os.register_at_fork(after_in_child=_ids.renew)", "pass",
           "tests/test_record.py::test_a_child_forked_within_a_millisecond_makes_other_ids[same pid-next]"),
    Mutant("Ids are unique: a child forked in C has noise of its own, too", "record.py",
           "if known_pid == pid else ()", "if known_pid else ()",
           "tests/test_record.py::test_a_child_forked_within_a_millisecond_makes_other_ids[in C-next]"),
    Mutant("Ids are unique: a child forked in C makes its own", "record.py",
           "if known_ms != ms or known_pid != pid:", "if known_ms != ms:",
           "tests/test_record.py::test_a_child_forked_within_a_millisecond_makes_other_ids[in C-this]"),
    # Descriptors that the application closes under us.
    Mutant("Never twice: a journal that another process has by now is not taken back from it", "_journal.py",
           "if not _lock.try_acquire(lock) or", "if",
           "tests/faults/test_closed_descriptors.py::test_waits_while_another_process_has_its_journal"),
    Mutant("Never: a descriptor that is the application's by now is closed", "_paths.py",
           "if self.is_ours():", "if not self.closed:",
           "tests/faults/test_closed_descriptors.py::test_descriptor_that_the_application_got_is_not_closed"),
    Mutant("Never: a file of the application's is written to (descriptors are out of its way)", "_paths.py",
           "found = _out_of_the_way(file)", "found = file",
           "tests/faults/test_closed_descriptors.py::test_killed_after_everything_was_closed_keeps_its_records[256-12]"),
    Mutant("A liveness lock that was closed under us is taken again", "_journal.py",
           "if not self._lock.is_ours():", "if False:",
           "tests/faults/test_closed_descriptors.py::"
           "test_what_comes_after_another_process_took_an_empty_journal_is_kept"),
    Mutant("Never twice: a journal that another process has brought home is forgotten", "_kept.py",
           "if journal is None or not journal.has_lost_lock():", "if True:",
           "tests/faults/test_closed_descriptors.py::"
           "test_journal_that_another_process_brought_home_is_not_written_again[close_all-False]"),
    Mutant("Never twice: of a journal that another process had for a while its marks are read anew", "_journal.py",
           "if mark.number != self._mark.number:", "if False:",
           "tests/faults/test_closed_descriptors.py::"
           "test_other_process_that_is_killed_while_it_brings_home_doubles_nothing[behind]"),
    Mutant("Never twice: without its liveness lock a journal takes no marks, so nothing is appended",
           "_journal_files.py",
           "if self._is_closed or not (is_ours or self._lock.is_ours()):", "if self._is_closed:",
           "tests/faults/test_closed_descriptors.py::test_lock_that_is_lost_in_the_middle_of_an_attempt_doubles_nothing"),
    Mutant("Never twice: our own journal is not taken for a dead writer's when its lock was closed", "_journalling.py",
           'but = self.queue.writer_id if is_here else ""', 'but = ""',
           "tests/faults/test_closed_descriptors.py::test_own_journal_is_not_taken_for_a_dead_ones"),
    Mutant("Never twice: a journal at the old place of a moved directory is renounced", "_kept.py",
           "before.renounce()", "before.close()",
           "tests/faults/test_moved_directory.py::"
           "test_what_waited_when_the_directory_was_moved_is_in_one_of_both_places"),
    Mutant("Never lost: behind the first write to a new place the journal is there, too", "_shared_file.py",
           "self._look_for_journal()  # where the whole directory was", "pass  #",
           "tests/faults/test_moved_directory.py::"
           "test_killed_after_the_first_write_to_the_new_place_leaves_nothing_at_the_old_one[False]"),
    # Values.
    Mutant("Never: the same key stands twice in a line", "formatter.py",
           "if plan.own:", "if False:",
           "tests/test_formatter.py::test_a_value_under_a_name_of_ours_is_kept_in_metadata"),
    Mutant("What cannot be encoded is replaced and named: NaN", "formatter.py",
           "if not -_INFINITY < fields[name] < _INFINITY:", "if False:",
           "tests/test_formatter.py::test_the_same_names_in_another_order_are_looked_at_anew"),
    Mutant("What cannot be encoded is replaced and named: a NaN that is nested", "formatter.py",
           "if not -_INFINITY < item < _INFINITY:", "if False:",
           "tests/test_formatter.py::test_the_same_names_with_other_values_are_looked_at_anew"),
    Mutant("What cannot be encoded is replaced and named: a NaN that is nested deep", "formatter.py",
           'if b"null" in text and', 'if b"nil" in text and',
           "tests/test_formatter.py::test_a_nan_that_is_nested_deep_is_named"),
    Mutant("Never ends the process: orjson gets only lists and dicts that nobody else has (else a SIGSEGV)",
           "formatter.py",
           "    elif kind is list or kind is tuple:\n",
           "    elif kind is list:\n        return value\n    elif kind is tuple:\n",
           "tests/test_formatter.py::test_a_list_that_is_emptied_while_it_is_encoded_does_not_end_the_process"),
    Mutant("Never ends the process: the same of what is nested deep", "formatter.py",
           "own = marshal.loads(marshal.dumps(value))", "own = value",
           "tests/test_formatter.py::test_a_deep_list_that_is_emptied_while_it_is_encoded_does_not_end_the_process"),
    Mutant("Never ends the process: orjson is asked for nothing that memory does not have", "_fast_json.py",
           "    if memory_can_end():\n        _take(_most_for(value))\n", "",
           "tests/faults/test_memory.py::test_memory_that_ends_ends_no_process_and_costs_no_answer_unsaid"),
    Mutant("Never ends the process: nor while it reads", "_fast_json.py",
           "        _take(len(text) * _PER_PARSED_BYTE)\n", "        pass\n",
           "tests/test_fast_json.py::test_too_little_memory_is_a_memory_error_and_never_the_end_of_the_process"),
    Mutant("A record that there is memory for is not refused because it was asked for", "_fast_json.py",
           "if size < _MALLOCS_OWN or not _has_kernel(size + 2 * _MALLOCS_LEAST):", "if True:",
           "tests/test_fast_json.py::test_asking_for_memory_keeps_none_of_it"),
    Mutant("Never ends the process: what is JSON already counts as long", "formatter.py",
           "                characters[0] += SMALL + 1\n", "",
           "tests/test_fast_json.py::test_what_is_nested_deep_counts_as_long"),
    Mutant("Never ends the process: a limit is seen when a long text comes", "formatter.py",
           "_fast_json.memory_could_end or characters[0] > SMALL", "_fast_json.memory_could_end",
           "tests/test_fast_json.py::test_limit_that_comes_while_records_are_logged_is_seen_by_a_long_one_at_once"),
    Mutant("Never ends the process: and within a second by the others", "formatter.py",
           "        look_again()\n", "",
           "tests/test_fast_json.py::test_limit_that_comes_while_records_are_logged_is_seen_by_a_long_one_at_once"),
    Mutant("What memory does not suffice for is refused, and no name is kept in its place", "_plain.py",
           "if isinstance(error, MemoryError) and memory_can_end():", "if False:",
           "tests/test_fast_json.py::test_value_that_memory_does_not_suffice_for_is_not_replaced_by_a_name"),
    Mutant("A value makes no record vanish: what is nested deep, beside half an emoji", "formatter.py",
           "fields = {**fields, name: inner}", "fields[name] = inner",
           "tests/test_formatter.py::test_what_is_nested_deep_is_kept_beside_a_text_that_asks_for_the_careful_way"),
    Mutant("The record is what was logged: the caller's own lists are not changed", "formatter.py",
           "    own = [*value]\n", "    own = value\n",
           "tests/test_formatter.py::test_what_the_caller_gave_is_not_changed_by_it"),
    Mutant("What was found out of some names is not taken for others", "formatter.py",
           "    names = tuple(fields)\n", "    names = tuple(sorted(fields))\n",
           "tests/test_formatter.py::test_the_same_names_in_another_order_are_looked_at_anew"),
    Mutant("What was found out of some names holds for values of their classes only", "formatter.py",
           "plan.looks.get(kinds) or", "next(iter(plan.looks.values()), None) or",
           "tests/test_formatter.py::test_the_same_names_with_other_values_are_looked_at_anew"),
    Mutant("Never: bad %-arguments make a record vanish", "formatter.py",
           "except Exception as error:  # noqa: BLE001  bad %-arguments", "except OSError as error:  #",
           "tests/test_formatter.py::test_a_message_that_cannot_be_formatted_is_kept_in_pieces"),
    Mutant("The record is what was logged: the caller's own dict is not changed", "formatter.py",
           "moved = dict.copy(metadata) if", "moved = metadata if",
           "tests/test_formatter.py::test_the_callers_metadata_is_not_changed_by_it"),
    Mutant("Never: cycles make a record vanish", "_plain.py",
           "if id(value) in self._open:", "if False:",
           "tests/test_plain.py::test_a_cycle_is_cut_and_named"),
    Mutant("Never: 10,000 levels make a record vanish", "_plain.py",
           "if depth >= MAX_DEPTH:", "if False:",
           "tests/test_plain.py::test_ten_thousand_levels_end_at_the_limit"),
    Mutant("Never: objects whose __str__ raises make a record vanish", "_plain.py",
           "except Exception as error:  # values run foreign code", "except OSError as error:  #",
           "tests/test_plain.py::test_a_value_whose_own_code_raises_leaves_its_class"),
    Mutant("Never: integers beyond 64 bits make a record vanish", "_plain.py",
           "if _INT_MIN <= number <= _INT_MAX:", "if True:",
           "tests/test_plain.py::test_a_value_that_json_cannot_hold_is_replaced_and_named"),
    Mutant("Never: the same key stands twice (non-string keys that read alike)", "_plain.py",
           "while name in result:", "while False:",
           "tests/test_plain.py::test_keys_that_collide_again_and_again_are_all_kept"),
    # The journal.
    Mutant("Never twice: the journal of a living writer is left to it", "_adopt.py",
           "if not _lock.try_acquire(lock):", "if False:",
           "tests/test_guarantees.py::test_journal_of_a_living_writer_is_left_to_it"),
    Mutant("Never twice: lines below the consumed mark have arrived", "_adopt.py",
           "if seq >= self._next_seq:", "if True:",
           "tests/test_guarantees.py::test_lines_that_came_home_in_part_leave_the_rest_alone_in_the_journal"),
    Mutant("At whichever instruction a process was killed: the intent stands in the journal", "_kept.py",
           "        try:\n            journal.mark(intent.first_seq, intent)\n", "        try:\n            pass\n",
           "tests/test_guarantees.py::test_writer_killed_in_an_append_of_journalled_lines_the_bytes_decide"),
    Mutant("At whichever instruction a process was killed, replays included", "_adopt.py",
           "        self.mark(self._home_seq, intent)\n", "        pass\n",
           "tests/test_guarantees.py::test_adopter_killed_in_its_append_is_settled_by_the_next"),
    Mutant("Never lost: a journal that cannot be listed now is not taken for an empty one", "_adopt.py",
           "(directory, os.listdir(directory), writer_id", "(directory, directory_names(directory), writer_id",
           "tests/faults/test_unlisted.py::test_journal_that_cannot_be_listed_is_not_taken_for_an_empty_one[EIO]"),
    Mutant("Nothing whose call has returned is lost at the death of the process (crash)", "_queue.py",
           "self._keep(keeper, line, seq, force=force and not may_exceed)\n", "pass\n",
           "tests/test_journal_keep.py::test_put_returns_when_the_line_is_in_the_journal"),
    Mutant("A full journal is a full queue", "_queue.py",
           "and (keeper is None or keeper.has_room(size))", "and True",
           "tests/test_journal_keep.py::test_full_journal_is_a_full_queue"),
    Mutant("failed only when nothing could hold the record: it spills", "_caller.py",
           "if keeper is None or not keeper.has_room(len(record.body)):", "if True:",
           "tests/test_journal_keep.py::test_record_that_finds_the_queue_full_and_another_thread_at_the_log_spills"),
    Mutant("failed only when nothing could hold the record: what is in the journal is not refused", "_caller.py",
           "if self.queue.is_stashed(record):  # where", "if False:  # where",
           "tests/test_journal_keep.py::test_record_that_the_log_refuses_while_the_queue_is_full_spills_and_comes_home"),
    Mutant("A journal that cannot be had is said, and get_stats() is honest", "writer.py",
           'if self.options.durability == "crash" and self.queue.journal_error:', "if False:",
           "tests/test_journal_keep.py::test_journal_that_fails_later_is_told_once_and_in_the_counters"),
    Mutant("Equal to what was logged: an altered line of a journal does not count", "_journal_format.py",
           " and line[-_END:] == b'%08x\"}\\n' % zlib.crc32(", " and (",
           "tests/test_journal_format.py::test_any_byte_changed_costs_its_line_and_no_other"),
    Mutant("Never twice: what an earlier use left in the same space does not count", "_journal_format.py",
           "if number < seq or not", "if not",
           "tests/test_journal_format.py::test_older_lines_behind_the_newest_do_not_count"),
    Mutant("Exactly once: a line counts as arrived behind the append, never before it", "writer.py",
           "len(lines), seq_of(lines[0])))\n",
           "len(lines), seq_of(lines[0])))\n"
           "        getattr(source, 'journal', None) and source.journal.mark(seq_of(lines[-1]) + 1, None)\n",
           "tests/test_guarantees.py::test_writer_killed_in_an_append_of_journalled_lines_the_bytes_decide"),
    Mutant("Never twice: whoever lives holds the lock of his journal", "_journal_place.py",
           "if _lock.try_acquire(lock) and not _lock.is_replaced(lock, path):\n                return lock",
           "if not _lock.is_replaced(lock, path):\n                return lock",
           "tests/test_journal.py::test_journal_of_a_living_writer_is_no_orphan"),
    Mutant("Never lost: an orphan is told by its lock, never by a pid that somebody else has now", "_adopt.py",
           "if not _lock.try_acquire(lock):",
           "if os.path.exists('/proc/' + writer_id.split('-')[-3]) or not _lock.try_acquire(lock):",
           "tests/test_journal.py::test_lines_stored_are_found_by_whoever_adopts_them"),
    Mutant("A forked child holds up nobody who brings its parent's lines home", "_journal_files.py",
           "forget_in_child(lock)  # before it is locked", "str(lock)  #",
           "tests/faults/test_closed_descriptors.py::test_child_forked_while_a_journal_is_made_does_not_hold_its_lock"),
    Mutant("Never under its parent's name: what a forked child stores in the journal that it has from it",
           "_journal_files.py", 'for as long as the child lives."""\n        self.close()',
           'for as long as the child lives."""\n        pass',
           "tests/test_journal.py::test_child_that_uses_its_parents_journal_is_refused"),
    Mutant("Never: a journal's file is created readable by others", "_journal.py",
           "os.O_RDWR, self._file_mode, like=self.directory)\n        reserve",
           "os.O_RDWR, 0o644, like=self.directory)\n        reserve",
           "tests/faults/test_strangers_files.py::test_files_of_a_writer_at_work_are_its_owners_alone"),
    Mutant("Never: a journal's directory is open to others", "_journal_place.py",
           "make_directory(directory, options.directory_mode, like)", "make_directory(directory, 0o755, like)",
           "tests/faults/test_strangers_files.py::test_files_of_a_writer_at_work_are_its_owners_alone"),
    Mutant("Never: a symlink in the journal's place is followed", "_journal_place.py",
           'if (kind := describe_file_type(directory)) not in {"a directory", ""}:', 'if kind := "":',
           "tests/test_journal.py::test_journal_in_a_directory_behind_a_symbolic_link_is_refused"),
    Mutant("journal_directory: whoever knows nothing of it follows the note", "_journal_find.py",
           "for place in places if os.path.isabs(place)]", "for place in places if not place]",
           "tests/test_journal_keep.py::test_journal_elsewhere_is_brought_home_by_who_knows_nothing_of_it"),
    Mutant("journal_directory: the note is made", "_journalling.py",
           "note_location(self.baseFilename, self.options)", "pass",
           "tests/test_journal_keep.py::test_journal_directory_holds_the_journal_and_the_log_says_where"),
    Mutant("A new segment: the call only gives the ready one its name", "writer.py",
           "            self._prepare_segment()\n", "            pass\n",
           "tests/test_journal_space.py::test_listener_has_the_next_segment_ready_and_lets_go_of_the_old_one"),
    Mutant("Never: a ready segment takes the place of what stands there", "_libc.py",
           "_RENAME_NOREPLACE: Final = 1", "_RENAME_NOREPLACE: Final = 0",
           "tests/test_journal_space.py::test_what_stands_in_the_next_segments_place_is_not_replaced"),
    Mutant("kill -9: a ready segment's name lets an adopter remove no other", "_journal_space.py",
           "segment_name(self.writer_id, _NO_LINE + self._made)", "segment_name(self.writer_id, 4 + self._made)",
           "tests/test_journal_space.py::test_segment_that_is_ready_lets_no_other_go"),
    Mutant("Nothing is made ready where nobody would remove it", "_journal_space.py",
           "if self.is_gone():", "if not self.directory:",
           "tests/test_journal_space.py::test_nothing_is_made_where_the_journal_is_no_longer"),
    Mutant("Where all descriptors were closed, the ready segment's is not written to", "_journal.py",
           "                self._drop_ready()\n                self._position", "                self._position",
           "tests/test_journal_space.py::test_where_all_descriptors_were_closed_the_ready_one_is_not_used"),
    Mutant("A slow disk: no call waits for it with the interpreter lock held, for a new segment either", "_journal.py",
           "size <= SEGMENT_BYTES and time.perf_counter() >= self._outside_until_s", "size <= SEGMENT_BYTES",
           "tests/test_journal_space.py::test_disk_that_makes_calls_wait_is_not_asked_with_the_interpreter_lock_held"),
    Mutant("A journal that is left lets go of the ready segment", "_journal.py",
           "*self._left, self._segment)\n        self._drop_ready()", "*self._left, self._segment)",
           "tests/test_journal_space.py::test_child_lets_go_of_its_copy_and_the_parents_stays_ready"),
    Mutant("journal_max_bytes: the room is for what waits", "_journal_space.py",
           "if self.size + SEGMENT_BYTES > self.max_bytes >> 1:", "if self.size + SEGMENT_BYTES > self.max_bytes:",
           "tests/test_journal_space.py::test_small_journal_keeps_its_room_for_what_waits"),
    Mutant("journal_max_bytes: what a journal may take", "_journal.py",
           "return self.size + max(size, SEGMENT_BYTES) <= self.max_bytes", "return True",
           "tests/test_journal_keep.py::test_full_journal_is_a_full_queue"),
    Mutant("Somebody's logging.shutdown in another thread makes no record vanish", "_journal.py",
           "except ValueError:  # another thread has closed it", "except ZeroDivisionError:  #",
           "tests/test_journal_keep.py::test_record_that_comes_while_another_thread_removes_the_journal_is_taken"),
    Mutant("close: one message says how many are left and where, to the handler that closes", "_pipeline.py",
           "tell(user, error)", "self._report(error)",
           "tests/faults/test_lock_holder.py::test_held_lock_a_close_alone_takes_close_timeout"),
    # Loss of power.
    Mutant("power: the call returns behind a sync of the journal", "_pipeline.py",
           'if queue.is_synced and record.status in {"queued", "spilled"}:', "if False:",
           "tests/test_synced.py::test_call_returns_behind_a_sync_of_the_journal_and_of_its_name_once"),
    Mutant("power: the names of the journal's files are synced, too", "_journal.py",
           'sync_directory(self._path(""))', 'str(self._path(""))',
           "tests/test_synced.py::test_call_returns_behind_a_sync_of_the_journal_and_of_its_name_once"),
    Mutant("power: no record is acknowledged by a sync that began before its write (the group)", "_group_sync.py",
           "self.durable_seq = max(self.durable_seq, durable)",
           "self.durable_seq = max(self.durable_seq, durable + len(self._waiting))",
           "tests/test_group_sync.py::test_sync_that_began_before_a_write_tells_nobody_of_it"),
    Mutant("power: a leader that is interrupted leaves the others another", "_group_sync.py",
           "mine.acquire(timeout=_LOOK_S)", "mine.acquire()",
           "tests/test_group_sync.py::test_exception_thrown_into_the_one_who_leads_leaves_the_others_a_leader"),
    Mutant("power: a mark file whose sync failed is never synced again, but replaced", "_journal_files.py",
           "self._marks_are_bad = True", "self._marks_are_bad = False",
           "tests/faults/test_power.py::test_mark_that_cannot_be_synced_is_replaced"),
    Mutant("power: a log whose sync failed is never synced again, but sealed", "_shared_file.py",
           "sealed = self._seal(descriptor, start, end)", 'sealed = ""',
           "tests/test_synced.py::test_log_that_cannot_be_synced_is_sealed_and_not_asked_again"),
    Mutant("power: the intent is synced before its block is appended", "_journal_files.py",
           "if self.is_synced and (intent is not None or self._has_surplus(consumed)):", "if False:",
           "tests/test_synced.py::test_intent_and_what_others_appended_are_durable_before_a_block_is"),
    Mutant("power: what others have appended is synced before our block is, which so lies behind no hole",
           "_shared_file.py", "self._sync_log(descriptor, start, start)", "pass",
           "tests/test_synced.py::test_intent_and_what_others_appended_are_durable_before_a_block_is"),
    Mutant("power: the log is synced before its lines are forgotten", "writer.py",
           "if source.is_synced and start != end:", "if False:",
           "tests/test_synced.py::test_log_is_synced_before_its_lines_are_forgotten"),
    Mutant("power: the log's own name is synced", "_shared_file.py",
           "sync_directory(self.baseFilename)", "str(self.baseFilename)",
           "tests/test_synced.py::test_name_of_a_log_is_synced_before_the_first_block_also_of_one_made_anew"),
    Mutant("power: a directory that others made is synced (the log's)", "_shared_file.py",
           "for one in (made or [directory]) if", "for one in made if",
           "tests/test_synced.py::test_directory_that_others_made_is_synced_all_the_same"),
    Mutant("power: whoever brings such a journal home syncs, whatever his own durability", "_adopt.py",
           "is_durable = is_synced or lock.read(len(SYNCED)) == SYNCED", "is_durable = is_synced",
           "tests/faults/test_power.py::"
           "test_whoever_brings_home_a_journal_of_power_syncs_whatever_his_own_durability"),
    Mutant("power: the holes that loss of power made in a block are filled", "_arrived.py",
           "if found < (holed := _append.holed_lines(descriptor, start, lines)):", "if False:",
           "tests/test_synced.py::test_holes_in_a_block_are_filled_also_when_somebody_has_logged_behind_them"),
    # Reading and proving.
    Mutant("Exactly once: a record that stands in a journal and in the log is shown once", "reader.py",
           "if journalled.shows(record):", "if True:",
           "tests/faults/test_readers.py::test_journals_copy_is_shown_once_and_a_doubled_line_of_the_log_twice"),
    Mutant("Never hidden: a record that stands twice in the log is shown twice, also beside a journal's copy",
           "_journal_read.py", "return not is_first or self._held", "return self._held",
           "tests/faults/test_readers.py::test_journals_copy_is_shown_once_and_a_doubled_line_of_the_log_twice"),
    Mutant("Readers: an inode that nobody held is no proof, a name with a time is", "_snapshot.py",
           "if re.search(_STAMP, os.path.basename(file.path)):", "if False:",
           "tests/test_reader.py::test_inode_that_a_late_file_has_left_is_not_taken_for_it"),
    Mutant("Readers: nor is an inode without the size and the time of what stood there", "_snapshot.py",
           "== (file.identity, file.size, file.changed_ns)", "> (file.identity,)",
           "tests/test_reader.py::test_numbered_file_whose_inode_another_has_now_is_an_error"),
    Mutant("Readers: nor what stood there a moment before it was opened", "_snapshot.py",
           "if _is_same(os.fstat(descriptor), file):", "if True:",
           "tests/test_reader.py::test_file_that_takes_the_place_of_a_late_one_while_it_is_opened_is_an_error"),
    Mutant("Readers: a file that cannot be opened in its turn is named", "_snapshot.py",
           "raise LogReadError(name, why_refused(error)) from error\n        for", "raise\n        for",
           "tests/test_reader.py::test_old_file_that_cannot_be_opened_when_its_turn_comes_is_named"),
    Mutant("Readers: every file is still where it was seen, not only the newest of an inode", "_snapshot.py",
           "for file in found)\n", "for file in {one.identity: one for one in found}.values())\n",
           "tests/test_reader.py::test_inode_that_moves_between_two_looks_hides_no_file"),
    Mutant("Readers: no hole in a segment that is written to while it is read", "_journal_read.py",
           "if not lines or lines[-1].seq - first_seq < len(lines):", "if True:",
           "tests/faults/test_readers.py::test_segment_that_is_written_to_while_it_is_read_has_no_hole"),
    Mutant("Readers: nor one of a single line", "_journal_read.py",
           "lines[-1].seq - first_seq < len(lines):", "lines[-1].seq - first_seq <= len(lines):",
           "tests/faults/test_readers.py::test_segment_that_is_written_to_while_it_is_read_has_no_hole"),
    Mutant("Readers: what is stored behind the moment of the look does not make another hole", "_journal_read.py",
           " if one.seq <= last_seq]", "]",
           "tests/faults/test_readers.py::test_segment_that_is_written_to_while_it_is_read_has_no_hole"),
    Mutant("Readers miss nothing that moves: journals first, the log's files only then", "reader.py",
           "    journalled = Journalled()\n",
           "    early = LogSnapshot(path, missing_ok=True)\n"
           "    globals()['LogSnapshot'] = lambda *_, **__: early\n"
           "    journalled = Journalled()\n",
           "tests/faults/test_readers.py::"
           "test_what_moves_to_the_log_while_it_is_read_is_neither_missed_nor_doubled[read_log]"),
    Mutant("Proof misses nothing that moves: journals first, the log's files only then", "verify/__init__.py",
           "    journals = Journals(path)\n",
           "    early = LogSnapshot(path, missing_ok=True)\n"
           "    globals()['LogSnapshot'] = lambda *_, **__: early\n"
           "    journals = Journals(path)\n",
           "tests/faults/test_readers.py::"
           "test_what_moves_to_the_log_while_it_is_read_is_neither_missed_nor_doubled[verify_log]"),
    Mutant("replay: exit code 1 if records stay", "cli/replay.py",
           'if any(one.why != "held" for one in run.stayed):', "if False:",
           "tests/cli/test_replay.py::test_log_that_refuses_leaves_the_records_where_they_are"),
    Mutant("replay: exit code 0 beside a living writer, whose journal is its own", "cli/replay.py",
           'if any(one.why != "held" for one in run.stayed):', "if run.stayed:",
           "tests/cli/test_replay.py::test_living_writer_keeps_its_journal_and_is_named"),
    Mutant("replay: exit code 3 where there is no such log", "cli/replay.py",
           "LogSnapshot(self.path).close()  # says so", "pass  #",
           "tests/cli/test_replay.py::test_log_that_is_not_there_is_an_error_and_is_not_made"),
    Mutant("Exactly once: a file that stands plain and compressed is read once", "_snapshot.py",
           'if stem not in found or not match["gz"]:', "if True:",
           "tests/test_reader.py::test_compression_cut_short_by_a_kill_reads_the_plain_file"),
    Mutant("Never made up: a record inside another one's piece is none of its own", "_parse.py",
           "if not ends_well or not _begins_a_record(body, behind, start):", "if False:",
           "tests/test_parse.py::test_a_record_inside_another_is_none_of_its_own"),
    Mutant("Back without loss: what has no field today stays with the record", "_shapes.py",
           '("rest", self._rest))', ")",
           "tests/test_shapes.py::test_each_shape_comes_back_as_it_was_through_json"),
    Mutant("Read only: a query that writes is not run, although it begins as one that asks", "analysis/_guard.py",
           "    if strange:", "    if False:",
           "tests/test_analysis.py::test_a_hostile_question_reads_and_writes_nothing_else"),
    Mutant("Figures are right: damage is found, and what is glued to it counts", "analysis/log.py",
           "            self._put_right()\n        else:", "            self._bad = []\n        else:",
           "tests/test_analysis.py::test_the_table_has_what_the_streaming_reader_gives"),
    Mutant("Never hidden: a line that stands twice in the log is two rows, also beside a journal's copy",
           "analysis/log.py", "for key, line in journalled.items() if key not in arrived}",
           "for key, line in journalled.items()}",
           "tests/test_analysis.py::test_doubled_lines_are_shown_and_counted"),
    Mutant("Converted with proof: a record that does not come back equal is counted", "convert.py",
           "equal += _hash(canonical) == expected", "equal += 1",
           "tests/test_convert.py::test_a_wrong_conversion_is_seen"),
    Mutant("Exactly once across rotation: each byte of a snapshot is read once", "_snapshot.py",
           "if not still_there or log_files(self.path) != names:", "if False:",
           "tests/test_reader.py::test_rotation_while_the_files_are_opened_reads_each_byte_once"),
    Mutant('Proof of "equal to what was logged": an altered byte is seen', "verify/_lines.py",
           "if counted == body[-10:-2]:", "if counted:",
           "tests/test_verify.py::test_any_altered_byte_is_seen"),
    Mutant('Proof of "never twice": a doubled record is seen', "verify/__init__.py",
           "if repeated or self._has_repeated_number:", "if False:",
           "tests/test_verify.py::test_record_three_times_is_two_duplicates"),
    Mutant('Proof of "never lost": a missing number is seen', "verify/__init__.py",
           "        self._note_gaps()\n", "",
           "tests/test_verify.py::test_gap_of_a_billion_numbers_is_one_range"),
    Mutant('Proof of "never glued": records on one line are seen', "verify/_lines.py",
           "inside = _records_inside(body, at) if starts else []", "inside = []",
           "tests/test_verify.py::test_whole_records_inside_a_glued_line_are_located"),
    # What goes out of a record before it is kept.
    Mutant("Secrets: values that are encoded the careful way are looked at, too", "_cleaning.py",
           "if taken or parts is None or", "if taken or parts is not None and",
           "tests/test_cleaning.py::test_a_secret_in_one_place_alone_is_found"),
    Mutant("Secrets: a message is cleaned, and its place is named", "_cleaning.py",
           "if type(message) is not str or not self._redactor.suspects_text(message):", "if True:",
           "tests/test_cleaning.py::test_no_secret_is_in_any_file"),
    Mutant("Secrets: no record is lost because one is taken out of it, however deep", "_fast_json.py",
           "except (MemoryError, orjson.JSONEncodeError):", "except MemoryError:",
           "tests/test_cleaning.py::test_a_secret_however_deep_costs_no_record"),
    Mutant("Secrets: what stands in a key of a dict is in no path either", "redaction.py",
           "self._rename(container, path, taken)  # first", "pass  # first",
           "tests/test_redaction.py::test_paths_of_what_was_taken_hold_no_secret"),
    Mutant("Secrets: the quick look overlooks nothing (a value under a secret's name)", "redaction.py",
           "if type(one) is not dict or self._wants_any(one):", "if type(one) is not dict:",
           "tests/test_cleaning.py::test_a_secret_in_one_place_alone_is_found"),
    Mutant("Secrets: ... or in what is nested so deep that it is JSON already", "redaction.py",
           "if type(one) is not dict or self._wants_any(one):", "if self._wants_any(one if type(one) is dict else ()):",
           "tests/test_cleaning.py::test_a_value_under_a_secrets_name_goes_however_deep"),
    Mutant("Secrets: a name without a value is remembered as harmless only if it is", "redaction.py",
           "if not self._wants_any(names.all):", "if True:",
           "tests/test_cleaning.py::test_a_secrets_name_without_a_value_is_not_taken_for_harmless"),
    Mutant("Secrets: what one log's rules leave is not taken for harmless to another's", "redaction.py",
           "names.harmless_to is not self", "names.harmless_to is None",
           "tests/test_cleaning.py::test_names_that_one_logs_rules_leave_are_looked_at_by_another"),
    Mutant("Secrets: a name that we add is looked at", "formatter.py",
           'self.all = (*names, "provider", "metadata")', "self.all = (*names,)",
           "tests/test_cleaning.py::test_a_name_that_we_add_is_looked_at_although_it_was_not_there_before"),
    Mutant("Secrets: a key begins behind a low line, too", "redaction.py",
           'for byte in (b"-", b"_"):', 'for byte in (b"-",):',
           "tests/test_redaction.py::test_a_key_in_the_middle_of_a_name_is_taken[user_]"),
    Mutant("Secrets: a run known as harmless is judged anew behind another word", "redaction.py",
           "seen = line[max(at - _BEFORE_A_RUN, 0) :", "seen = line[at :",
           "tests/test_redaction.py::test_run_that_was_harmless_is_none_where_something_else_stands_around_it"),
    Mutant("Secrets: ... and with another byte behind it", "redaction.py",
           "min(end, at + _LONGEST_KNOWN) + 1]", "min(end, at + _LONGEST_KNOWN)]",
           "tests/test_redaction.py::test_run_that_was_harmless_is_none_where_something_else_stands_around_it"),
    Mutant("Secrets: of the runs that are known as harmless none is as long as a key may be", "redaction.py",
           "if end - at <= _LONGEST_KNOWN:", "if True:",
           "tests/test_redaction.py::test_few_runs_are_remembered"),
    Mutant("Secrets: half a kilobyte of a run is looked at, its escape not counted", "redaction.py",
           "512 + 5", "512",
           "tests/test_redaction.py::test_of_a_run_up_to_half_a_kilobyte_all_is_looked_at"),
    Mutant("Secrets: the mark of one rule is no find of the next", "redaction.py",
           "if found and not found.startswith(MARKS) and", "if found and",
           "tests/test_redaction.py::test_what_was_replaced_is_not_replaced_again"),
    Mutant("Large texts: what a loss of power left under a name is made anew", "blobs.py",
           " and _holds(file.fileno(), text):", ":",
           "tests/test_blobs.py::test_what_a_loss_of_power_left_is_made_anew"),
    Mutant("Large texts: at power, the text's names are on the disk as well", "blobs.py",
           "            self._sync(path)\n", "            pass\n",
           "tests/test_blobs.py::test_synced_means_its_names_too"),
    Mutant("Large texts: never shown is a text that is not what was logged", "blobs.py",
           "if _digest_of(data) != digest:", "if False:",
           "tests/test_blobs.py::test_another_text_under_its_name_is_said"),
    Mutant("Large texts: where there is no room, the text stays in its line", "blobs.py",
           "with suppress(Exception):\n            digest = keep", "if True:\n            digest = keep",
           "tests/test_blobs.py::test_a_disk_that_takes_no_more_leaves_the_text_in_its_line"),
    # Whole files.
    Mutant("Whole or not there: a failure leaves no half file", "_whole_file.py",
           "            with suppress(OSError):\n                os.unlink(self.making)\n        with suppress",
           "            pass\n        with suppress",
           "tests/test_convert.py::test_a_failure_leaves_nothing_behind"),
    Mutant("Whole or not there: a Ctrl-C between any two steps leaves no half file", "_whole_file.py",
           "    def __del__(self) -> None:", "    def never(self) -> None:",
           "tests/test_whole_file.py::"
           "test_exception_thrown_in_at_any_point_leaves_the_old_file_or_the_new_one_and_no_other"),
    Mutant("Whole or not there: a forked child leaves its parent's file alone", "_whole_file.py",
           "if os.getpid() == self._maker:", "if True:",
           "tests/test_whole_file.py::test_child_forked_meanwhile_leaves_its_parents_file_alone"),
    Mutant("Whole or not there: the bytes are on the disk before the name", "_whole_file.py",
           "            self._file.sync()\n", "            pass\n",
           "tests/test_whole_file.py::test_its_bytes_are_on_the_disk_before_it_has_its_name"),
    Mutant("Whole or not there: what somebody made meanwhile is not replaced", "_whole_file.py",
           "if not replace:", "if False:",
           "tests/test_whole_file.py::test_file_that_somebody_makes_meanwhile_is_kept"),
    Mutant("An export's files get their names together or not at all", "export/_write.py",
           "        output.finish()\n    manifest.rows",
           "        output.finish()\n        output.take_name()\n    manifest.rows",
           "tests/test_whole_file.py::test_all_files_of_an_export_get_their_names_or_none"),
    Mutant("A directory that cannot get its name leaves the one before", "export/_files.py",
           "if os.path.lexists(before) and not os.path.lexists(path):", "if False:",
           "tests/test_whole_file.py::test_directory_that_cannot_get_its_name_leaves_the_one_before"),
    Mutant("Converted: never over a file of the log itself", "convert.py",
           "if (status.st_dev, status.st_ino) in own:", "if False:",
           "tests/test_convert.py::test_nothing_is_overwritten_unless_forced_and_the_log_never"),
    Mutant("Converted: nobody guesses a time zone", "convert.py",
           'if "timestamp" not in record and', "if False and",
           "tests/test_convert.py::test_a_line_without_a_zone_stops_it_and_says_what_to_do"),
    # Forgetting.
    Mutant("Forget: what others wrote between copy and rename is not undone", "forget/_rewrite.py",
           "if os.pread(source.fileno(), len(last), copy.size - len(last)) != last:", "if False:",
           "tests/test_forget.py::test_whatever_others_do_between_copy_and_rename_is_not_undone"),
    Mutant("Forget: a file that was rotated away meanwhile is not written over the new one", "forget/_rewrite.py",
           "if _lock.is_replaced(source, file) or (is_live and live is None):", "if False:",
           "tests/test_forget.py::test_whatever_others_do_between_copy_and_rename_is_not_undone"),
    Mutant("Forget: what a compression has just made the only copy stays", "forget/_rewrite.py",
           " or _lock.is_replaced(plain, file):", ":",
           "tests/test_forget.py::test_compression_that_ends_while_its_file_is_looked_at_keeps_its_only_copy"),
    Mutant("Forget: a copy does not take the place of what a stranger has just put there", "forget/_rewrite.py",
           "elif _lock.is_replaced(source, part):", "elif False:",
           "tests/test_forget_meets.py::"
           "test_file_that_is_renamed_just_before_its_copy_takes_its_place_is_neither_doubled_nor_lost"),
    Mutant("Forget: a log that a stranger has just renamed away is looked for again", "forget/_rewrite.py",
           "if failed == errno.ENOENT:", "if False:",
           "tests/test_forget_meets.py::"
           "test_log_that_is_renamed_away_just_before_its_copy_takes_its_place_is_not_made_twice"),
    Mutant("Forget: a compression that ends while what is left over is looked for ends no run", "forget/__init__.py",
           "with suppress(FileNotFoundError), open_regular(file, os.O_RDWR, 0, create=False) as part:",
           "with open_regular(file, os.O_RDWR, 0, create=False) as part:",
           "tests/test_forget_meets.py::"
           "test_compression_that_ends_between_the_list_and_the_look_at_its_part_file_ends_nothing_else"),
    Mutant("Verify: what is forgotten between its looks at journals and log is no contradiction", "verify/__init__.py",
           "for number, place in ((number, place) for number, place in journalled if number not in forgotten):",
           "for number, place in journalled:",
           "tests/test_forget_meets.py::"
           "test_verify_between_whose_looks_a_journals_records_are_forgotten_finds_them_forgotten"),
    Mutant("Verify: what should be forgotten and is in a journal still is told", "verify/__init__.py",
           "named -= {number for number, _ in Journals(self._path).numbers.get(writer_id, ())}", "pass",
           "tests/test_forget_meets.py::test_journals_record_that_a_receipt_names_and_that_is_still_there_is_told"),
    Mutant("Verify: texts of records that are forgotten meanwhile are not missed", "verify/__init__.py",
           "if digest in named and", "if digest in faults and",
           "tests/test_forget_meets.py::test_verify_does_not_miss_the_texts_of_records_that_are_forgotten_meanwhile"),
    Mutant("Verify: a text that is put back at once is not missed", "verify/__init__.py",
           "and (fault := fault_of(self._path, digest)):", 'and (fault := "gone"):',
           "tests/test_forget_meets.py::test_verify_does_not_miss_a_text_that_forget_takes_out_of_its_place_and_puts_back"),
    Mutant("Forget: no byte moves while an append is not settled", "forget/_rewrite.py",
           "if whose := unsettled():", 'if whose := "":',
           "tests/test_forget.py::test_unsettled_append_is_left_alone"),
    Mutant("Forget: an altered line's number may be another record's, and is not excused", "forget/_rewrite.py",
           "            self.forgotten.damaged += 1\n            return",
           "            self.forgotten.damaged += 1\n            record = __import__('json').loads(line)",
           "tests/test_forget.py::test_altered_line_is_removed_and_its_number_stays_a_gap"),
    Mutant("Forget: a text that is used in the middle of its removal stays", "forget/_texts.py",
           "if os.lstat(aside).st_mtime >= used_before_s:", "if False:",
           "tests/test_forget.py::test_use_in_the_middle_of_the_removal_keeps_the_text"),
    Mutant("Forget: one run at a time", "forget/__init__.py",
           "if not _lock.try_acquire(guard) or", "if False or",
           "tests/test_forget.py::test_second_run_at_the_same_time_is_refused"),
    Mutant("Forget: a start goes with the response that names the person", "forget/__init__.py",
           "if len(self.choice.call_ids) == known:", "if True:",
           "tests/test_forget.py::test_start_in_an_older_file_goes_with_the_answer_that_says_whose_it_is"),
    # Following.
    Mutant("Followed: what a journal showed is not shown again by the log", "follow.py",
           "return not is_first or seq not in self._noted.get(writer_id, ())", "return True",
           "tests/test_follow.py::test_what_is_in_journals_is_shown_once"),
    Mutant("Followed: a file that was compressed since is not shown again", "follow.py",
           "if not number and any(one.begins_with(line) for one in before):", "if False:",
           "tests/test_follow.py::test_many_rotations_between_two_looks_lose_and_double_nothing"),
    Mutant("Followed: of a log that forget has replaced only what is new is shown", "follow.py",
           "followed.offset = start_behind(live_before, followed)", "pass",
           "tests/test_follow.py::test_log_replaced_by_a_copy_without_some_lines_shows_only_what_is_new"),
    Mutant("Followed: an emptied log goes on from its beginning", "_followed.py",
           "self.offset = 0  # emptied", "pass  # emptied",
           "tests/test_follow.py::test_emptied_log_goes_on_from_its_beginning"),
    Mutant("Followed: a log that a writer cut back goes on from there", "_followed.py",
           "elif size < self.offset:", "elif False:",
           "tests/test_follow.py::test_log_cut_back_behind_what_was_shown_goes_on_from_there"),
    # The hooks.
    Mutant("Hooks: a fault of ours never reaches the application", "integrations/_recorder.py",
           "except Exception as error:  # noqa: BLE001  # what records", "except OSError as error:  # what records",
           "tests/integrations/test_calls.py::test_recorder_that_breaks_does_not_break_the_call"),
    Mutant("Hooks: a key that an endpoint repeats is in no record", "integrations/_recorder.py",
           "return tuple(one for one in said if len(one) >= _SHORTEST_SECRET)", "return ()",
           "tests/integrations/test_calls.py::test_no_secret_of_headers_or_addresses_is_in_any_file"),
    Mutant("Hooks: a call that is cancelled between two tries has an end", "integrations/_recorder.py",
           "if task is not None:  # cancelled", "if False:  # cancelled",
           "tests/integrations/test_calls.py::test_call_that_is_cancelled_between_two_tries_ends_with_its_task"),
    Mutant("Hooks: calls of many threads keep their tries apart", "integrations/_recorder.py",
           "return (_sender(), request.host, request.path, content)", "return (0, request.host, request.path, content)",
           "tests/integrations/test_calls.py::test_calls_of_many_threads_with_one_question_keep_their_tries_apart"),
    Mutant("Hooks: a call has one outcome, whoever says it first", "integrations/_open_calls.py",
           "call = self._open.pop(key, None)\n", "call = self._open.get(key)\n",
           "tests/integrations/test_open_calls.py::test_first_to_end_a_call_has_ended_it"),
    Mutant("Hooks: a library's further try is the same call", "integrations/_open_calls.py",
           "call.call_id, call.started_s = before.call_id, before.started_s", "pass",
           "tests/integrations/test_open_calls.py::test_further_try_of_a_library_is_the_same_call"),
    Mutant("Hooks: a task that ends takes its calls with it", "integrations/_open_calls.py",
           "        self._watch_task(key)\n", "",
           "tests/integrations/test_open_calls.py::test_task_that_ends_ends_its_calls"),
    Mutant("Hooks: a forked child ends none of its parent's calls", "integrations/_open_calls.py",
           "        self._open = {}\n\n    def begin", "        pass\n\n    def begin",
           "tests/integrations/test_open_calls.py::test_forked_child_does_not_end_its_parents_calls"),
    # The page.
    Mutant("Report: nothing that a model says ends the page's data", "report/_page.py",
           'return _UNSAFE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)', "return text",
           "tests/report/test_gather.py::test_nothing_ends_the_data_block"),
    Mutant("Report: what began or was tried is no call of its own", "report/_gather.py",
           'if record.get("event") in ENDS:', "if True:",
           "tests/report/test_gather.py::test_records_that_end_no_call_do_not_count"),
    Mutant("Report: failed calls never take all the room", "report/_calls.py",
           "self._bytes + size > _MOST_BYTES * _SHARES[kind]:", "self._bytes + size > _MOST_BYTES:",
           "tests/report/test_gather.py::test_failed_calls_never_take_all_the_room"),
    # The engine.
    Mutant("A run: a platform's limit holds over all processes", "matrix/dealing.py",
           "return None if whole is None else _share(whole, users, at)", "return whole",
           "tests/matrix/test_schedule.py::test_hands_hold_each_cell_once_and_keep_every_limit_together"),
    Mutant("A run: a minute never sees more calls than allowed", "matrix/schedule.py",
           "self._free_s = now_s + wait_s + units * self._unit_s", "self._free_s += units * self._unit_s",
           "tests/matrix/test_schedule.py::test_no_minute_sees_more_than_allowed"),
    Mutant("A run: the SDK's retries count against a platform's limit", "matrix/_clients.py",
           "wait_s = self._retry()", "wait_s = 0.0",
           "tests/matrix/test_calls.py::test_retries_take_their_turn_and_are_counted_on_failure_too"),
    Mutant("A run: a platform at its limit keeps no other waiting", "matrix/schedule.py",
           "if not self.waiting or self.in_flight >= self._most:", "if not self.waiting:",
           "tests/matrix/test_schedule.py::test_platform_at_its_limit_keeps_no_other_waiting"),
    Mutant("A run: nothing is paid for that the log refuses", "matrix/calls.py",
           'self._schedule.close("refused")', "pass",
           "tests/matrix/test_limits.py::test_log_that_refuses_a_record_stops_the_run"),
    Mutant("A run: a budget is not exceeded by what is in flight", "matrix/schedule.py",
           "        self._bound_tokens += tokens\n", "",
           "tests/matrix/test_schedule.py::test_budget_of_tokens_begins_no_cell_that_may_go_beyond_it"),
    Mutant("A run: lines about records are no records", "matrix/_run.py",
           "return own if handler_reached_from(own) is None else None", "return own",
           "tests/matrix/test_limits.py::test_lines_never_come_into_the_log_of_answers"),
    Mutant("A run: one Ctrl-C lets the calls in flight end", "matrix/interrupts.py",
           "if pressed > 1 and task is not None:", "if task is not None:",
           "tests/matrix/test_engine.py::test_first_ctrl_c_lets_the_calls_in_flight_end_and_begins_no_other[1]"),
)
# fmt: on


def main() -> int:
    """Run the mutants and return the exit code."""
    parser = argparse.ArgumentParser(description="Break the code line by line; a named test must fail each time.")
    parser.add_argument("--only", metavar="REGEX", default="", help="only pairs whose guarantee, file or test match")
    chosen = [mutant for mutant in MUTANTS if re.search(parser.parse_args().only, str(mutant))]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the copy goes away
    root = Path(__file__).resolve().parent.parent
    if not chosen:
        _stop("no pair matches")
    if unfit := complaints(root, chosen):
        _stop("\n".join(unfit))
    with tempfile.TemporaryDirectory(prefix="mutants.") as work:
        tree = Path(work, "tree")
        _copy_tree(root, tree)
        _run_unbroken(tree, sorted({mutant.tests for mutant in chosen}))
        started_s = time.monotonic()
        survived = [mutant for mutant in chosen if not _is_killed(tree, mutant)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} killed, {time.monotonic() - started_s:.0f} s")
    return bool(survived)


def _stop(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    raise SystemExit(1)


def complaints(root: Path, mutants: Sequence[Mutant] = MUTANTS) -> list[str]:
    """Say of those of *mutants* that cannot be made in the tree at *root*, or have no test there, why; runs nothing."""
    return [f"{why}: {mutant}\n    {mutant.old!r}" for mutant in mutants if (why := _complaint(root, mutant))]


def _complaint(root: Path, mutant: Mutant) -> str:
    file = root / PACKAGE / mutant.file
    if not file.is_file():
        return "its file is not there"
    if (found := file.read_text("utf-8").count(mutant.old)) != 1:
        return f"the old text stands {found} times in its file, not once"
    if mutant.new == mutant.old:
        return "it changes nothing"
    test_file, _, test = mutant.tests.partition("::")
    if not (root / test_file).is_file():
        return "the file of its test is not there"
    if f"\ndef {test.partition('[')[0]}(" not in (root / test_file).read_text("utf-8"):
        return "its test is not there"
    return ""


def _copy_tree(root: Path, tree: Path) -> None:
    if not (root / ".git").exists():  # a copy already, as `.ci/run` works in
        shutil.copytree(
            root, tree, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".*cache")
        )
        return
    git = ["git", "-c", "safe.directory=*", "-C", str(root), "ls-files", "-z"]
    for arguments in (["--cached"], ["--others", "--exclude-standard", "--", PACKAGE, "tests"]):
        names = subprocess.run([*git, *arguments], check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (root / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, tree / name)


def _run_unbroken(tree: Path, tests: list[str]) -> None:
    """End here unless all *tests* pass; a test that is skipped proves nothing."""
    started_s = time.monotonic()
    code, printed = _pytest(tree, *tests, limit_s=RUN_LIMIT_S + len(tests))
    skipped = re.search(r"\d+ skipped", printed.rpartition("\n")[2])
    if code != PASSED or skipped:
        _stop(f"{printed}\nthe unbroken code does not pass all the named tests (pytest ended with {code})")
    print(f"unbroken: all {len(tests)} tests pass, {time.monotonic() - started_s:.0f} s", flush=True)


def _is_killed(tree: Path, mutant: Mutant) -> bool:
    """Make *mutant*, run its tests, undo it, and print what came out."""
    file = tree / PACKAGE / mutant.file
    text, times = file.read_text("utf-8"), file.stat()
    broken = text.replace(mutant.old, mutant.new)
    compile(broken, mutant.file, "exec")  # what is no Python fails every test, and shows nothing
    file.write_text(broken, "utf-8")
    second = zlib.crc32(broken.encode()) >> 1  # until 2038, for any file system
    os.utime(file, (second, second))  # bytecode is told by second and size, and the last mutant may have had both
    try:
        code, printed = _pytest(tree, "-x", f"--timeout={TEST_LIMIT_S}", mutant.tests, limit_s=RUN_LIMIT_S)
    finally:
        file.write_text(text, "utf-8")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    if code not in {PASSED, FAILED, None}:
        _stop(f"{printed}\npytest ended with {code}, so this pair shows nothing: {mutant}")
    hung = " (a hang)" if code is None or "Timeout (>" in printed else ""
    print(f"{'SURVIVED' if code == PASSED else 'killed  '} {mutant}{hung}", flush=True)
    return code != PASSED


def _pytest(tree: Path, *arguments: str, limit_s: float) -> tuple[int | None, str]:
    """Run pytest in *tree* and return its exit code, None for a hang, and what it printed."""
    output = tree.parent / "output"
    # A fork of this process, which has imported what takes long: a third of the time of one begun anew.
    child = os.fork()
    if not child:
        _become_pytest(tree, output, arguments)
    deadline_s = time.monotonic() + limit_s
    code = None
    try:
        while code is None and time.monotonic() < deadline_s:
            time.sleep(LOOK_EVERY_S)
            pid, status = os.waitpid(child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if pid else None
    finally:
        if code is None:
            _end(child)
    return code, output.read_text("utf-8", "replace").rstrip()


def _end(child: int) -> None:
    os.kill(child, signal.SIGINT)  # pytest then ends the children of its tests
    deadline_s = time.monotonic() + GRACE_S
    while not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(LOOK_EVERY_S)
        if time.monotonic() > deadline_s:
            os.killpg(child, signal.SIGKILL)


def _become_pytest(tree: Path, output: Path, arguments: tuple[str, ...]) -> NoReturn:
    """Go on as ``python -m pytest`` in *tree*, for this process and those that the tests start."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
        os.dup2(1, 2)
        os.chdir(tree)
        sys.path[0] = os.environ["PYTHONPATH"] = str(tree)
        tempfile.tempdir = os.environ["TMPDIR"] = str(tree.parent)
        os.environ.pop("HYPOTHESIS_PROFILE", None)
        os.environ["COLUMNS"] = "300"  # or pytest leaves out why a test failed
        code = int(pytest.main([*PYTEST, *arguments]))
    except BaseException:  # noqa: BLE001  whatever it is, this process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no way back into the loop over the mutants, and no hooks that a mutant has set


if __name__ == "__main__":
    sys.exit(main())
