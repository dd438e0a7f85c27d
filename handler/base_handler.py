"""TorchServe's BaseHandler, without the OpenVINO that it imports where it finds one.

It does so for torch.compile, which nothing here uses; every worker, of whatever backend, would start seconds
later. What backend is served imports its own packages by itself.
"""

from __future__ import annotations

import sys
from typing import Any, Dict

_modules: Dict[str, Any] = sys.modules
_before = _modules.get("openvino")
_modules["openvino"] = None  # an import of it raises ImportError, which TorchServe expects
try:
    from ts.torch_handler.base_handler import BaseHandler
finally:
    del _modules["openvino"]
    if _before is not None:
        _modules["openvino"] = _before

__all__ = ["BaseHandler"]
