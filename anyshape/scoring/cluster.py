"""Runs a job on a Ray cluster: Ray Data gives the chunks to actors, and theirs to others where one dies.

A chunk's part has one name and appears whole or not at all, so a chunk that is given out twice is there once.
The archive, the files and the output folder must be on a disk that every node sees at the same path.
"""

from __future__ import annotations

import logging
import socket
from typing import Any, Dict, Iterator, List, Optional, Tuple

import msgspec
import numpy as np

from anyshape.errors import ConfigError
from anyshape.scoring.chunks import Chunk
from anyshape.scoring.job import Job

QUIET: Dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
STARTS = 3


class Actor:
    """A scorer in a process of Ray's, with the cores or the accelerator that Ray gave it."""

    def __init__(self, job: bytes, cores: int) -> None:
        from anyshape.scoring.scorer import Scorer

        self.scorer = Scorer(msgspec.json.decode(job, type=Job), cores)

    def __call__(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        done = [self.scorer.write(msgspec.json.decode(chunk, type=Chunk)) for chunk in batch["chunk"]]
        return {"rows": np.array([rows for rows, _ in done]), "errors": np.array([bad for _, bad in done])}


def score_on_cluster(
    job: Job,
    chunks: List[Chunk],
    address: Optional[str] = None,
    actors: int = 1,
    cores: int = 1,
    resources: Optional[Dict[str, float]] = None,
) -> Iterator[Tuple[int, int]]:
    """Write the part of each chunk; after each, how many rows it has and how many of them are errors.

    address: the cluster's; None starts Ray on this machine. actors: how many score, each with `cores` cores
    and what `resources` says, such as ``{"neuron_cores": 1}``.
    Raises ConfigError if no cluster answers, or if it lacks what one actor asks for.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    started = not ray.is_initialized()
    if started and address is None:  # as many cores as the actors ask for: Ray would count the machine's
        start_ray(actors * cores)
    elif started:
        _connect(str(address))
    try:
        there: Any = ray.cluster_resources()
        _check_room(there, {"CPU": cores, **(resources or {})})
        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [{"chunk": msgspec.json.encode(chunk)} for chunk in chunks]
        parts = ray.data.from_items(rows, override_num_blocks=len(rows))
        scored = parts.map_batches(
            Actor,
            fn_constructor_args=(msgspec.json.encode(job), cores),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(actors, len(chunks))),
            num_cpus=cores,
            resources=resources or None,
        )
        for row in scored.iter_rows():
            yield int(row["rows"]), int(row["errors"])
    except RayError as error:
        raise ConfigError(f"the job failed, and can be run again: {_last_line(error)}") from None
    finally:
        if started:
            ray.shutdown()


def start_ray(cores: int, **options: Any) -> None:
    """Start Ray on this machine, with so many cores and no dashboard. `options`: more of `ray.init`.

    Ray gives its processes half a minute, which no setting prolongs; a busy machine needs more at first,
    until it has read their files once. Raises ConfigError if the third try fails as well.
    """
    import ray

    options = {"include_dashboard": False, **QUIET, **options}
    for left in reversed(range(STARTS)):
        try:
            ray.init(num_cpus=cores, **options)
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if not left:
                raise ConfigError(f"Ray does not start here: {_last_line(error)}") from None


def _connect(address: str) -> None:
    import ray

    try:
        host, _, port = address.rpartition(":")
        if host and "/" not in host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), 5).close()
        ray.init(address=address, **QUIET)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {_last_line(error)}") from None


def _last_line(error: Exception) -> str:
    """What a traceback that came from another process ends with."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _check_room(there: Dict[str, float], asked: Dict[str, float]) -> None:
    """Ray waits for what may yet come; a resource that no node has is more often a mistake."""
    for name, amount in asked.items():
        if there.get(name, 0) < amount:
            raise ConfigError(
                f"an actor asks for {amount:g} {name}, and the cluster has {there.get(name, 0):g}"
            )
