"""Create the pools that keep two RAP tasks from running at the same time.

If the pool of a task does not exist, the task stays *scheduled* for ever, and only the log of the scheduler
says why.
"""

from __future__ import annotations

import logging

from airflow.configuration import conf
from airflow.listeners import hookimpl

from airflow_provider_hkex_rap.operators.task import POOL

_DESCRIPTION = "RAP allows one login per account: keep one slot."

log = logging.getLogger(__name__)


def pool_names() -> list[str]:
    """Return the pools of RAP tasks: the default pool, and the pools of the option ``[hkex_rap] pools``."""
    names = [POOL, *map(str.strip, conf.get("hkex_rap", "pools", fallback="").split(","))]
    return list(dict.fromkeys(filter(None, names)))


def create_missing_pools() -> list[str]:
    """Create each missing pool of RAP tasks, with one slot.

    :returns: the names of the pools that were created.
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
        # Another component has created it in the meantime.
        return False
    return True


@hookimpl
def on_starting(component: object) -> None:
    """Create the missing pools when the scheduler, or another component with database access, starts."""
    # job_type is not set yet at this point. A task runner, which has no database access, is not a Job.
    if type(component).__qualname__ == "Job" and (created := create_missing_pools()):
        log.info("Created the pools of RAP tasks: %s", ", ".join(created))
