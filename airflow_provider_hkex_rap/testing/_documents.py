"""Contents that open in the tools that a file's extension promises: CSV and text, ZIP and PDF."""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache

from airflow_provider_hkex_rap.testing._tree import Content, Generated, Given

_LARGEST = 4 << 20
"""Bytes up to which a ZIP or PDF file is made; it is held in memory."""
_INNER = "report.csv"
_ZIP_OVERHEAD = 30 + 46 + 22 + 2 * len(_INNER)


def generated_content(name: str, size: int, salt: str) -> Content:
    """Return content of a size for a file; equal arguments give equal content.

    A ZIP file holds one CSV file, and a PDF file one page. A file that is too small for its format, or larger
    than 4 MiB, has the rows of a CSV file.

    :param name: the file's name.
    :param size: number of bytes.
    :param salt: any text; another one gives other content.
    """
    extension = name.rpartition(".")[2].lower()
    if size <= _LARGEST:
        if extension == "zip" and size > _ZIP_OVERHEAD:
            return Given(_zip(size, salt))
        if extension == "pdf" and size >= len(_pdf(salt)):
            return Given(_pdf(salt, size))
    return Generated(size, salt)


@lru_cache(maxsize=64)
def _zip(size: int, salt: str) -> bytes:
    rows = Generated(size - _ZIP_OVERHEAD, salt)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_INNER), rows.read(0, rows.size))
    return file.getvalue()


@lru_cache(maxsize=64)
def _pdf(salt: str, size: int = 0) -> bytes:
    """Return one page with a text; a comment behind its objects brings the file to the size."""
    text = "".join(character for character in salt if character.isalnum() or character in " _.-").encode()
    page = b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % text
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    body, table = b"%PDF-1.4\n", b"0000000000 65535 f \n"
    for number, content in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(body)
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    end = b"xref\n0 6\n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%010d\n%%%%EOF\n"
    filling = b"%" + b"." * (size - len(body) - len(end % (table, 0)) - 2) + b"\n"
    return body + filling + end % (table, len(body) + len(filling))
