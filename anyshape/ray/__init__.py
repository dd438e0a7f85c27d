"""Ray Serve's face: the same archive, the same words, answers that leave as their call ends.

serve run anyshape.ray:app archive=model_store/minilm.mar replicas=2

from ray import serve
from anyshape.ray import app

serve.run(app("model_store/minilm.mar"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Union

import msgspec
from msgspec import Struct
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from anyshape.errors import ConfigError


class Options(Struct, forbid_unknown_fields=True, kw_only=True):
    """What `app` takes.

    archive: a path that every node has. name: what the model is served as; by default its file's.
    replicas: how many, or with `max_replicas` how many at least. cores: of each; resources: what each holds
    besides, such as ``{"neuron_cores": 1}``. waiting: requests that may wait for a replica.
    max_body: the most bytes of a request.
    """

    archive: str
    name: str = ""
    replicas: int = 1
    max_replicas: Optional[int] = None
    cores: int = 1
    resources: Dict[str, float] = {}
    waiting: int = 200
    max_body: int = 10_000_000


def app(archive: Union[str, Path, Mapping[str, Any]]) -> Any:
    """An application for `serve.run`, or for `serve run anyshape.ray:app key=value …`.

    archive: its path, or all of `Options` as a mapping. Raises ConfigError, which names what is wrong.
    """
    given = dict(archive) if isinstance(archive, Mapping) else {"archive": str(archive)}
    try:
        options = msgspec.convert(given, Options, strict=False)  # the command line has only texts
    except msgspec.ValidationError as error:
        raise ConfigError(f"anyshape.ray:app: {error}") from None
    options.archive = str(Path(options.archive).absolute())
    if not Path(options.archive).exists():
        raise ConfigError(f"{options.archive} is not there: build it with `anyshape build`")
    scaling: Dict[str, Any] = {"num_replicas": options.replicas}
    if options.max_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": max(1, options.waiting // 10),
            }
        }
    deployment = serve.deployment(
        name=options.name or Path(options.archive).stem,
        ray_actor_options={"num_cpus": options.cores, "resources": options.resources},
        max_ongoing_requests=options.waiting,
        max_queued_requests=-1,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=60,
        **scaling,
    )(Replica)
    return deployment.bind(msgspec.structs.asdict(options))


class Replica:
    """One copy of the model in a process of its own."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from anyshape.faces.asgi import Face
        from anyshape.faces.load import load_answering

        chosen = Options(**options)
        answering = load_answering(Path(chosen.archive), chosen.cores, chosen.name)
        self.face = Face(answering, chosen.max_body, chosen.waiting)

    async def __call__(self, request: Request) -> Response:
        return await self.face.respond(request)

    def check_health(self) -> None:
        """Ray starts the replica again where this raises."""
        if not self.face.engine.alive:
            raise RuntimeError("the thread that runs the model has ended")
