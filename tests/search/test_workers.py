import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest
from processes import start, until
from stand_in import StandIn, ends_soon, later, run_chief, run_worker, trials

from keras_transfer.search.distributed.chief import Patience, serve
from keras_transfer.search.distributed.local_workers import LocalWorkers
from keras_transfer.search.distributed.role import role
from keras_transfer.search.distributed.worker import work
from keras_transfer.utils.exit_codes import (
    ALL_FAILED,
    BAD_INPUT,
    CHIEF_LOST,
    DONE,
    NO_WORKERS,
)

ROOT = Path(__file__).parents[2]
SOON = Patience(silence=2.0, first=20.0, next=1.0)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def named(monkeypatch, port):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-1")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    return port


@pytest.fixture
def processes():
    """Real processes, none of which is left after the test."""
    started = []

    def begin(*args):
        started.append(start(*args))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.join()


def facts(output: Path) -> list[tuple]:
    return [(o.trial, o.status, o.score, o.hyperparameters) for o in trials(output).outcomes]


def ongoing(output: Path) -> dict[str, str]:
    try:
        return json.loads((output / "trials" / "oracle.json").read_text())["ongoing_trials"]
    except FileNotFoundError:
        return {}


def has_a_trial(output: Path, name: str, but: Collection[str] = ()) -> str:
    """The worker of that name that runs a trial, once there is one."""
    return until(lambda: [t for t in ongoing(output) if t.startswith(name) and t not in but])[0]


def in_a_thread(output: Path, results: list, hypermodel=None, **arguments) -> threading.Thread:
    def run() -> None:
        with contextlib.suppress(SystemExit):
            results.append(work(trials(output, hypermodel, **arguments), wait=3.0))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.slow
def test_three_workers_with_one_killed_twice_finish_the_same_trials_each_once(
    tmp_path, port, processes
):
    trials(tmp_path / "alone", count=20).run()
    output = tmp_path / "many"
    chief = processes(run_chief, output, port, 20)
    others = [processes(run_worker, output, port, f"worker-{n}", 0.1) for n in (2, 3)]
    killed: set[str] = set()
    for _ in range(2):
        first = processes(run_worker, output, port, "worker-1", 0.2)
        killed.add(has_a_trial(output, "worker-1", but=killed))
        time.sleep(0.1)  # in the middle of it
        first.kill()
    others.append(processes(run_worker, output, port, "worker-1", 0.1))
    for process in [chief, *others]:
        process.join(60)
        assert process.exitcode == DONE
    assert facts(output) == facts(tmp_path / "alone")
    state = json.loads((output / "trials" / "oracle.json").read_text())
    assert sorted(state["end_order"]) == [f"{n:04d}" for n in range(20)]
    assert len(killed) == 2
    assert not killed & {outcome.worker for outcome in trials(output).outcomes}
    fits = Counter((output / "fits.txt").read_text().split())
    assert sorted(fits.values()) == [1] * 18 + [2] * 2  # those that were killed, again


@pytest.mark.slow
def test_a_chief_that_dies_and_returns_goes_on_and_no_work_is_lost(tmp_path, port, processes):
    trials(tmp_path / "alone", count=10).run()
    output = tmp_path / "many"
    chief = processes(run_chief, output, port, 10)
    workers = [processes(run_worker, output, port, f"worker-{n}", 0.2) for n in (1, 2)]
    until(lambda: len(trials(output).outcomes) >= 3)
    chief.kill()
    chief.join()
    assert all(worker.exitcode is None for worker in workers)
    chief = processes(run_chief, output, port, 10)
    for process in [chief, *workers]:
        process.join(60)
        assert process.exitcode == DONE
    assert facts(output) == facts(tmp_path / "alone")
    fits = Counter((output / "fits.txt").read_text().split())
    assert list(fits.values()) == [1] * 10


def test_a_chief_without_workers_ends(tmp_path):
    patience = Patience(silence=1.0, first=0.5, next=0.5)
    assert serve(trials(tmp_path), address="127.0.0.1:0", patience=patience) == NO_WORKERS


def test_a_chief_whose_workers_have_died_ends(tmp_path, named):
    dies = StandIn()

    def die(number: int) -> None:
        if number == 2:
            raise SystemExit  # of the thread, without a word to the chief

    dies.before_fit = die
    thread = in_a_thread(tmp_path, [], dies)
    patience = Patience(silence=1.5, first=20.0, next=0.5)
    assert serve(trials(tmp_path), patience=patience) == NO_WORKERS
    thread.join()
    assert len(trials(tmp_path).outcomes) == 1
    results: list[int] = []
    thread = in_a_thread(tmp_path, results)  # and the same command goes on
    assert serve(trials(tmp_path), patience=SOON) == DONE
    thread.join()
    assert results == [DONE]
    assert len(trials(tmp_path).outcomes) == 4


def test_workers_that_come_early_wait_for_their_first_trial_and_are_not_lost(tmp_path, named):
    results: list[int] = []
    hypermodel = StandIn()
    built = []

    def first() -> None:
        time.sleep(4.5)  # longer than these workers wait for a chief that is gone
        built.extend(hypermodel.built)

    thread = in_a_thread(tmp_path, results, hypermodel)
    assert serve(trials(tmp_path), patience=SOON, first=first) == DONE
    thread.join()
    assert built == []
    assert results == [DONE]
    assert len(trials(tmp_path).outcomes) == 4


def test_a_search_that_has_ended_needs_no_worker(tmp_path):
    trials(tmp_path).run()
    assert serve(trials(tmp_path), address="127.0.0.1:0", patience=Patience(first=0.0)) == DONE


def test_the_chief_prints_why_all_trials_have_failed(tmp_path, named, capsys):
    def fail(number: int) -> None:
        raise RuntimeError("no luck today")

    fails = StandIn()
    fails.before_fit = fail
    results: list[int] = []
    thread = in_a_thread(tmp_path, results, fails)
    chief = trials(tmp_path)
    assert serve(chief, patience=SOON) == ALL_FAILED
    thread.join()
    assert results == [DONE]
    assert chief.failures[-1].failure == "RuntimeError: no luck today"
    out = capsys.readouterr().out
    assert out.count("Traceback") == 1
    assert "trial 4 of 4: failed: RuntimeError: no luck today" in out


def test_the_deadline_of_the_chief_ends_the_trials_of_its_workers(tmp_path, named):
    results: list[int] = []
    slow = StandIn(seconds=0.1)
    chief = trials(tmp_path, epochs=10_000, deadline=later())
    ends_soon(slow, chief)
    thread = in_a_thread(tmp_path, results, slow, epochs=10_000)
    assert serve(chief, patience=SOON) == DONE
    thread.join()
    assert results == [DONE]
    assert time.monotonic() - chief.oracle.deadline < 30  # of 1,000
    assert [outcome.status for outcome in chief.outcomes] == ["stopped"]


def test_a_worker_without_a_chief_gives_up(tmp_path, named, capsys):
    assert work(trials(tmp_path), wait=1.0) == CHIEF_LOST
    err = capsys.readouterr().err
    assert f"Nothing was heard of the chief at 127.0.0.1:{named} for 1 s" in err
    assert f"the search is over, or the chief has another --output than {tmp_path}, or" in err
    assert not list(tmp_path.iterdir())  # a worker without a chief touches nothing


def test_a_worker_that_comes_when_all_trials_have_ended_waits_for_no_chief(tmp_path, named, capsys):
    trials(tmp_path).run()
    assert work(trials(tmp_path), wait=1.0) == DONE
    assert "All 4 trials have ended" in capsys.readouterr().out


def test_a_worker_in_another_folder_is_refused(tmp_path, named, monkeypatch, capsys):
    monkeypatch.setattr("keras_transfer.search.distributed.chief_client._SHARED_WAIT", 0.3)
    results: list[int] = []
    thread = in_a_thread(tmp_path / "mine", results)
    assert serve(trials(tmp_path / "yours"), patience=SOON) == NO_WORKERS
    thread.join()
    assert results == [BAD_INPUT]
    assert "Expected the same --output folder for chief and workers" in capsys.readouterr().err


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def check_until(workers: LocalWorkers, count: int) -> None:
    until(lambda: workers.check() == count, seconds=20)


def test_local_workers_that_die_are_started_again_so_often_at_most(tmp_path, capsys):
    code = "import os, signal; print('alive', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    workers = LocalWorkers(python(code), 1, tmp_path, restarts=2)
    workers.start("127.0.0.1:1")
    check_until(workers, 0)
    assert (tmp_path / "workers" / "worker-1.log").read_text().split() == ["alive"] * 3
    err = capsys.readouterr().err
    assert err.count("worker-1 has ended with signal 9: alive. It is started again.") == 2
    assert "See" in err


def test_a_chief_ends_at_once_when_its_workers_have_bad_input(tmp_path, capsys):
    workers = LocalWorkers(python("import sys; print('no data'); sys.exit(2)"), 1, tmp_path)
    began = time.monotonic()
    assert serve(trials(tmp_path), address="127.0.0.1:0", workers=workers) == NO_WORKERS
    assert time.monotonic() - began < 30  # of ten minutes
    assert "worker-1 has ended with exit code 2: no data" in capsys.readouterr().err


def test_an_interrupted_chief_ends_its_workers(tmp_path, monkeypatch):
    class Interrupted(LocalWorkers):
        def check(self) -> int:
            assert super().check() == 2
            pids.extend(self.pids)
            raise KeyboardInterrupt

    pids: list[int] = []
    workers = Interrupted(python("import time; time.sleep(60)"), 2, tmp_path)
    assert serve(trials(tmp_path), address="127.0.0.1:0", workers=workers) == 130
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_no_worker_outlives_a_chief_that_is_killed(tmp_path):
    module = "keras_transfer.search.distributed.local_workers"
    worker = f"from {module} import end_with_parent; import time; end_with_parent(); time.sleep(60)"
    chief = f"""
import sys, time
from pathlib import Path
from types import SimpleNamespace
from {module} import LocalWorkers
workers = LocalWorkers([sys.executable, "-c", {worker!r}], 2, Path({str(tmp_path)!r}))
workers.start("127.0.0.1:1")
print(*workers.pids, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(python(chief), stdout=subprocess.PIPE) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(0.5)
        process.kill()
    assert len(pids) == 2

    def gone(pid: int) -> bool:
        try:
            return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return True

    until(lambda: all(map(gone, pids)), seconds=20)


def test_the_variables_of_keras_tuner_give_the_role_of_a_process():
    variables = {"KERASTUNER_ORACLE_IP": "10.0.0.1", "KERASTUNER_ORACLE_PORT": "5000"}
    assert role({}) == role({"KERASTUNER_TUNER_ID": "tuner0"}) == "alone"
    assert role({**variables, "KERASTUNER_TUNER_ID": "chief"}) == "chief"
    assert role({**variables, "KERASTUNER_TUNER_ID": "worker-1"}) == "worker"
    for name in (*variables, "KERASTUNER_TUNER_ID"):
        some = {**variables, "KERASTUNER_TUNER_ID": "a"}
        del some[name]
        with pytest.raises(ValueError, match=f"{name} is not set"):
            role(some)


@pytest.mark.parametrize(("devices", "expected"), [(["0", "1"], "0 1 0"), ([], "-1 -1 -1")])
def test_each_worker_has_a_gpu_of_its_own_in_turn(tmp_path, monkeypatch, devices, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    workers = LocalWorkers(python(code), 3, tmp_path, devices=devices)
    workers.start("127.0.0.1:1")
    until(lambda: not workers.check())
    logs = [(tmp_path / "workers" / f"worker-{n}.log").read_text().strip() for n in (1, 2, 3)]
    assert " ".join(logs) == expected
