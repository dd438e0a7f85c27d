"""Other faces than TorchServe's for the same archive: what they share.

TorchServe's workers import `handler` out of the archive. Elsewhere it is the folder beside this package in a
checkout, or inside of it where that is installed; importing this package makes `handler` importable there.
"""

from __future__ import annotations

import importlib.util
import sys

from anyshape.building.pack import handler_folder


def _provide_handler() -> None:
    """Make `import handler` find this project's folder of that name."""
    if "handler" in sys.modules:
        return
    folder = handler_folder()
    spec = importlib.util.spec_from_file_location(
        "handler", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)


_provide_handler()
