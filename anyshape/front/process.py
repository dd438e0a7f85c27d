"""The front as a process: it listens, keeps time, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import ssl
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Optional, Union

from anyshape.errors import ConfigError
from anyshape.front.connection import Connection
from anyshape.front.metrics import MetricsPage
from anyshape.front.proxy import Front
from anyshape.front.settings import FrontSettings

SECOND = 1.0
SPARE_FILES = 128  # beside clients and what is asked for them: logs, keys, handshakes, refusals
FAREWELL_SECONDS = 1.0  # from being told to stop until idle connections are closed


def serve(settings: FrontSettings, with_parent: bool = False) -> None:
    """Run until SIGTERM or SIGINT, or the parent's end. Raises ConfigError where it cannot listen."""
    try:
        import uvloop
    except ImportError:
        raise ConfigError("the front needs uvloop and httptools: pip install 'anyshape[front]'") from None
    uvloop.run(run(settings, os.getppid() if with_parent else 0))


async def run(settings: FrontSettings, parent: int = 0) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(sign, stopped.set)
    settings = open_files(settings)
    front = Front(settings)
    metrics = MetricsPage(front)
    encrypted = context_of(settings)
    servers = [await listen(front, settings.host, settings.port, encrypted)]
    if settings.metrics_port:
        servers.append(await listen(metrics, settings.metrics_host, settings.metrics_port))
    watching = asyncio.ensure_future(watch(front))
    keeping = asyncio.ensure_future(keep_time(front, metrics, encrypted))
    orphaned = asyncio.ensure_future(follow(parent, stopped))
    await stopped.wait()
    front.draining = True
    for server in servers:
        server.close()
    # On a connection that looks idle a request may be under way: whoever asks now is answered, and told that
    # it was the last one.
    await empty(front, min(FAREWELL_SECONDS, settings.drain_seconds))
    for connection in [*front.connections, *metrics.connections]:
        connection.drain()
    await empty(front, settings.drain_seconds - FAREWELL_SECONDS)
    for connection in [*front.connections, *metrics.connections]:
        connection.close()
    for task in (watching, keeping, orphaned):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    front.close()


def open_files(settings: FrontSettings) -> FrontSettings:
    """Let this process have a file for each connection that it may take and for each question behind it.

    The usual limit of 1,024 is less than that: whoever held so many connections would have everybody else
    hung up on. Where the system allows no more, fewer connections are taken.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.max_connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == wanted:
        return settings
    fewer = max(1, (allowed - SPARE_FILES) // 2)
    print(
        f"Note: {allowed} files may be open, so {fewer} connections are taken and not "
        f"{settings.max_connections}: raise the limit (ulimit -n).",
        file=sys.stderr,
        flush=True,
    )
    return replace(settings, max_connections=fewer)


async def empty(front: Front, seconds: float) -> None:
    """Return when no client is connected, or after so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while front.connections and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)


async def listen(
    owner: Union[Front, MetricsPage], host: str, port: int, encrypted: Optional[ssl.SSLContext] = None
) -> asyncio.Server:
    """Take connections at an address. Raises ConfigError."""
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(owner),
            host,
            port,
            ssl=encrypted,
            ssl_handshake_timeout=owner.settings.head_seconds if encrypted else None,
            ssl_shutdown_timeout=2.0 if encrypted else None,
            reuse_address=True,
            backlog=1024,
        )
    except OSError as error:
        flag = "--metrics-port" if isinstance(owner, MetricsPage) else "--port"
        raise ConfigError(
            f"the front cannot listen at {host}:{port} ({error.strerror}): name another port with {flag}"
        ) from None


def context_of(settings: FrontSettings) -> Optional[ssl.SSLContext]:
    """TLS 1.2 and above from the two files; None without them. Raises ConfigError."""
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise ConfigError("TLS needs two files: --tls-cert and --tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # each costs the server far more than its client
    context.set_alpn_protocols(["http/1.1"])
    load(context, settings)
    return context


def load(context: ssl.SSLContext, settings: FrontSettings) -> None:
    """Read certificate and key. Raises ConfigError where they do not fit."""
    assert settings.tls_cert is not None
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate {settings.tls_cert} and the key {settings.tls_key} cannot be used: {error}"
        ) from None


async def watch(front: Front) -> None:
    """Look at the models every second, and more often where one is missing."""
    while True:
        await front.watch.look()
        seconds = front.settings.watch_seconds
        await asyncio.sleep(seconds / 4 if front.missing(None) else seconds)


async def keep_time(front: Front, metrics: MetricsPage, encrypted: Optional[ssl.SSLContext]) -> None:
    """Once a second: end connections that are over their time, write the log, read tokens and certificate."""
    loop, settings = asyncio.get_running_loop(), front.settings
    stamp = _stamp(settings)
    while True:
        await asyncio.sleep(SECOND)
        now = loop.time()
        every = [*front.connections, *metrics.connections]
        for connection in [one for one in every if one.deadline < now]:
            connection.expire()
        front.log.flush()
        with suppress(ConfigError):  # as they were
            front.tokens.refresh()
            if encrypted is not None and _stamp(settings) != stamp:
                context_of(settings)  # whether the two fit: what is loaded in vain spoils a context
                load(encrypted, settings)  # new connections get the new certificate
                stamp = _stamp(settings)


async def follow(parent: int, stopped: asyncio.Event) -> None:
    """Stop when the process that started this one is gone."""
    while parent:
        await asyncio.sleep(SECOND)
        if os.getppid() != parent:
            stopped.set()


def _stamp(settings: FrontSettings) -> float:
    try:
        return settings.tls_cert.stat().st_mtime if settings.tls_cert else 0.0
    except OSError:
        return 0.0
