"""The address that the server listens on: this computer's own, unless asked for twice."""

from __future__ import annotations

import ipaddress

from MIMSegment.Logic.errors import MIMSegmentError

LOOPBACK = "127.0.0.1"


class AccessError(MIMSegmentError):
    """An address that the server must not listen on."""


def check_host(host: str, open_to_network: bool) -> str | None:
    """None for an address of this computer; a warning to print for another one.

    Raises AccessError for another address unless ``open_to_network``, the second request, is true.
    """
    if is_loopback(host):
        return None
    if not open_to_network:
        raise AccessError(
            f"{host} can be reached from other computers, and the page shows patients' images "
            "without encryption. Use an SSH tunnel to 127.0.0.1 instead, or add "
            "--open-to-network if you are sure."
        )
    return (
        f"warning: listening on {host}: images, names and results cross the network unencrypted, "
        "and whoever learns the address with its token can read and change them."
    )


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
