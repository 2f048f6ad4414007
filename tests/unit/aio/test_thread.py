"""Blocking code in a thread: its result and its error arrive, whatever it raises."""

import asyncio

import pytest

from airflow_provider_hkex_rap.aio.thread import in_thread


async def in_time(function, *args, **kwargs):
    # A caller of asyncio.to_thread would wait for ever.
    return await asyncio.wait_for(in_thread(function, *args, **kwargs), 10)


def test_a_result_arrives():
    assert asyncio.run(in_time(divmod, 7, 3)) == (2, 1)
    assert asyncio.run(in_time(int, "11", base=2)) == 3


def test_an_error_arrives_as_it_is():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_time(divmod, 1, 0))


def test_a_next_that_finds_nothing_is_an_error_and_does_not_hang():
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        asyncio.run(in_time(next, iter(())))


def test_an_iterator_that_is_exhausted_inside_a_function_does_not_hang():
    def first_of(items):
        return next(item for item in items if item > 3)

    with pytest.raises(RuntimeError, match=r"first_of raised StopIteration"):
        asyncio.run(in_time(first_of, [1, 2]))
