"""Work in other processes: a file that crashes or hangs the decoder costs itself alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.prepare.pool import JobFailed, run_jobs


def double(number: int) -> int:
    return 2 * number


def misbehave(what: str) -> str:
    if what == "crash":
        os.abort()
    if what == "hang":
        time.sleep(60)
    if what == "user":
        raise UserError("mend this")
    if what == "bug":
        raise KeyError("oops")
    return what.upper()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_gets_its_result(workers: int):
    assert dict(run_jobs(double, range(20), workers=workers)) == {k: 2 * k for k in range(20)}


def test_no_jobs_need_no_process():
    assert list(run_jobs(double, [], workers=2)) == []


def test_a_crash_and_a_hang_are_told_and_the_rest_is_done():
    found = dict(run_jobs(misbehave, ["a", "crash", "b", "hang", "c"], workers=1, limit_s=lambda _: 1))
    assert {what: result for what, result in found.items() if isinstance(result, str)} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }
    assert isinstance(found["crash"], JobFailed)
    assert "crashed" in found["crash"].reason
    assert found["hang"] == JobFailed("took longer than 1 s")


def holds_interrupts_back(_: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_ctrl_c_is_for_the_main_process_from_the_beginning():
    assert dict(run_jobs(holds_interrupts_back, [0], workers=1)) == {0: True}
    assert not holds_interrupts_back(0)


def test_a_worker_stays_where_the_function_itself_says_lost():
    found = dict(run_jobs(every_second_is_lost, range(8), workers=1, limit_s=lambda _: 60))
    assert [isinstance(result, JobFailed) for result in found.values()] == [False, True] * 4
    assert len({result.reason if isinstance(result, JobFailed) else result for result in found.values()}) == 1


def every_second_is_lost(number: int) -> str | JobFailed:
    return JobFailed(str(os.getpid())) if number % 2 else str(os.getpid())


def test_a_worker_that_ends_between_two_jobs_is_replaced_and_costs_none():
    workers = []
    for _, worker in run_jobs(own_process, range(3), workers=1, limit_s=lambda _: 60):
        assert isinstance(worker, int)
        workers.append(worker)
        end(worker)
    assert len(set(workers)) == 3


def end(worker: int) -> None:
    os.kill(worker, signal.SIGTERM)
    until(lambda: worker not in [process.pid for process in active_children()])


def own_process(_: int) -> int:
    return os.getpid()


def test_each_job_has_a_time_limit_of_its_own():
    found = dict(run_jobs(sleep, [0.5, 60.0], workers=1, limit_s=lambda length: 30 if length < 1 else 1))
    assert found == {0.5: 0.5, 60.0: JobFailed("took longer than 1 s")}


def sleep(length: float) -> float:
    time.sleep(length)
    return length


@pytest.mark.parametrize(
    ("what", "error", "message"), [("user", UserError, "mend this"), ("bug", RuntimeError, "oops.*bug")]
)
def test_mistakes_end_the_work(what: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        list(run_jobs(misbehave, [what], workers=1))


def test_workers_end_with_the_main_process_in_the_middle_of_a_job(tmp_path: Path):
    text = (
        "from tests.prepare.test_pool import tell_and_hang\nfrom tubelet.prepare.pool import run_jobs\n"
        f"if __name__ == '__main__':\n    list(run_jobs(tell_and_hang, [{str(tmp_path / 'pid')!r}], workers=1))\n"
    )
    (tmp_path / "main.py").write_text(text)
    paths = os.pathsep.join(sys.path)
    main = subprocess.Popen([sys.executable, tmp_path / "main.py"], env={**os.environ, "PYTHONPATH": paths})
    until((tmp_path / "pid").is_file)
    worker = int((tmp_path / "pid").read_text())
    main.kill()
    main.wait()
    until(lambda: not is_running(worker))


def tell_and_hang(path: str) -> None:
    Path(f"{path}.part").write_text(str(os.getpid()))
    Path(f"{path}.part").rename(path)
    time.sleep(300)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"  # not yet buried
