"""Asks a running server: its management API, its inference API, its metrics.

    client = Client("http://127.0.0.1:8081", Path("run/key_file.json"))
    status, answer = client.manage("GET", "/models/minilm")
    client.scrape().total("anyshape_requests_total")

The other two addresses are, unless they are given, the ports before and after that of the management API.
Keys are read from the key file each time: they may have been renewed.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from anyshape.server.checks import ServeError
from anyshape.server.scrape import Scrape

MANAGEMENT = "http://127.0.0.1:8081"
KEY_FILE = Path("run/key_file.json")
SECONDS = 60.0


@dataclass(frozen=True)
class Client:
    """management, inference, metrics: addresses. key_file: what TorchServe wrote; None where keys are off.
    seconds: how long each answer may take."""

    management: str = MANAGEMENT
    key_file: Optional[Path] = KEY_FILE
    inference_address: str = ""
    metrics_address: str = ""
    seconds: float = SECONDS

    @property
    def inference(self) -> str:
        return (self.inference_address or _beside(self.management, -1)).rstrip("/")

    @property
    def metrics(self) -> str:
        return (self.metrics_address or _beside(self.management, +1)).rstrip("/")

    def key(self, kind: str) -> str:
        """The key for "inference", "management", or "API". Raises ServeError."""
        return "" if self.key_file is None else str(self.entry(kind)["key"])

    def entry(self, kind: str) -> Dict[str, Any]:
        """What the key file holds of a kind: the "key", and its "expiration time". Raises ServeError.

        It need not hold all three: who only watches is given the management key alone.
        """
        assert self.key_file is not None
        deadline = time.monotonic() + 2.0
        while True:
            try:
                written = json.loads(self.key_file.read_bytes())
                if kind not in written:
                    raise ServeError(f"{self.key_file} holds no {kind} key")
                str(written[kind]["key"])
                return dict(written[kind])
            except OSError as error:
                raise ServeError(
                    f"cannot read the keys in {self.key_file} ({error.strerror}): name the server's with "
                    "--key-file, or say --no-keys where the server has none"
                ) from None
            except (ValueError, KeyError, TypeError):  # TorchServe is writing it anew: it does so in place
                if time.monotonic() > deadline:
                    raise ServeError(f"{self.key_file} holds no keys: is it TorchServe's key file?") from None
            time.sleep(0.02)

    def manage(self, method: str, path: str, **query: object) -> Tuple[int, Any]:
        """The status and the JSON that the management API answers. Raises ServeError where it does not
        answer, or refuses the key."""
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        url = self.management.rstrip("/") + path + asked
        status, body = self._ask(method, url, self._bearer("management"), None)
        answer = _json(body)
        if status in (400, 401, 403) and re.search("token", str(answer), re.IGNORECASE):
            raise ServeError(
                f"{self.management} refuses the management key of {self.key_file}: is it this "
                "server's, and has it not expired (anyshape keys renew)?"
            )
        return status, answer

    def renew(self, kind: str) -> Tuple[int, Any]:
        """Have TorchServe replace the key "inference" or "management": what it answers."""
        url = f"{self.management.rstrip('/')}/token?type={kind}"
        status, body = self._ask("GET", url, self._bearer("API"), None)
        return status, _json(body)

    def predict(self, model: str, version: str, body: bytes, content_type: str) -> Tuple[int, bytes]:
        """What a version of a model answers."""
        url = f"{self.inference}/predictions/{model}/{version}"
        return self._ask("POST", url, {**self._bearer("inference"), "Content-Type": content_type}, body)

    def scrape(self) -> Scrape:
        """The metrics that the server publishes. Raises ServeError."""
        status, body = self._ask("GET", f"{self.metrics}/metrics", {}, None)
        if status != 200:
            raise ServeError(
                f"{self.metrics}/metrics answers HTTP {status}: name the metrics' address with --metrics"
            )
        return Scrape.of(body.decode(errors="replace"))

    def models(self) -> List[str]:
        """The names of all models."""
        status, answer = self.manage("GET", "/models", limit=1000)
        if status != 200 or not isinstance(answer, dict):
            raise ServeError(
                f"{self.management}/models answers HTTP {status}: is it TorchServe's management address?"
            )
        return [str(model["modelName"]) for model in answer.get("models", [])]

    def versions(self, model: str) -> List[Dict[str, Any]]:
        """What the server says of each version of a model; the list is empty where it has none."""
        status, answer = self.manage("GET", f"/models/{model}/all")
        if status == 404:
            return []
        if status != 200 or not isinstance(answer, list):
            raise ServeError(f"{self.management}/models/{model} answers HTTP {status}: {said(answer)}")
        return answer

    def default_version(self, model: str) -> str:
        """The version that answers where none is named. Raises ServeError where the model is not served."""
        status, answer = self.manage("GET", f"/models/{model}")
        if status != 200:
            raise ServeError(
                f"{self.management} serves no {model}: it serves {', '.join(self.models()) or 'nothing'}"
            )
        return str(answer[0]["modelVersion"])

    def only_model(self) -> str:
        """The name of the one model that is served. Raises ServeError where there are more, or none."""
        names = self.models()
        if len(names) != 1:
            raise ServeError(
                f"{self.management} serves {', '.join(names) or 'nothing'}: name one with --model"
            )
        return names[0]

    def _bearer(self, kind: str) -> Dict[str, str]:
        return {} if self.key_file is None else {"Authorization": f"Bearer {self.key(kind)}"}

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: Optional[bytes]
    ) -> Tuple[int, bytes]:
        try:
            request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
            with urllib.request.urlopen(request, timeout=self.seconds) as answer:
                return int(answer.status), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address at all
            why = getattr(error, "reason", error)
            raise ServeError(
                f"no answer from {url.partition('?')[0]} ({why}): is the server running, and is this its "
                "address?"
            ) from None


def said(answer: object) -> str:
    """What an error of TorchServe's says, in one line."""
    message = answer.get("message", answer) if isinstance(answer, dict) else answer
    return " ".join(str(message).split())[:300]


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _beside(address: str, step: int) -> str:
    """The same address with another port."""
    parts = urllib.parse.urlsplit(address)
    try:
        if parts.hostname is None or parts.port is None:
            raise ValueError
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port + step}"
    except ValueError:
        raise ServeError(f"{address} is no address with a port: write it as {MANAGEMENT}") from None
