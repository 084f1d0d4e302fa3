"""The exit codes of a search, of its chief and of its workers."""

DONE = 0
ALL_FAILED = 1  # no trial has a score
BAD_INPUT = 2  # that the user can put right
NO_WORKERS = 3  # none is left, and trials are; the same command goes on
CHIEF_LOST = 4  # a worker has heard nothing of its chief for too long
DISK_FULL = 5  # make room, and the same command goes on
INTERRUPTED = 130
