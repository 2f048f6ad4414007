"""Make text from outside fit for logs, errors and terminals."""

from __future__ import annotations

PATH_CHARACTERS = 4096
"""A limit that cuts no name, path or URI: no file system allows a longer path."""
_CUT = "…"


def printable(text: str, limit: int = 300) -> str:
    r"""Return a text on one line, short, and without characters that a terminal or a log would act on.

    Control characters, line ends, and formatting characters such as those that reverse the direction of
    writing are escaped: a server could forge log lines or hide text with them. ::

        printable("closed\x1b[2J")  # "closed\\x1b[2J"

    :param text: the text, such as the reason of a disconnect or a file's name on RAP.
    :param limit: the most characters to return. A longer text ends in ``…`` and its length.
    """
    # The rest of a long text is not even looked at: a server may send megabytes.
    shown = "".join(map(_shown, text[: limit + 1]))
    if len(shown) <= limit:
        return shown
    end = f"{_CUT} ({len(text)} characters)"
    return shown[: max(limit - len(end), 0)] + end


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
