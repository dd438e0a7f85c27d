"""TorchServe and the front before it: what ends by itself is started again, with what it served last."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from anyshape.server.checks import ServeError
from anyshape.server.front import FrontProcess
from anyshape.server.memory import Memory
from anyshape.server.torchserve import TorchServe

LIVED = 60.0  # seconds: who ends sooner than that has failed to start
TRIES = 5  # such failures in a row, and then the whole ends, for its own supervisor to see
LOOK_SECONDS = 0.2


class Supervisor:
    """`watch` returns never: it raises ServeError when one of the two does not stay up."""

    def __init__(self, server: TorchServe, front: FrontProcess, say: Callable[[str], None]) -> None:
        self.server, self.front, self.say = server, front, say
        self.memory = Memory(server, say)

    def watch(self) -> None:
        failures, started = {"TorchServe": 0, "The front": 0}, dict.fromkeys(("TorchServe", "The front"), 0.0)
        while True:
            for name, alive, again in (
                ("TorchServe", self._serves, self._start_server),
                ("The front", lambda: self.front.alive, self._start_front),
            ):
                if alive():
                    continue
                failures[name] = failures[name] + 1 if time.monotonic() - started[name] < LIVED else 1
                if failures[name] > TRIES:
                    raise ServeError(
                        f"{name} ended {failures[name]} times in a row.\n{self.server.log_tail()}"
                    )
                time.sleep(0 if failures[name] == 1 else 2.0 ** (failures[name] - 1))
                self.say(f"{name} has ended: it is started again.")
                started[name] = time.monotonic()
                again()
            self.memory.keep()
            time.sleep(LOOK_SECONDS)

    def _serves(self) -> bool:
        return self.server.process is not None and self.server.process.poll() is None

    def _start_server(self) -> None:
        self.server.stop()  # its workers outlive it otherwise, and hold their sockets and their memory
        self.memory.restore()
        try:
            self.server.start()
        except ServeError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)

    def _start_front(self) -> None:
        try:
            self.front.start()
        except ServeError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
