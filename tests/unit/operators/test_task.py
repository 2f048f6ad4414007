"""How a task ends: typed errors outside a run, Airflow's own in one."""

from __future__ import annotations

import gc
import logging
import pickle
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException
from airflow.sdk.execution_time import supervisor, task_runner

from airflow_provider_hkex_rap.operators import task as task_module
from airflow_provider_hkex_rap.operators.task import RapTask, is_test_run
from airflow_provider_hkex_rap.rap import errors
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RapError) and kind is not RapClosed
]
RUN: Any = {"ti": SimpleNamespace(), "dag_run": SimpleNamespace()}


def task() -> RapTask:
    made = RapTask()
    made.pool, made.task_id, made.log = "hkex_rap", "land", logging.getLogger(__name__)
    return made


def end(error: BaseException, context: Any) -> BaseException:
    with pytest.raises(BaseException) as caught, task().ending(context):  # noqa: PT011
        raise error
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_outside_a_run_the_error_is_raised_as_it_is(kind: type[RapError]) -> None:
    error = kind("What.", path="/download/DCASS/x")
    raised = end(error, {})
    assert raised is error
    assert type(pickle.loads(pickle.dumps(raised))) is kind


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_run_an_error_that_no_retry_can_help_fails_without_retries(kind: type[RapError]) -> None:
    error = kind("What.", todo="To do.")
    raised = end(error, RUN)
    if kind.retryable:
        assert raised is error
    else:
        assert type(raised) is AirflowFailException
        assert raised.__cause__ is error
        assert str(raised) == f"{kind.__name__}: What. To do."


def test_a_closed_rap_reschedules_to_its_opening() -> None:
    opens_at = pendulum.now("Asia/Hong_Kong").add(hours=3)
    raised = end(RapClosed("RAP is closed.", opens_at=opens_at), RUN)
    assert isinstance(raised, AirflowRescheduleException)
    assert abs((raised.reschedule_date - opens_at).total_seconds()) < 5


def test_outside_a_run_a_closed_rap_is_the_error() -> None:
    closed = RapClosed("RAP is closed.", opens_at=pendulum.now("Asia/Hong_Kong").add(hours=3))
    assert end(closed, {}) is closed


@pytest.mark.parametrize("kind", [*KINDS, RapClosed])
def test_a_test_run_fails_at_once(kind: type[RapError], monkeypatch: pytest.MonkeyPatch) -> None:
    of_tests = object.__new__(supervisor.InProcessSupervisorComms)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", of_tests, raising=False)
    opens_at = {"opens_at": pendulum.now("Asia/Hong_Kong").add(hours=3)} if kind is RapClosed else {}
    error = kind("What.", todo="To do.", **opens_at)
    raised = end(error, RUN)
    assert type(raised) is AirflowFailException
    assert raised.__cause__ is error
    assert str(raised).startswith(f"{kind.__name__}: What. To do. (A test run")


def test_without_the_supervisor_of_tests_a_run_is_no_test_run() -> None:
    assert not is_test_run()


def test_a_kill_does_not_reach_the_next_try_of_the_same_object() -> None:
    made = task()
    with made.ending({}):
        made.on_kill()
    assert not made._killed


def test_the_first_task_of_a_process_sets_the_existing_objects_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "_is_first_task", True)
    with task().ending({}):
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() < 1_000
    # Else garbage of the first task would never be found.
    with task().ending({}):
        assert gc.get_freeze_count() < 1_000


def test_what_a_worker_has_set_aside_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "_is_first_task", True)
    gc.freeze()
    frozen = gc.get_freeze_count()
    made_later = [[number] for number in range(1_000)]
    try:
        with task().ending({}):
            assert gc.get_freeze_count() >= frozen + len(made_later)
        assert gc.get_freeze_count() >= frozen
    finally:
        gc.unfreeze()
