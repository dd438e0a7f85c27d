"""The clients' tokens: a file of one a line, read again when it changes.

TorchServe's own keys are new at each start and end after an hour. They stay between the front and
TorchServe; what clients hold are these, which last until their line is removed. To change one, add the new
line, hand the new token out, and remove the old line.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from anyshape.errors import ConfigError

HEADER = """\
# Who may ask through the front: one token a line, at least 16 characters, a name behind it if you like.
# sha256:HEX is the SHA-256 of a token, for those who would not have it stand in a file. Changes count within
# a second, without a restart; a line that is removed ends its token.
"""
LEAST = 16
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


class Tokens:
    """The tokens of `path`; made with one token in it, for its owner's eyes alone, where it is missing.

    Raises ConfigError where the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            create(path)
        self._stamp = (0, 0)
        self._names: dict[bytes, str] = {}
        self.several = False  # whether there is more than one client
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be used leaves the tokens as they are."""
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            self._names = read(self.path)
            self.several = len(set(self._names.values())) > 1
            self._stamp = stamp
        except OSError as error:
            raise ConfigError(f"the tokens' file {self.path} cannot be read: {error.strerror}") from None

    def name(self, authorization: str) -> str:
        """The name of the client who holds the token in an Authorization header; "" for nobody.

        What is compared is the SHA-256 of what came, so that the time it takes tells nothing of the tokens.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            token = "" if token else scheme  # llama-index's client sends the bare token
        return self._names.get(hashlib.sha256(token.strip(" \t").encode("latin-1")).digest(), "")


def create(path: Path) -> None:
    """A new file with one random token, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="ascii") as out:
        out.write(f"{HEADER}{secrets.token_urlsafe(32)} first\n")


def first(path: Path) -> str:
    """The first token of the file that is not a hash; "" where there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "sha256:")):
            return line.split()[0]
    return ""


def read(path: Path) -> dict[bytes, str]:
    """{SHA-256 of a token: its client's name}. Raises ConfigError, which names the line."""
    names: dict[bytes, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        token, _, name = line.strip().partition(" ")
        if not token or token.startswith("#"):
            continue
        hashed = _HASH.fullmatch(token)
        if not hashed and len(token) < LEAST:
            raise ConfigError(f"{path}, line {number}: a token has at least {LEAST} characters")
        digest = bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(token.encode()).digest()
        names[digest] = name.strip() or f"line {number}"
    return names
