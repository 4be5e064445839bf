"""Two processes on one log, one of them held before a system call while the other runs, see ``.ci/meetings.py``."""
