"""Jobs in other processes: one that crashes or hangs has no result, and the others do."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
from pebble import ProcessPool

from tests.prepare.waiting import until
from tubelet.errors import UserError
from tubelet.prepare.pool import JobFailed, run_jobs

HOUR = 3600.0


def double(number: int) -> int:
    return 2 * number


def misbehave(what: str) -> str:
    if what == "crash":
        os.abort()
    if what == "hang":
        time.sleep(HOUR)
    if what == "user":
        raise UserError("mend this")
    if what == "bug":
        raise KeyError("oops")
    return what.upper()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_gets_its_result(workers: int):
    assert dict(run_jobs(double, range(20), workers=workers)) == {k: 2 * k for k in range(20)}


def test_a_daemonic_process_does_the_jobs_itself(daemonic: None):
    assert dict(run_jobs(double, range(3), workers=2)) == {0: 0, 1: 2, 2: 4}


def test_an_empty_list_of_jobs_has_no_results():
    assert list(run_jobs(double, [], workers=2)) == []


@pytest.mark.slow
def test_other_jobs_continue_after_a_crash_and_a_timeout():
    jobs = ["a", "crash", "b", "hang", "c"]
    limit_s = {"hang": 1.0}
    found = dict(run_jobs(misbehave, jobs, workers=1, limit_s=lambda what: limit_s.get(what, HOUR)))
    assert [found[what] for what in "abc"] == ["A", "B", "C"]
    assert isinstance(found["crash"], JobFailed)
    assert "crashed" in found["crash"].reason
    assert found["hang"] == JobFailed("took longer than 1 s")


def blocks_interrupts(_: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_never_receive_ctrl_c():
    assert dict(run_jobs(blocks_interrupts, [0], workers=1)) == {0: True}
    assert not blocks_interrupts(0)


def test_a_worker_is_kept_if_the_function_returns_a_failure():
    found = dict(run_jobs(fail_every_second, range(8), workers=1, limit_s=lambda _: HOUR))
    assert [isinstance(result, JobFailed) for result in found.values()] == [False, True] * 4
    assert len({result.reason if isinstance(result, JobFailed) else result for result in found.values()}) == 1


def fail_every_second(number: int) -> str | JobFailed:
    return JobFailed(str(os.getpid())) if number % 2 else str(os.getpid())


@pytest.mark.slow
def test_a_worker_killed_between_two_jobs_is_replaced():
    workers = []
    for _, worker in run_jobs(own_process, range(3), workers=1, limit_s=lambda _: HOUR):
        assert isinstance(worker, int)
        workers.append(worker)
        end(worker)
    assert len(set(workers)) == 3


@pytest.mark.slow
def test_a_job_that_a_breaking_pool_forgets_is_done_by_the_next_pool(monkeypatch: pytest.MonkeyPatch):
    """Pebble never ends the future of a job that it gets between breaking and saying so."""
    schedule, sent = ProcessPool.schedule, []

    def forget_the_second(pool: ProcessPool, *args: Any, **options: Any) -> Future[int]:
        sent.append(args)
        if len(sent) != 2:
            return schedule(pool, *args, **options)
        pool.stop()
        return Future()

    monkeypatch.setattr(ProcessPool, "schedule", forget_the_second)
    assert dict(run_jobs(double, range(3), workers=1)) == {0: 0, 1: 2, 2: 4}


def end(worker: int) -> None:
    os.kill(worker, signal.SIGTERM)
    until(lambda: worker not in [process.pid for process in active_children()])


def own_process(_: int) -> int:
    return os.getpid()


@pytest.mark.slow
def test_each_job_has_its_own_time_limit():
    found = dict(run_jobs(sleep, [0.5, HOUR], workers=1, limit_s=lambda length: HOUR if length < 1 else 1))
    assert found == {0.5: 0.5, HOUR: JobFailed("took longer than 1 s")}


def test_only_as_many_jobs_as_workers_are_sent():
    sent: list[int] = []

    def limit_s(job: int) -> float:
        sent.append(job)
        return HOUR

    results = run_jobs(double, range(1000), workers=2, limit_s=limit_s)
    next(results)
    assert len(sent) == 2


def sleep(length: float) -> float:
    time.sleep(length)
    return length


@pytest.mark.parametrize(
    ("what", "error", "message"), [("user", UserError, "mend this"), ("bug", RuntimeError, "oops.*bug")]
)
def test_errors_of_the_function_are_raised(what: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        list(run_jobs(misbehave, [what], workers=1))


def start_hanging_job(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a main process with a job that hangs; returns it and the worker's process id."""
    (folder / "main.py").write_text(
        "from tests.prepare.test_pool import write_pid_and_hang\n"
        "from tubelet.prepare.pool import run_jobs\n"
        "if __name__ == '__main__':\n"
        f"    list(run_jobs(write_pid_and_hang, [{str(folder / 'pid')!r}], workers=1))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(folder / "main.py")]
    main = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE)
    until((folder / "pid").is_file)
    return main, int((folder / "pid").read_text())


@pytest.mark.slow
def test_workers_exit_with_the_main_process_during_a_job(tmp_path: Path):
    main, worker = start_hanging_job(tmp_path)
    main.kill()
    main.communicate()
    until(lambda: not is_running(worker))


@pytest.mark.slow
def test_ctrl_c_ends_the_main_process_and_its_workers(tmp_path: Path):
    main, worker = start_hanging_job(tmp_path)
    os.killpg(main.pid, signal.SIGINT)
    _, errors = main.communicate()
    assert main.returncode != 0
    assert errors.count(b"Traceback") == 1
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert not is_running(worker)


def write_pid_and_hang(path: str) -> None:
    Path(f"{path}.part").write_text(str(os.getpid()))
    Path(f"{path}.part").rename(path)
    time.sleep(HOUR)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"  # a zombie
