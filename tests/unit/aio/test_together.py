"""Work side by side: the first error ends all of it."""

import asyncio

import pytest

from airflow_provider_hkex_rap.aio.together import run_all, run_both


async def give(value):
    await asyncio.sleep(0)
    return value


def test_results_come_in_the_order_of_the_work():
    assert asyncio.run(run_all(give(1), give(2), give(3))) == [1, 2, 3]
    assert asyncio.run(run_both(give("a"), give(2))) == ("a", 2)


def test_the_first_error_cancels_the_others_and_is_raised_as_it_is():
    cancelled = []

    async def wait():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fail():
        await asyncio.sleep(0)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        asyncio.run(run_all(wait(), fail(), wait()))
    assert cancelled == [True, True]


def test_the_first_error_keeps_its_cause():
    async def fail():
        raise PermissionError("refused") from ValueError("ExpiredToken")

    with pytest.raises(PermissionError, match="refused") as caught:
        asyncio.run(run_all(fail(), asyncio.sleep(0)))
    assert str(caught.value.__cause__) == "ExpiredToken"


def test_the_caller_is_not_marked_as_cancelled_after_an_error():
    async def call():
        with pytest.raises(ValueError, match="first"):
            await run_all(asyncio.sleep(10), fail())
        return asyncio.current_task().cancelling()

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("first")

    assert asyncio.run(call()) == 0
