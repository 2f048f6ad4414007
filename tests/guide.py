"""The rules of HKEX's technical guide that a client can keep or break, and the page of their tests.

``@pytest.mark.guide("4.3 one login")`` says that a test keeps a rule. Mark only tests that fail if the rule
is broken. ``--guide-page=FILE`` writes the page of all rules and their tests after the collection.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

RULES = {
    "2.1 algorithms": "Use only the key exchange, MAC, cipher and public key algorithms of the guide.",
    "2.1 endurance": "Send a file in one go and under its own name; RAP denies the endurance feature.",
    "2.1 key files": "Write public keys in the form of RFC 4716.",
    "2.2 sites": "Connect to the primary site, and to the secondary one only when HKEX announces it.",
    "3.1 accounts": "An account is DC, three characters and 001 to 004, in capital letters.",
    "3.2 public key": "Log in with an SSH key, each account with its own.",
    "3.2.1 key sizes": "Keys are RSA keys of 2048 or 4096 bits.",
    "3.2.1 names": "The public key of DCXXX001 is sent as DCXXX001.pub.",
    "3.2.2 fingerprints": "A fingerprint is the MD5 digest of the key: 16 octets in lower case, with colons.",
    "3.2.2 private keys": "Private keys stay with the participant.",
    "4.1 hours": "Connect only in the service hours of DCASS and of CCMS.",
    "4.1 ten days": "Reports stay for ten calendar days: fetch them in time, and keep them safe.",
    "4.1 once": "Download each report once; only those on intraday margin more often than once a day.",
    "4.2 folders": "Use the folders that the guide lists; /submission is not used.",
    "4.2 key folder": "In the key folder, upload and download; never modify or delete.",
    "4.2 subscription": "An account sees the folders that it is configured for.",
    "4.3 addresses": "Log in from a registered address.",
    "4.3 one login": "Log in once at a time: a second login of the account closes the first session.",
    "5 registration": "Register each account's public key, fingerprint and addresses, and no private key.",
    "6 renewal": "Renew each account's key over its own login, at least every two years.",
    "6 results": "Read the result file of an upload, .rcvd or .rej, within 24 hours.",
    "6.1 validity": "After a renewal the old key is valid for 14 days at most, the new one for two years.",
    "6.2 warning": "Check the key folder for SSHKeyExpireWarning.txt; ignore it if the key has been renewed.",
    "6.3 two keys": "Hold two keys at most: a third replaces the renewed one.",
    "7 workstations": "Register four addresses at most, all in one subnet (the first three octets).",
    "7.1 addresses": "RAP has two addresses at each site, on port 18801.",
}
"""A rule in one line, by its section of the guide, version 2.1, and a short name."""


def rules_of(item: pytest.Item) -> list[str]:
    """Return the rules that a test keeps.

    :raises pytest.UsageError: if a marker names no rule.
    """
    rules = [rule for marker in item.iter_markers("guide") for rule in marker.args]
    if unknown := set(rules) - RULES.keys():
        raise pytest.UsageError(
            f"{item.nodeid} is marked with {sorted(unknown)}, which tests/guide.py lacks."
        )
    return rules


def write_page(path: Path, items: list[pytest.Item]) -> None:
    """Write the page of all rules, each with the tests that keep it.

    :param items: all tests.
    :raises pytest.UsageError: if a rule has no test.
    """
    tests: dict[str, dict[str, list[str]]] = {rule: defaultdict(list) for rule in RULES}
    for item in items:
        file, _, name = item.nodeid.partition("[")[0].partition("::")
        for rule in rules_of(item):
            if name not in tests[rule][file]:
                tests[rule][file].append(name)
    if bare := [rule for rule in RULES if not tests[rule]]:
        raise pytest.UsageError(f"No test keeps {bare}.")
    lines = []
    for rule, text in RULES.items():
        section, _, name = rule.partition(" ")
        lines += ["", f"## §{section} {name}", "", text]
        for file, names in sorted(tests[rule].items()):
            lines += [
                "",
                f"`{file}`",
                "",
                *(f"- {name.replace('_', ' ').removeprefix('test ')}" for name in names),
            ]
    path.write_text("\n".join(lines) + "\n")
