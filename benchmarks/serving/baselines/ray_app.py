"""Ray Serve with an archive: `python ray_app.py SETTINGS.json`.

Settings: archive, name, port, replicas, cores (of each), waiting (requests that may wait for a replica).
Writes the file `ready` beside the settings once every replica is.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ray import serve

from anyshape.ray import app
from anyshape.scoring.cluster import start_ray


def main() -> None:
    path = Path(sys.argv[1])
    settings = json.loads(path.read_text())
    port = settings.pop("port")
    start_ray(settings["replicas"] * settings["cores"], object_store_memory=80 * 1024 * 1024)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app(settings))
    path.with_name("ready").touch()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
