"""A model of a few lines whose answers can be checked; it does what its text says: `sleep 0.5`, `die`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.server.harness import make_archive

PROBE = """
import hashlib, json, os, time

class Probe:
    def initialize(self, context):
        time.sleep(float(os.environ.get("PROBE_LOAD_SECONDS", "0")))

    def handle(self, data, context):
        return [self.answer(row, context, i) for i, row in enumerate(data)]

    def answer(self, row, context, i):
        body = row.get("body", b"")
        if not isinstance(body, (str, bytes, bytearray)):
            body = json.dumps(body, sort_keys=True)
        body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
        if body.startswith(b"sleep "):
            time.sleep(float(body.split()[1]))
        if body == b"raise":
            raise RuntimeError("as you say")
        if body.startswith(b"die"):
            os._exit(1)
        if body.startswith(b"once "):  # dies for the first of two tries
            path = body.split()[1].decode()
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(1)
        context.set_response_content_type(i, "application/json")
        if body.startswith(b"refuse"):
            context.set_response_status(422, "Unprocessable Entity", i)
            return json.dumps({"code": 422, "type": "UnprocessableInput", "message": "as you say"})
        names = ("url_path", "x-request-id", "describe", "authorization", "content-type", "x-other")
        names += ("x-request-start",)
        headers = {name: context.get_request_header(i, name) for name in names}
        headers["authorization"] = bool(headers["authorization"])
        return json.dumps({"sha256": hashlib.sha256(body).hexdigest(), "pid": os.getpid(), **headers})
"""

RECIPE = """\
minWorkers: {workers}
maxWorkers: {workers}
batchSize: {batch}
maxBatchDelay: 1
jobQueueSize: {queue}
responseTimeout: 60
"""


def make_probe(
    folder: Path,
    name: str = "probe",
    *,
    workers: int = 1,
    batch: int = 4,
    queue: int = 100,
    version: str = "1.0",
) -> None:
    """`folder/store/NAME.mar`."""
    (folder / "store").mkdir(exist_ok=True)
    recipe = RECIPE.format(workers=workers, batch=batch, queue=queue)
    work = folder / f"{name}-{version}"
    make_archive(folder / "store", name, PROBE, work=work, version=version, recipe=recipe)


def right(body: bytes, answer: bytes) -> bool:
    """Whether an answer is the one to a body."""
    return bool(json.loads(answer)["sha256"] == hashlib.sha256(body).hexdigest())
