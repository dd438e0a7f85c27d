"""What a CPU can do, as far as compiled code depends on it."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import List

# Instruction sets that a compiler may use on its own when told -march=native; arm64 lists all it has.
VECTOR_FLAGS = re.compile(
    r"(sse|ssse|avx|fma|f16c|bmi|abm|popcnt|movbe|amx|gfni|vaes|vpclmul|as|sve|neon|i8mm)\w*"
)


def cpu_flags() -> List[str]:
    """The instruction sets of this machine's CPU that compiled code may need, sorted."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return [platform.processor() or platform.machine()]
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = found.group(1).split() if found else []
    return sorted(word for word in words if VECTOR_FLAGS.fullmatch(word))
