"""The ports that TorchServe listens on: what the settings say, whether they are free, others that are."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from anyshape.server.checks import ServeError

USUAL_PORTS = {"inference_address": 8080, "management_address": 8081, "metrics_address": 8082}


def port_of(key: str, properties: dict[str, str]) -> int:
    """The port of an address such as http://127.0.0.1:8080. Raises ServeError where it names none."""
    usual = USUAL_PORTS[key]
    address = properties.get(key, f"http://127.0.0.1:{usual}")
    match = re.fullmatch(r"https?://[^:/]+(:(\d+))?", address, re.IGNORECASE)
    if not match:
        raise ServeError(
            f"{key}={address} is no address: write http://HOST:PORT, as in http://127.0.0.1:{usual}"
        )
    if not match[1]:
        raise ServeError(f"{key}={address} has no port: write {address}:{usual}")
    return _port(f"{key}={address}", match[2])


def grpc_ports(properties: dict[str, str]) -> list[int]:
    """The ports of the two gRPC APIs. Raises ServeError where one is none."""
    keys = {"grpc_inference_port": "7070", "grpc_management_port": "7071"}
    return [_port(key, properties.get(key, usual)) for key, usual in keys.items()]


def _port(setting: str, value: str) -> int:
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise ServeError(f"{setting}: {value} is no port: write a number from 1 to 65535")
    return int(value)


def check_free(port: int, config: Path) -> None:
    """Whether nothing listens on the port. Raises ServeError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no bar
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise ServeError(f"port {port} may not be opened by this user: take one above 1023") from None
        except OSError:
            raise ServeError(
                f"port {port} is taken: stop what listens there (another `make serve`?), "
                f"or change the ports in a copy of {config.name}: --config COPY"
            ) from None


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on just now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
