"""Simulate a full disk, and other failures of one."""

import contextlib
import resource


@contextlib.contextmanager
def file_size_limit(limit):
    """Let the kernel refuse writes beyond a file size in bytes, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def failing_with(error):
    """Return a function that raises an error, whatever its arguments."""

    def fail(*arguments):
        raise error

    return fail
