"""A socket that the server listens at."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """Listen at a TCP address; port 0 takes one that is free.

    Raises:
        OSError: the address is no address, or is taken.
    """
    # The protocol is named although there is only one: asyncio sends answers at once (TCP_NODELAY) only where it is.
    # Without, each answer of more than one packet waits 40 ms for the client's receipt of the first.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
