"""After any sequence of changes, faults and lost manifests, the lake has each content once and whole."""

import asyncio
import contextlib
import random
import tempfile

import fsspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airflow_provider_hkex_rap.lake.ledger import Ledger
from airflow_provider_hkex_rap.lake.manifest import READERS
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import verify
from airflow_provider_hkex_rap.rap.errors import RapTransferError, RapUnavailable

from ...in_memory_rap import (
    CUSTOMER,
    NOW,
    InMemoryRap,
    assert_holds_once,
    landed,
    landing,
    manifest_files,
    run,
)

NAMES = st.sampled_from([b"TP001_20261120.csv", b"RPI03-20261119-1.zip", b"no\xe9 20261118"])
CONTENTS = st.sampled_from([b"", b"one", b"two", b"three", bytes(2**20 + 1)])


class Convergence(RuleBasedStateMachine):
    """Change RAP, land, fail and lose manifest files in a random order."""

    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.lake = Lake(fsspec.filesystem("file"), self.directory.name)
        self.rap = InMemoryRap()
        self.mtime = NOW.int_timestamp - 100_000
        self.known = {}
        self.lost = False

    def teardown(self):
        self.directory.cleanup()

    @rule(name=NAMES, content=CONTENTS)
    def publish(self, name, content):
        self.mtime += 1
        self.rap.put(name, content, self.mtime)

    @rule(name=NAMES)
    def expire(self, name):
        self.rap.files.pop(name, None)

    @rule()
    def switch_sites(self):
        self.mtime += 10
        for name, (content, mtime) in self.rap.files.items():
            self.rap.files[name] = content, mtime + 10

    @rule(name=NAMES)
    def land_all_but_one_that_fails(self, name):
        self.land_with_fault(name, RapTransferError("It broke."))

    @rule(name=NAMES)
    def land_until_the_session_ends(self, name):
        self.land_with_fault(name, RapUnavailable("It is over."))

    def land_with_fault(self, name, error):
        async def fault(rap, file):
            raise error

        self.rap.faults = {name: fault}
        with contextlib.suppress(RapUnavailable):
            run(self.rap, self.lake)
        self.rap.faults = {}

    @rule(seed=st.integers(0, 99))
    def lose_a_manifest_file(self, seed):
        if manifests := manifest_files(self.lake):
            self.lake.fs.rm(f"{self.lake.root}/{random.Random(seed).choice(manifests)}")
            self.lost = True

    @rule(seed=st.integers(0, 99))
    def spoil_a_manifest_file(self, seed):
        if manifests := manifest_files(self.lake):
            path = f"{self.lake.root}/{random.Random(seed).choice(manifests)}"
            with open(path, "rb") as file:
                content = file.read()
            with open(path, "wb") as file:
                file.write(content[: len(content) // 2])
            self.lost = True

    @rule()
    def land_with_two_accounts_at_once(self):
        async def both():
            await asyncio.gather(landing(self.rap, self.lake), landing(self.rap, self.lake))

        asyncio.run(both())
        self.converged()

    @rule()
    def land(self):
        result = run(self.rap, self.lake)
        assert result.deferred == result.failed == 0
        self.converged()

    async def ledger(self):
        async with StorageCalls(READERS) as calls:
            return await Ledger.load(calls, self.lake, CUSTOMER, [self.rap.folder], NOW)

    def converged(self):
        assert_holds_once(self.lake, self.rap)
        assert all(map(asyncio.run(self.ledger()).has, self.rap.listing()))
        if not self.lost:
            assert asyncio.run(verify(self.lake, CUSTOMER)).problems == []

    @invariant()
    def landed_files_stay(self):
        found = landed(self.lake)
        assert found.items() >= self.known.items()
        self.known = found


TestConvergence = Convergence.TestCase
TestConvergence.settings = settings(max_examples=25, stateful_step_count=20)
