from __future__ import annotations

from datetime import date

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.expiry_warning import ExpiryWarning

FINGERPRINT = "2e:6c:9f:34:55:5a:dd:cf:7d:18:55:31:72:40:ff:bd"
FORMS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%d.%m.%Y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%b %d %Y",
]


@given(day=st.dates(date(2000, 1, 1), date(2099, 12, 31)), form=st.sampled_from(FORMS))
def test_every_common_form_of_a_date_is_read(day: date, form: str) -> None:
    warning = ExpiryWarning.parse(f"Your key expires on {day.strftime(form)}.\n".encode())
    assert warning.dates == (day,)


def test_what_is_there_is_read_in_its_order() -> None:
    text = f"DCXYZ001.pub MD5:{FINGERPRINT.upper()} expires 2026-02-28 23:59:59\nprinted on 15 Feb 2026"
    assert ExpiryWarning.parse(b"\xef\xbb\xbf" + text.encode()) == ExpiryWarning(
        text, (FINGERPRINT,), (pendulum.Date(2026, 2, 28), pendulum.Date(2026, 2, 15))
    )


@pytest.mark.parametrize("text", ["2026-02-30", "99/99/2026", "120260228", "202602281", "0 May 2026"])
def test_what_is_no_date_is_passed_over(text: str) -> None:
    assert ExpiryWarning.parse(text.encode()).dates == ()


@given(st.binary() | st.text(alphabet="0123456789/-. JanFebMy,").map(str.encode))
def test_no_content_raises(content: bytes) -> None:
    ExpiryWarning.parse(content)
