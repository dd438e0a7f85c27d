"""Which archives may be served: an archive is code, and runs as the server's user.

A list of SHA-256 sums, as sha256sum writes it, names the very files; OpenSSH's signatures name who made them.
Either is kept outside the store, where who may write archives cannot write it.

    sha256sum model_store/minilm.mar > /etc/anyshape/sums
    ssh-keygen -Y sign -n anyshape -f ~/.ssh/id_ed25519 model_store/minilm.mar     # writes minilm.mar.sig
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from anyshape.server.checks import ServeError

NAMESPACE = "anyshape"  # so that what was signed for another purpose is no signature here
FILE = "trust.json"  # in a server's run folder: what it was told to ask of archives


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class Trust:
    """What an archive must show before it is registered. sums, signers: files; None asks for nothing.

    `signers` is what ssh-keygen calls an allowed signers file: `WHO ssh-ed25519 AAAA…` a line.
    """

    sums: Optional[Path] = None
    signers: Optional[Path] = None

    @classmethod
    def of_server(cls, run: Path) -> Trust:
        """What the server of a run folder asks of archives. Raises ServeError where it cannot be read."""
        path = run / FILE
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(Path(written[key]) if written[key] else None for key in ("sums", "signers")))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServeError(f"what the server asks of archives cannot be read in {path}: {error}") from None

    def save(self, run: Path) -> None:
        """Write it to a server's run folder, where who registers an archive later finds it."""
        path, temporary = run / FILE, run / f"{FILE}.part"
        if not self:
            path.unlink(missing_ok=True)
            return
        files = {"sums": self.sums, "signers": self.signers}
        said = {key: str(file.resolve()) if file else None for key, file in files.items()}
        temporary.write_text(json.dumps(said), encoding="utf-8")
        os.replace(temporary, path)

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return self.sums is not None or self.signers is not None

    def check(self, archive: Path, names: Sequence[str] = ()) -> None:
        """Raises ServeError where the archive is not what it should be, or not from whom.

        names: those that the list of sums may know it by; its file's own by default.
        """
        if self.sums is not None:
            self._check_sum(archive, self.sums, names or [archive.name])
        if self.signers is not None:
            self._check_signature(archive, self.signers)

    def _check_sum(self, archive: Path, sums: Path, names: Sequence[str]) -> None:
        try:
            lines = sums.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ServeError(f"the list of sums {sums} cannot be read: {error.strerror}") from None
        named = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
        expected = {pair[0].lower() for pair in named if Path(pair[-1].lstrip("*")).name in names}
        if not expected:
            raise ServeError(f"{sums} does not name {' or '.join(dict.fromkeys(names))}: it is not served")
        found = sha256_of(archive)
        if found not in expected:
            raise ServeError(
                f"{archive} has the sha256 {found}, which is not what {sums} says: it is not served"
            )

    def _check_signature(self, archive: Path, signers: Path) -> None:
        tool, signature = _tool(), signature_of(archive)
        for path, what in ((signers, "the allowed signers"), (signature, "the signature")):
            if not path.is_file():
                raise ServeError(f"{what} {path} is missing: {archive.name} is not served")
        found = subprocess.run(
            [tool, "-Y", "find-principals", "-s", signature, "-f", signers],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        who = found.stdout.split("\n")[0].strip()
        if found.returncode or not who:
            raise ServeError(f"{signature} is of nobody whom {signers} names: {archive.name} is not served")
        with archive.open("rb") as file:
            command = [
                tool,
                "-Y",
                "verify",
                "-f",
                str(signers),
                "-I",
                who,
                "-n",
                NAMESPACE,
                "-s",
                str(signature),
            ]
            verified = subprocess.run(command, stdin=file, capture_output=True, check=False)
        if verified.returncode:
            raise ServeError(f"{signature} is not {who}'s of this {archive.name}: it is not served")


def signature_of(archive: Path) -> Path:
    """Where an archive's signature lies: beside it."""
    return archive.with_name(f"{archive.name}.sig")


def sign(archive: Path, key: Path) -> None:
    """Write an archive's signature beside it. Raises ServeError."""
    signature_of(archive).unlink(missing_ok=True)  # it would ask whether to overwrite it
    command = [_tool(), "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(archive)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ServeError(f"{archive.name} cannot be signed with {key}: {' '.join(done.stderr.split())}")


def _tool() -> str:
    tool = shutil.which("ssh-keygen")
    if tool is None:
        raise ServeError("signatures are ssh-keygen's, which was not found: install openssh-client")
    return tool
