"""The faults that the provider must survive; after each, one clean rerun converges.

The docstring of a test names its fault by the number in this list:

1. The connection is cut at a byte of a file.      16. A name such as `../x` or `/abs`, or a symlink.
2. A file ends early.                              17. A name that is not UTF-8, or two that look the same.
3. A file grows while it is read.                  18. A listing of 100,000 entries.
4. A file is rewritten with the same size.         19. A file without bytes.
5. A read stalls.                                  20. A report is published again with new content.
6. A login stalls.                                 21. A report is published again with the same content.
7. A second login closes our session.              22. No space in the spool, or no quota in the lake.
8. Two tasks or processes use one account.         23. S3 fails a part or its completion, or loses an answer.
9. A worker is killed.                             24. SIGTERM or SIGKILL at each step.
10. The first address refuses.                     25. A manifest is lost or corrupt.
11. RAP rejects the key.                           26. The clock is wrong, or RAP was not asked for ten days.
12. The host key has changed.                      27. A renewal is interrupted, rejected or unanswered.
13. No common algorithm.                           28. The key store fails.
14. A listing is cut, or fails.                    29. The server limits open files or reads.
15. Attributes are missing or false.

Some are tested elsewhere: those of a lake (9, 17, 18, 22, 25) in ``tests/unit/lake``, those of S3 (23) in
``tests/integration/test_lake_s3.py``, a long outage (26) in ``tests/integration/test_trial_backfill.py``,
and limits of a server (29) in ``tests/integration/test_other_servers.py``.
"""
