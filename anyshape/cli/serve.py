"""`anyshape serve`: TorchServe with archives of the model store, in front until a signal."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from anyshape.buckets import call_shapes
from anyshape.cli import front as front_flags
from anyshape.cli.client import add_trust_arguments
from anyshape.errors import ConfigError
from anyshape.packed import read_recipe
from anyshape.server.checks import ServeError, too_many_threads
from anyshape.server.config import usual_config
from anyshape.server.front import FrontProcess
from anyshape.server.supervise import Supervisor
from anyshape.server.torchserve import TorchServe
from anyshape.server.trust import Trust
from anyshape.settings import Settings

HELP = """\
Start TorchServe with archives of the model store, wait until they answer, say how to ask them, and stay
in front. Ctrl-C (or SIGTERM) stops the server and its workers.

  anyshape serve --model minilm
  anyshape serve --model minilm --model mobilenet --store /srv/model_store --run /srv/run

Ports, unless the settings say otherwise: 8080 inference, 8081 management, 8082 metrics, 7070 and 7071
gRPC. Keys, logs and temporary files are kept in the run folder.

  anyshape serve --model minilm --front --front-host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem

With --front a proxy stands before TorchServe (`anyshape front --help`), with tokens of its own that last, and
what ends by itself is started again.
"""

MODEL_API = """\
       The model API is on: whoever holds the management key can run any code as this user. TorchServe
       registers every folder of this machine (`url=/tmp/x`) and imports any file (`handler=/tmp/x.py:f`),
       whatever allowed_urls says. Hand that key to nobody whom you would not give a shell."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        help="an archive's name without .mar; may be given again (default: see load_models)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="TorchServe's settings (default: config.properties here, else what ships)",
    )
    parser.add_argument(
        "--store", type=Path, default=Path("model_store"), help="the folder with the archives"
    )
    parser.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        default=Path("run"),
        help="where the server keeps keys, logs, temporary files",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=600,
        metavar="SECONDS",
        help="how long a model may take to load",
    )
    parser.add_argument(
        "--enable-model-api",
        action="store_true",
        help="allow registering and unregistering over the management API; "
        "its key is then worth a shell on this machine",
    )
    add_trust_arguments(parser)
    group = parser.add_argument_group("the front", "`anyshape front --help` says what it does")
    group.add_argument("--front", action="store_true", help="put the front before TorchServe")
    front_flags.add_flags(group, prefix="front-")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal. Where the server fails, the logs' last lines stand below the error."""
    # Set even where the shell has SIGINT ignored, as it does for a background job of a script.
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    threading.Thread(target=_follow_make, daemon=True).start()
    try:
        server = TorchServe(
            args.config or usual_config(),
            store=args.store,
            run=args.run_folder,
            models=args.model,
            model_api=args.enable_model_api,
            trust=Trust(args.sums, args.signers),
        )
        options = front_flags.given(args)
        if options and not args.front:
            raise ServeError("a setting of the front was given without it: add --front")
        front = None
        if args.front:
            options.setdefault("call_rows", max(map(longest_rows, server.archives.values()), default=1))
            front = FrontProcess(server, options)
        serve(server, args.wait, front)
    except KeyboardInterrupt:
        print("\nStopped.")
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def longest_rows(archive: Path) -> int:
    """How many of the longest inputs a call of an archive takes. 1 for an archive that is none of ours."""
    settings = settings_of(archive)
    if settings is None:
        return 1
    shapes = call_shapes(settings.buckets, settings.batch_sizes, settings.largest_call)
    return max(rows for bucket, rows in shapes if bucket == settings.buckets[-1])


def takes_pictures(archive: Path) -> bool:
    """Whether the buckets of an archive are heights and widths. False for an archive that has none."""
    settings = settings_of(archive)
    return settings is not None and len(settings.buckets[0]) == 2


def settings_of(archive: Path) -> Settings | None:
    """What an archive says of itself; None for one that is none of ours."""
    try:
        return Settings.of(read_recipe(archive).handler)
    except ConfigError:
        return None


def sample_picture() -> str:
    """A photograph that an installed package brings; where there is none, a name to be replaced."""
    spec = importlib.util.find_spec("matplotlib")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    photograph = folder / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    return str(photograph) if photograph.is_file() else "picture.jpg"


def curl_line(server: TorchServe, model: str, front: FrontProcess | None = None) -> str:
    """A command that asks a model something, a text or a picture, to be pasted into a shell."""
    address, token = server.inference, ""
    if front is not None:
        token = f"$(grep -v '^#' {shlex.quote(str(front.tokens))} | head -1 | cut -d ' ' -f 1)"
        address = front.url
        if front.encrypted:
            address = f"--cacert {shlex.quote(str(front.options['tls_cert']))} {address}"
    elif not server.open_to_all:
        read_key = "import json, sys; print(json.load(open(sys.argv[1]))['inference']['key'])"
        token = f'$({shlex.quote(sys.executable)} -c "{read_key}" {shlex.quote(str(server.key_file))})'
    if takes_pictures(server.archives[model]):
        body = f"-H 'Content-Type: image/jpeg' --data-binary @{shlex.quote(sample_picture())}"
    else:
        body = "-H 'Content-Type: text/plain' -d 'How long is a piece of string?'"
    bearer = f'-H "Authorization: Bearer {token}" ' if token else ""
    return f"curl {address}/predictions/{model} {bearer}{body}"


def serve(server: TorchServe, seconds: float, front: FrontProcess | None = None) -> None:
    """Start, wait, say how to ask, and stay until a signal. The front, if any, is stopped first."""
    names = list(server.archives)
    print(f"Starting TorchServe with {', '.join(names) or 'no model'} ...", flush=True)
    if os.environ.get("PYTHONPATH"):
        print("Note: the workers do not see PYTHONPATH, but their archives and this Python's packages alone.")
    with server, ExitStack() as stack:
        if front is not None:
            stack.callback(front.stop)
            front.start()
        crowded = too_many_threads(server.archives)
        if crowded:
            print(f"Note: {crowded}.", flush=True)
        for name in names:
            server.wait_ready(name, seconds=seconds)
        if front is not None and names:
            front.wait_ready()
        print(f"\nREADY: {', '.join(names) or 'no model'} at {front.url if front else server.inference}")
        print(f"management {server.management}, metrics {server.metrics}/metrics")
        if front is None and server.open_to_all:
            print("Keys:  none, by the settings: whoever reaches these addresses is answered")
        elif front is None:
            minutes = server.properties.get("token_expiration_min", "60")
            print(f"Keys:  {server.key_file} (they expire after {minutes} minutes)")
        else:
            print(f"Tokens: {front.tokens} (a line each; they last until their line is removed)")
            if not front.encrypted:
                print("Note: the front speaks plain HTTP: --tls-cert and --tls-key encrypt it.")
        if server.model_api:
            print(MODEL_API)
        print(f"Logs:  {server.logs}")
        if names:
            print(f"Try this in another terminal:\n\n{curl_line(server, names[0], front)}\n")
        print("Ctrl-C stops the server.", flush=True)
        if front is not None:
            Supervisor(server, front, lambda line: print(line, flush=True)).watch()
        while True:
            server.check_alive()
            time.sleep(0.5)


def _interrupt(*_: object) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)  # stopping takes a moment; a second Ctrl-C must not break it off
    raise KeyboardInterrupt


def _follow_make() -> None:
    """Stop when a signal reached make alone: it does not pass SIGINT on, but waits for its child to end.

    What can be seen of it (on Linux) is that make no longer catches the signal.
    """
    parent = os.getppid()

    def catches_interrupt() -> bool:
        status = Path(f"/proc/{parent}/status").read_text()
        mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)

    try:
        if Path(f"/proc/{parent}/comm").read_text().strip() != "make" or not catches_interrupt():
            return
        while catches_interrupt():
            time.sleep(0.3)
    except OSError:
        return  # no /proc, or make is gone
    os.kill(os.getpid(), signal.SIGINT)
