"""Faults at every line and at every system call, see ``.ci/points.py``."""
