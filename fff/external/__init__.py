"""Processes and work directories of external codes.

A code runs without a shell, in a folder of its own, within a time limit, and leaves no process behind.
"""

from fff.external.command import Command, parse_command
from fff.external.evidence import STDERR, STDOUT, last_lines, space_error, tail
from fff.external.guard import guarded
from fff.external.launch import Launch
from fff.external.running import Ended, find_executable, run, signal_name
from fff.external.workplace import Workplace, is_alive

__all__ = [
    "STDERR",
    "STDOUT",
    "Command",
    "Ended",
    "Launch",
    "Workplace",
    "find_executable",
    "guarded",
    "is_alive",
    "last_lines",
    "parse_command",
    "run",
    "signal_name",
    "space_error",
    "tail",
]
