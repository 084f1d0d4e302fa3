"""How many processors a process may use."""


def processors() -> int:
    """Returns how many processors this process may use, at least 1.

    `os.cpu_count` counts all of the machine, also where a batch system such as SLURM gives a
    process some of them only, or a container has a limit.
    """
    import joblib  # type: ignore[import-untyped]  # which comes with scikit-learn

    return joblib.cpu_count()
