"""The exit codes of the commands."""

DONE = 0
ALL_FAILED = 1  # no trial has a score
BAD_INPUT = 2  # that the user can put right
DISK_FULL = 5  # make room, and the same command goes on
INTERRUPTED = 130
