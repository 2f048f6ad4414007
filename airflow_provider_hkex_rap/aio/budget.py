"""A weighted semaphore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """Share an amount, such as bytes or open files, among tasks: first come, first served.

    ::

        memory = Budget(16 * 2**20)
        async with memory.reserve(file_size):
            ...

    :param total: the amount to share, in the caller's unit.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()

    @property
    def taken(self) -> int:
        """The amount that is taken now."""
        return self.total - self._free

    @asynccontextmanager
    async def reserve(self, amount: int) -> AsyncIterator[None]:
        """Hold part of the budget inside an ``async with`` block.

        :param amount: the part to hold.
        :raises ValueError: if *amount* is more than the total.
        """
        await self.take(amount)
        try:
            yield
        finally:
            self.give(amount)

    async def take(self, amount: int) -> int:
        """Wait until part of the budget is free, and take it.

        :param amount: the part to take.
        :returns: *amount*, to give back.
        :raises ValueError: if *amount* is more than the total.
        """
        if amount > self.total:
            raise ValueError(f"{amount} is more than the whole budget of {self.total}")
        # The lock keeps small requests from overtaking a large one for ever.
        async with self._turn:
            while self._free < amount:
                self._given.clear()
                await self._given.wait()
            self._free -= amount
            return amount

    async def take_all(self) -> int:
        """Wait until the whole budget is free, and take it.

        :returns: the amount that was taken, to give back.
        """
        async with self._turn:
            while self._free < self.total:
                self._given.clear()
                await self._given.wait()
            self._free = 0
            return self.total

    def resize(self, total: int) -> None:
        """Change the total; amounts that were taken stay taken until they are given back.

        :param total: the amount, 1 at least.
        """
        self._free += total - self.total
        self.total = total
        self._given.set()

    def give(self, amount: int) -> None:
        """Return part of the budget.

        :param amount: the part to return.
        """
        self._free += amount
        self._given.set()
