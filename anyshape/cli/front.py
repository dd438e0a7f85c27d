"""`anyshape front`: the proxy before a TorchServe that is started elsewhere."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from anyshape.front.settings import FrontSettings

HELP = """\
Stand before a running TorchServe and face its clients: plain HTTP/1.1 requests of known clients are let
through, whole, and everything else is answered here, with a status and a message that are true. Forms and
ambiguous requests are refused; bodies, slow clients and connections are bounded; /livez and /readyz need no
token; /v1/embeddings, /embed and their like are the model's. SIGTERM answers what is in hand, then ends.

  anyshape front --key-file run/key_file.json --tokens run/tokens.txt
  anyshape front --key-file run/key_file.json --tokens /etc/anyshape/tokens.txt --host 0.0.0.0 \\
      --tls-cert cert.pem --tls-key key.pem

`anyshape serve --front` starts both, and starts again what ends.
"""

# Flag: (its setting, type, help). The defaults stand in FrontSettings.
FLAGS: dict[str, tuple[str, Any, str]] = {
    "host": ("host", str, "the address to listen at; 0.0.0.0 is every one of this machine"),
    "port": ("port", int, "the port to listen at"),
    "tls-cert": ("tls_cert", Path, "the certificate with its chain (PEM); read again when it changes"),
    "tls-key": ("tls_key", Path, "its key (PEM)"),
    "tokens": ("tokens", Path, "who may ask: one token a line; made with a first one where it is missing"),
    "model": ("model", str, "what /v1/embeddings and their like ask, where several models are served"),
    "max-body": ("max_body", int, "bytes of a request's body, as max_request_size of config.properties"),
    "metrics-host": ("metrics_host", str, "the address to publish the front's own metrics at"),
    "metrics-port": ("metrics_port", int, "its port, for Prometheus; 0 publishes none"),
    "share": (
        "share",
        int,
        "bytes of one token's requests that a model may have at once; 0: any (default: with several tokens, "
        "a call for each worker and one more)",
    ),
    "call-rows": ("call_rows", int, "inputs of the longest kind that a call takes, for that default"),
    "waiting": ("waiting", int, "how many more of its requests may wait (default: jobQueueSize)"),
    "max-connections": ("max_connections", int, "clients at once"),
    "head-seconds": ("head_seconds", float, "how long a request's headers may take to arrive"),
    "body-seconds": ("body_seconds", float, "how long its body may take then"),
    "idle-seconds": ("idle_seconds", float, "how long a connection may wait for its next request"),
    "answer-seconds": ("answer_seconds", float, "how long TorchServe may take"),
    "drain-seconds": ("drain_seconds", float, "how long requests in hand may take at SIGTERM"),
}
_DEFAULTS = {field.name: field.default for field in fields(FrontSettings)}


def add_flags(parser: Any, prefix: str = "") -> None:
    """The front's flags, `prefix` before their names (but for those of TLS)."""
    for flag, (setting, kind, says) in FLAGS.items():
        name = f"--{flag}" if flag.startswith("tls-") else f"--{prefix}{flag}"
        usual = _DEFAULTS[setting]
        shown = f" (default: {usual})" if isinstance(usual, (str, int, float)) else ""
        metavar = "FILE" if kind is Path else kind.__name__.upper() if kind is not str else "NAME"
        parser.add_argument(name, dest=f"front_{setting}", type=kind, metavar=metavar, help=says + shown)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """{setting: value} of the flags that were given."""
    values = {setting: getattr(args, f"front_{setting}") for setting, _, _ in FLAGS.values()}
    return {setting: value for setting, value in values.items() if value is not None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inference", default="http://127.0.0.1:8080", help="TorchServe's inference address")
    parser.add_argument("--management", default="http://127.0.0.1:8081", help="and its management address")
    parser.add_argument("--key-file", type=Path, required=True, help="where TorchServe writes its keys")
    parser.add_argument("--log", type=Path, default=Path("front.log"), help="a line of JSON for every answer")
    parser.add_argument(
        "--ready",
        action="append",
        default=[],
        metavar="MODEL",
        help="what must be READY for /readyz; may be given again (default: all that are registered)",
    )
    parser.add_argument("--with-parent", action="store_true", help="end with the process that started it")
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    from anyshape.front.process import serve

    values = {"tokens": Path("tokens.txt"), **given(args)}
    settings = FrontSettings(
        inference=args.inference,
        management=args.management,
        key_file=args.key_file,
        log=args.log,
        models=tuple(args.ready),
        **values,
    )
    serve(settings, with_parent=args.with_parent)
    return 0
