"""Addresses to listen on."""

from __future__ import annotations

import socket

from fcdeploy.errors import FcdeployError


def bind_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at this address; `shared` lets several processes have the same. Raises FcdeployError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise FcdeployError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "give another one: --host, --port"
        ) from error
    made.setblocking(False)
    return made
