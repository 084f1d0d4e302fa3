"""Writers that are killed at each of their steps, as a script of its own.

    python killed_writers.py CASE FOLDER

Forks a process for each step, which SIGKILL ends there, and prints what it left as a line of JSON;
the last line is of the process that was not killed. Nothing here imports TensorFlow.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from keras_transfer.serving.metadata import (
    ExportFacts,
    digest_of,
    facts_path,
    files_written_together,
    labels_path,
    recover_export,
)
from keras_transfer.utils import atomic_files

_STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def write_folder(folder: Path, name: str) -> None:
    recover_export(folder / "1")
    with atomic_files.folder_written_whole(folder / "1") as unfinished:
        (unfinished / "model").write_text(name)
        (unfinished / "assets").mkdir()
        (unfinished / "assets" / "labels.txt").write_text(name)


def read_folder(folder: Path) -> list[str]:
    return [(folder / "1" / path).read_text() for path in ("model", "assets/labels.txt")]


def write_files(folder: Path, name: str) -> None:
    export = folder / "m.xml"
    recover_export(export)
    with files_written_together(export, "openvino") as unfinished:
        files = [unfinished / "m.xml", unfinished / "m.bin"]
        for file in files:
            file.write_text(name)
        digests = {file.name: digest_of(file) for file in files}
        facts = ExportFacts("openvino", (name,), (9, 9), True, 3, True, digests=digests)
        facts.write(facts_path(files[0], "openvino"))
        labels_path(files[0], "openvino").write_text(name)


def read_files(folder: Path) -> list[str]:
    export = folder / "m.xml"
    recover_export(export)
    facts = ExportFacts.read(facts_path(export, "openvino"))  # checks the digests
    files = (export, folder / "m.bin", labels_path(export, "openvino"))
    return [*facts.class_names, *(file.read_text() for file in files)]


def write_picture(folder: Path, name: str) -> None:
    with atomic_files.written_whole(folder / "history.png") as unfinished:
        unfinished.write_text(name)


def read_picture(folder: Path) -> list[str]:
    return [(folder / "history.png").read_text()]


def write_folder_by_two_renames(folder: Path, name: str) -> None:
    atomic_files._exchange = lambda one, other: False  # as on other systems
    write_folder(folder, name)


def read_recovered_folder(folder: Path) -> list[str]:
    recover_export(folder / "1")
    return read_folder(folder)


CASES = {
    "folder": (write_folder, read_folder),
    "folder by two renames": (write_folder_by_two_renames, read_recovered_folder),
    "files": (write_files, read_files),
    "picture": (write_picture, read_picture),
}


def kill_at(step: int) -> None:
    steps = []

    def counted(event: str, arguments: tuple) -> None:
        if event in _STEPS:
            steps.append(event)
            if len(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(counted)


def main(case: str, root: Path) -> None:
    write, read = CASES[case]
    for step in range(1, 1000):
        folder = root / str(step)
        folder.mkdir()
        write(folder, "old")
        before = sorted(path.name for path in folder.iterdir())
        process = os.fork()
        if not process:
            kill_at(step)
            write(folder, "new")
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        found = read(folder)
        write(folder, "newer")
        after = sorted(path.name for path in folder.iterdir())
        line = {"status": status, "found": found, "then": read(folder)}
        print(json.dumps({**line, "before": before, "after": after}), flush=True)
        shutil.rmtree(folder)
        if not status:
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
