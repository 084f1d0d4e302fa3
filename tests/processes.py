"""Real processes that begin at once: copies of one that has imported what they need."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["stand_in"])


def start(target: Callable, *args: Any) -> Any:
    """Starts a process that calls a function; not from this process, which has threads."""
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
