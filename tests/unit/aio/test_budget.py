"""The weighted semaphore that reads and commits share."""

import asyncio

import pytest

from airflow_provider_hkex_rap.aio.budget import Budget


async def waiting(coroutine):
    """Start a coroutine and let it run until it waits."""
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_a_request_waits_until_enough_was_returned():
    async def scene():
        budget = Budget(10)
        await budget.take(8)
        task = await waiting(budget.take(5))
        budget.give(2)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        budget.give(1)
        await task

    asyncio.run(scene())


def test_a_small_request_does_not_overtake_a_large_one():
    async def scene():
        budget = Budget(10)
        await budget.take(8)
        large = await waiting(budget.take(10))
        small = await waiting(budget.take(1))
        assert not large.done()
        assert not small.done()
        budget.give(8)
        await large
        assert not small.done()
        budget.give(10)
        await small

    asyncio.run(scene())


def test_a_cancelled_request_takes_nothing():
    async def scene():
        budget = Budget(10)
        await budget.take(8)
        task = await waiting(budget.take(5))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(budget.take(2), 1)

    asyncio.run(scene())


def test_a_reservation_ends_with_its_block():
    async def scene():
        budget = Budget(10)
        with pytest.raises(KeyError):
            async with budget.reserve(10):
                raise KeyError
        await asyncio.wait_for(budget.take(10), 1)

    asyncio.run(scene())


def test_more_than_the_total_is_refused_instead_of_waiting_for_ever():
    with pytest.raises(ValueError, match="more than the whole budget of 10"):
        asyncio.run(Budget(10).take(11))
