"""A worker of a search: runs the trials that a chief gives it."""

import os
import sys
import uuid
from typing import Any

from keras_transfer.search.distributed.chief_client import CHIEF_WAIT, ChiefClient, ChiefLost
from keras_transfer.search.distributed.local_workers import end_with_parent
from keras_transfer.search.state.disk_full import is_disk_full
from keras_transfer.search.trials import FOLDER, Trials
from keras_transfer.utils.exit_codes import BAD_INPUT, CHIEF_LOST, DONE, INTERRUPTED


def work(
    trials: Trials,
    train: Any = None,
    valid: Any = None,
    *,
    wait: float = CHIEF_WAIT,
    **arguments: Any,
) -> int:
    """Runs trials of a chief until it has no more, or until its folder has them all.

    The chief's address and this worker's name are in KerasTuner's environment variables. A part
    is added to the name, so that one that died and the next of its name are not mistaken.

    Args:
        trials: The trials, in the chief's folder.
        train: Training data, unless there are folds.
        valid: Validation data, unless there are folds.
        wait: Seconds to wait for a chief that is gone.
        **arguments: Further ones for `fit`.

    Returns:
        `DONE`, `CHIEF_LOST`, `BAD_INPUT` if the folder is not shared, or `INTERRUPTED`.

    Raises:
        OSError: If the disk is full, or another error that `is_disk_full` tells.

    Example:
        >>> sys.exit(work(trials, data.train, data.valid))
    """
    end_with_parent()
    address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
    tuner_id = f"{os.environ['KERASTUNER_TUNER_ID']}-{uuid.uuid4().hex[:6]}"
    if _all_ended(trials):
        return DONE
    try:
        with ChiefClient(address, tuner_id, trials.output / FOLDER, wait) as chief:
            trials.work(chief, tuner_id, train, valid, **arguments)
    except ChiefLost as error:
        if _all_ended(trials):
            return DONE
        print(f"{tuner_id}: {error}", file=sys.stderr, flush=True)
        return CHIEF_LOST
    except OSError as error:
        if is_disk_full(error):
            raise
        print(f"{tuner_id}: {error}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def _all_ended(trials: Trials) -> bool:
    """Whether the folder has all trials that there are to be, so that no chief need be there."""
    if len(trials.outcomes) < trials.count:
        return False
    print(f"All {trials.count} trials have ended: there is nothing left to do.", flush=True)
    return True
