"""What requests bring: a text, or the bytes of a file. A task of one's own may have a body of its own.

body = Body("a recording", 'send a WAV file as the body, or in JSON as {"inputs": "<base64>"}', ("audio/",))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

# What any bytes may be called; the last is what curl calls a body that it is given no type for.
_ANY = (
    *("multipart/", "application/octet-stream", "binary/octet-stream"),
    "application/x-www-form-urlencoded",
)


@dataclass(frozen=True)
class Body:
    """What a request brings to a task.

    noun: what messages call it. how: how to send it, the end of a message that begins with what was wrong.
    kinds: the content types of its bytes, whole or only how they begin (`audio/`); JSON holds such bytes in
        base64. Without any, an input is a text, or whatever JSON held, for the task to judge.
    values: with kinds, an input that JSON holds as something else than a text, such as a list of numbers,
        goes to the task as it is.
    """

    noun: str
    how: str
    kinds: Tuple[str, ...] = ()
    values: bool = False

    @property
    def is_bytes(self) -> bool:
        return bool(self.kinds)

    def takes(self, kind: str) -> bool:
        """Whether bytes may come under this content type, given in lower case and without parameters."""
        return kind.startswith((*self.kinds, *_ANY))


TEXT = Body("a text", 'send text/plain, or application/json such as "a text" or {"inputs": "a text"}')
IMAGE = Body(
    "a picture",
    'send a picture as the body, as a form field, or in JSON as {"inputs": "<base64>"}',
    kinds=("image/",),
)
AUDIO = Body(
    "a recording",
    'send a WAV or FLAC file as the body, as a form field, or in JSON as {"inputs": "<base64>"} or '
    '{"inputs": {"array": [0.1, -0.2, ...], "sampling_rate": 16000}}',
    kinds=("audio/",),
    values=True,
)
