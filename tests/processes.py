"""Processes that start at once: forks of one that has imported Keras and started no thread."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["stand_in"])


def start(target: Callable, *args: Any) -> Any:
    """Starts a process that calls a function: no fork of this process, which has threads."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # what is loaded before is found by this
    try:
        process = _CONTEXT.Process(target=target, args=args)
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return process


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits until a condition is true; returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not true after {seconds} s"
        time.sleep(0.02)
    return value
