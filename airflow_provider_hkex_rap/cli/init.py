"""``airflow hkex-rap init``: make the pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import command

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable


@action_cli  # type: ignore[untyped-decorator]
@command
def init(args: Namespace) -> int:
    """Make the pools that are missing, and say which exist."""
    from airflow_provider_hkex_rap.plugins.pools import create_missing_pools

    made = create_missing_pools()
    for name, slots in pool_slots().items():
        state = "made" if name in made else "exists"
        print(f"Pool {name}: {state}, slots: {slots}.")
    return 0


def pool_slots(names: Iterable[str] | None = None) -> dict[str, int | None]:
    """Return the slots of pools, by name; None if a pool does not exist.

    :param names: the pools; None for those that `init` creates.
    :raises sqlalchemy.exc.SQLAlchemyError: if Airflow's database cannot be read.
    """
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    from airflow_provider_hkex_rap.plugins.pools import pool_names

    asked = pool_names() if names is None else names
    with create_session() as session:
        pools = {name: Pool.get_pool(name, session=session) for name in asked}
        return {name: pool.slots if pool else None for name, pool in pools.items()}
