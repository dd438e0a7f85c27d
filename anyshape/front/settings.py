"""The front's limits. Seconds and bytes throughout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class FrontSettings:
    """What `anyshape front` is told.

    inference, management: TorchServe's addresses, such as http://127.0.0.1:8080. key_file: where TorchServe
    writes its keys. tokens: the file of the clients' tokens. model: the one that paths without a model mean,
    such as /v1/embeddings; None: the only one there is. models: those that must be READY for /readyz; empty:
    all that are registered. metrics_port: 0 publishes none. share: bytes of one client's bodies that a
    model may have at once, 0 for any; None: where there are several tokens, a call for each worker and one
    more. call_rows: inputs of the longest kind in a call. waiting: how many more of its requests may wait;
    None: as many as the model's own queue takes.
    """

    inference: str
    management: str
    key_file: Path
    tokens: Path
    log: Path
    host: str = "127.0.0.1"
    port: int = 8443
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8083
    tls_cert: Optional[Path] = None
    tls_key: Optional[Path] = None
    model: Optional[str] = None
    models: tuple[str, ...] = ()
    max_body: int = 10 * 1024 * 1024  # as max_request_size of config.properties
    max_head: int = 16 * 1024  # request line and headers
    max_headers: int = 64
    max_connections: int = 1024
    share: Optional[int] = None
    call_rows: int = 1
    waiting: Optional[int] = None
    head_seconds: float = 10.0  # from a request's first byte to the end of its headers
    body_seconds: float = 30.0  # from there to the end of its body
    idle_seconds: float = 75.0  # between two requests
    write_seconds: float = 30.0  # until a client has taken its answer
    answer_seconds: float = 300.0  # until TorchServe must have answered
    drain_seconds: float = 30.0  # for the requests in hand when the front is told to stop
    watch_seconds: float = 1.0  # between two looks at the models
