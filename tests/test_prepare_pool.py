"""Work in other processes: a file that crashes or hangs the decoder costs itself alone."""

import os
import time

import pytest

from tubelet.errors import UserError
from tubelet.prepare.pool import Lost, work


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
    assert dict(work(double, range(20), workers=workers)) == {k: 2 * k for k in range(20)}


def test_no_jobs_need_no_process():
    assert list(work(double, [], workers=2)) == []


def test_a_crash_and_a_hang_are_told_and_the_rest_is_done():
    found = dict(work(misbehave, ["a", "crash", "b", "hang", "c"], workers=1, seconds=1))
    assert {what: result for what, result in found.items() if isinstance(result, str)} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }
    assert isinstance(found["crash"], Lost)
    assert "crashed" in found["crash"].reason
    assert found["hang"] == Lost("took longer than 1 s")


@pytest.mark.parametrize(
    ("what", "error", "message"), [("user", UserError, "mend this"), ("bug", RuntimeError, "oops.*bug")]
)
def test_mistakes_end_the_work(what: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        list(work(misbehave, [what], workers=1))
