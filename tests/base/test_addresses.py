"""Where clouds hand out credentials is known in every spelling; everywhere else is free."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.addresses import is_metadata


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376",
        "169.254.43518", "169.254.169.254.", "[::ffff:169.254.169.254]", "::ffff:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::a9fe:a9fe", "fe80::1", "[fe80::1%eth0]",
        "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    ],
)  # fmt: skip
def test_metadata_in_every_spelling(host: str) -> None:
    assert is_metadata(host)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "[::1]", "10.0.0.5", "192.168.1.9", "8.8.8.8", "localhost", "0.0.0.0",
     "model.example", "169.254.169.254.example", "fd00::1", "2001:db8::1", "", "h", "%", "a" * 300],
)  # fmt: skip
def test_models_may_be_served_everywhere_else(host: str) -> None:
    assert not is_metadata(host)


@given(st.integers(0, 0xFFFF))
def test_the_whole_link_in_all_its_forms(low: int) -> None:
    address = ipaddress.IPv4Address((169 << 24 | 254 << 16) + low)
    for host in (str(address), str(int(address)), hex(int(address)), f"::ffff:{address}"):
        assert is_metadata(host)


@given(st.text(max_size=40))
def test_any_text_is_answered(host: str) -> None:
    assert is_metadata(host) in (True, False)
