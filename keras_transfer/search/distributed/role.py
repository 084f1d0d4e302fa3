"""What a process is in a search on several machines, told by KerasTuner's environment variables."""

import os
from collections.abc import Mapping
from typing import Literal

TUNER_ID, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"


def role(environment: Mapping[str, str] | None = None) -> Literal["alone", "chief", "worker"]:
    """Returns what this process is: the chief has `chief` in its id, as with KerasTuner.

    Args:
        environment: Environment variables; those of this process unless given.

    Raises:
        ValueError: If one of the three variables is missing while the others say that there is a
            chief.

    Example:
        >>> role({"KERASTUNER_TUNER_ID": "chief", "KERASTUNER_ORACLE_IP": "10.0.0.1",
        ...       "KERASTUNER_ORACLE_PORT": "5000"})
        'chief'
    """
    environment = os.environ if environment is None else environment
    there = [name for name in (TUNER_ID, IP, PORT) if environment.get(name)]
    if not there or (there == [TUNER_ID] and "chief" not in environment[TUNER_ID]):
        return "alone"
    missing = {TUNER_ID, IP, PORT} - set(there)
    if missing:
        raise ValueError(
            f"{' and '.join(sorted(missing))} is not set, but {' and '.join(there)} is. Set all "
            "three for a search on several machines: the name of this process ('chief' for the "
            "chief), and the chief's address and port; or none of them."
        )
    return "chief" if "chief" in environment[TUNER_ID] else "worker"
