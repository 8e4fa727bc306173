"""Link-local and cloud metadata addresses: no request may reach them, they give out credentials."""

from __future__ import annotations

import ipaddress
import socket

_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_metadata(host: str) -> bool:
    """Whether ``host`` is an address (in any spelling that a resolver takes) of the link, as
    169.254.169.254 is, or of a cloud's metadata service. Names say no: what they lead to is
    looked at again once connected."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        try:  # decimal, octal, hexadecimal, or fewer than four parts
            address = ipaddress.ip_address(socket.inet_aton(host.rstrip(".")))
        except (OSError, ValueError):
            return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and (address in _NAT64 or int(address) >> 32 == 0):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    return address.is_link_local or address in _METADATA
