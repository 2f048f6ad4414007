"""The pools that keep RAP tasks apart, made where they are missing.

A task whose pool does not exist stays scheduled for ever, and nothing but the scheduler's log says so.
"""

from __future__ import annotations

import logging

from airflow.configuration import conf
from airflow.listeners import hookimpl

from airflow_provider_hkex_rap.operators.task import POOL

_DESCRIPTION = "RAP lets an account log in once: keep one slot."

log = logging.getLogger(__name__)


def pool_names() -> list[str]:
    """Return the pools that RAP tasks name: ours, and those of the setting ``[hkex_rap] pools``."""
    names = [POOL, *map(str.strip, conf.get("hkex_rap", "pools", fallback="").split(","))]
    return list(dict.fromkeys(filter(None, names)))


def create_missing_pools() -> list[str]:
    """Make each pool that RAP tasks name and that does not exist, with one slot.

    :returns: the names of the pools made.
    """
    return [name for name in pool_names() if _create_if_missing(name)]


def _create_if_missing(name: str) -> bool:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    try:
        with create_session() as session:
            if Pool.get_pool(name, session=session):
                return False
            session.add(Pool(pool=name, slots=1, description=_DESCRIPTION, include_deferred=False))
    except IntegrityError:
        # Another component made it in between.
        return False
    return True


@hookimpl
def on_starting(component: object) -> None:
    """Make the missing pools when the scheduler, or another component with the database, starts."""
    # The kind of job is not known yet at this moment; a task runner, which has no database, is no Job at all.
    if type(component).__qualname__ == "Job" and (made := create_missing_pools()):
        log.info("Made the pools of RAP tasks: %s", ", ".join(made))
