"""Files that installed packages carry: found without an import, checked before they are read."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path


class WeightsError(Exception):
    """A weights file is missing or is not the expected one. The message says what to install."""


def packaged_file(package: str, path: str, sha256: str, size: int) -> Path:
    """The file `path` inside the installed `package`, with exactly `size` bytes and this sha256.

    Raises WeightsError.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the weights in the package {package} are not installed; run: make weights")
    file = Path(next(iter(spec.submodule_search_locations))) / path
    if not file.is_file() or file.stat().st_size != size:
        raise WeightsError(f"{file} is missing or not {size} bytes long; run: make distclean weights")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != sha256:
        raise WeightsError(f"{file} has sha256 {digest}, not {sha256}; run: make distclean weights")
    return file
