"""Reading the distribution to plan from: {size: count}, a size is (tokens,) or (height, width).

    read_lengths(path, field="pair")    JSON, or a text file with a tokenizer
    read_sizes(path)                    JSON: [[height, width], ...], a count may follow
    read_images(folder)                 every picture below a folder
    read_server(url, model, token)      what a running server has seen

All raise PlanError with what to do next.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from anyshape.buckets import Bucket, Size, parse_bucket, parse_buckets
from anyshape.building.errors import BuildError
from anyshape.building.planning.errors import PlanError
from anyshape.errors import Refused
from anyshape.recipe import MAX_PIXELS

Histogram = Dict[Size, int]
HERE = Path()
TEXTS_AT_ONCE = 1000  # tokenizers work on batches; this bounds the memory for a long file


@dataclass(frozen=True)
class Seen:
    """What a server says of a model: sizes seen, present buckets, the cost table if any, and the time since
    when it counts."""

    histogram: Histogram
    buckets: List[Bucket]
    costs: List[Mapping[str, Any]]
    since: Optional[str] = None


def read_lengths(
    path: Path, field: Optional[str] = None, tokenizer: Optional[str] = None, folder: Path = HERE
) -> Histogram:
    """Token counts out of a file, {(length,): count}.

    JSON: a list of lengths, a list of [length, count], a histogram {"37": 12}, or named lists of
    counts whose index is the length, {"pair": [0, 3, 9]}, of which `field` picks one; a list of
    strings is taken as texts. Anything else is raw text, one input per line, blank lines left out;
    texts are counted with `tokenizer`, special tokens included.
    """
    content = _read_text(path)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        if path.suffix.lower() == ".json":
            raise PlanError(f"{path} is not valid JSON: repair it, or rename it if it is text") from None
        return read_texts(path, tokenizer, folder)
    if isinstance(data, (int, float, str)):  # a text file of one line that happens to be JSON
        return count_tokens([content.strip()], tokenizer, path, folder)
    if isinstance(data, list) and data and all(isinstance(text, str) for text in data):
        return count_tokens(data, tokenizer, path, folder)
    return _lengths_from_json(data, field, str(path))


def read_texts(path: Path, tokenizer: Optional[str], folder: Path = HERE) -> Histogram:
    """Token counts of a text file, one input per line, whatever it looks like; blank lines left out."""
    lines = (line for line in _read_text(path).splitlines() if line.strip())
    return count_tokens(lines, tokenizer, path, folder)


def read_sizes(path: Path, width_first: bool = False) -> Histogram:
    """{(height, width): count} out of a JSON list of [height, width] or [height, width, count].

    With `width_first` the list says [width, height], as COCO's annotations do.
    """
    data = _read_json(path)
    if not isinstance(data, list):
        raise PlanError(f"{path}: a list of [height, width] or [height, width, count] is wanted")
    histogram: Counter[Size] = Counter()
    for entry in data:
        if not isinstance(entry, list) or len(entry) not in (2, 3) or not _whole(entry):
            raise PlanError(
                f"{path}: each entry is [height, width] or [height, width, count], whole and "
                f"positive, not {entry!r}"
            )
        height, width = reversed(entry[:2]) if width_first else entry[:2]
        histogram[(height, width)] += entry[2] if len(entry) == 3 else 1
    return _filled(histogram, str(path))


def read_images(folder: Path) -> Tuple[Histogram, int]:
    """{(height, width): count} of every picture below `folder`, and how many files were left out.

    Headers are read as the server reads them and no pixel is decoded; sizes are upright, as people see them.
    Left out is what the server refuses by default: no picture of a known format, or too many pixels.
    """
    from anyshape.images import open_picture  # Pillow is heavy, and only this input needs it

    if not folder.is_dir():
        raise PlanError(f"{folder} is not a folder: --images takes a folder of pictures")
    histogram: Counter[Size] = Counter()
    others = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            picture = open_picture(path.read_bytes(), MAX_PIXELS)
        except (OSError, Refused):
            others += 1
            continue
        histogram[picture.size] += 1
        picture.file.close()
    if not histogram:
        raise PlanError(f"{folder} holds no picture that the server would read")
    return dict(histogram), others


def read_server(url: str, model: str, token: Optional[str]) -> Seen:
    """Ask a running server's management API what `model` has seen; `url` is that API's address."""
    address = f"{url.rstrip('/')}/models/{model}"
    try:
        request = urllib.request.Request(f"{address}?customized=true")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code in (400, 401, 403):
            raise PlanError(
                f"{address} refuses the token (HTTP {error.code}): pass the management key "
                "with --token-file run/key_file.json or --token"
            ) from error
        raise PlanError(
            f"{address} answers HTTP {error.code}: check --model against the server's models"
        ) from error
    except json.JSONDecodeError as error:
        raise PlanError(f"{address} answers something else than JSON: is it TorchServe's?") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address at all
        raise PlanError(
            f"no answer from {address} ({error}): is the server running, and is this its "
            "management address (port 8081 unless configured otherwise)?"
        ) from error
    try:
        return traffic_from_describe(answer)
    except ValueError as error:
        raise PlanError(f"{address}: {error}") from error


def traffic_from_describe(answer: Any, empty: bool = False) -> Seen:
    """Read `GET /models/NAME?customized=true`. Raises PlanError if it holds no traffic, unless `empty`."""
    entry = answer[0] if isinstance(answer, list) and answer else answer
    metadata = entry.get("customizedMetadata") if isinstance(entry, dict) else None
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            metadata = None
    if not isinstance(metadata, dict) or not {"buckets", "seen"} <= set(metadata):
        raise PlanError("the model does not say what it has seen: is it a bucketed archive, and READY?")
    histogram: Counter[Size] = Counter()
    try:
        for size, count in metadata["seen"]:
            histogram[parse_bucket(size)] += int(count)
        buckets, costs = parse_buckets(metadata["buckets"]), list(metadata.get("costs") or [])
    except (TypeError, ValueError) as error:
        raise PlanError(f"what the model says of its traffic is not readable: {error}") from error
    if not histogram and not empty:
        raise PlanError("the model has seen no traffic yet: send requests, then plan")
    return Seen(dict(histogram), buckets, costs, metadata.get("seen_since"))


def read_since(path: Path, traffic: Seen) -> Seen:
    """`traffic` without what was seen before `path` was saved: an earlier answer of the same server.

    Raises PlanError if the server began to count anew after it.
    """
    try:
        before = traffic_from_describe(_read_json(path), empty=True)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    left = {size: count - before.histogram.get(size, 0) for size, count in traffic.histogram.items()}
    lost = before.histogram.keys() - left.keys() or any(count < 0 for count in left.values())
    if lost or before.since != traffic.since:
        raise PlanError(
            f"the server counts anew since {traffic.since}, after {path} was saved: plan without --since"
        )
    histogram = {size: count for size, count in left.items() if count}
    if not histogram:
        raise PlanError(f"the model has seen nothing since {path} was saved: send requests, then plan")
    return replace(traffic, histogram=histogram)


def read_table(path: Path) -> List[Mapping[str, Any]]:
    """A JSON list of measured costs; MeasuredCost checks its rows."""
    table = _read_json(path)
    if not isinstance(table, list) or not table:
        raise PlanError(f"{path} holds no cost table: a list, or an archive that was measured")
    return table


def read_token(key_file: Path) -> str:
    """The management token out of the key file that TorchServe writes."""
    try:
        return str(_read_json(key_file)["management"]["key"])
    except (KeyError, TypeError) as error:
        raise PlanError(f'{key_file} holds no {{"management": {{"key": ...}}}}') from error


def read_plan_file(
    path: Path,
    field: Optional[str] = None,
    width_first: bool = False,
    tokenizer: Optional[str] = None,
    folder: Path = HERE,
) -> Histogram:
    """A recipe's `plan:` entry: a folder of pictures, a list of sizes, or lengths in any form.

    `folder` is the recipe's: a tokenizer's folder may be relative to it, or to here.
    """
    if path.is_dir():
        return read_images(path)[0]
    if path.suffix.lower() == ".json":
        data = _read_json(path)
        if isinstance(data, list) and data and all(isinstance(entry, list) for entry in data):
            return read_sizes(path, width_first)
    return read_lengths(path, field, tokenizer, folder)


def count_tokens(
    texts: Iterable[str], tokenizer: Optional[str], path: Path, folder: Path = HERE
) -> Histogram:
    """Token counts of `texts`, special tokens included, as the server will count them."""
    if tokenizer is None:
        raise PlanError(
            f"{path} holds texts: say what counts their tokens, with --tokenizer or, in a recipe, "
            "`tokenizer:` beside `plan:`"
        )
    count = _load_tokenizer(tokenizer, folder)
    histogram: Counter[Size] = Counter()
    batch: List[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == TEXTS_AT_ONCE:
            histogram.update((length,) for length in count(batch))
            batch = []
    if batch:
        histogram.update((length,) for length in count(batch))
    return _filled(histogram, str(path))


def _load_tokenizer(name: str, folder: Path) -> Callable[[List[str]], List[int]]:
    """A hub id, a folder, or `package:<import name>/<folder>`, found where a recipe in `folder` finds it."""
    from transformers.utils import logging

    from anyshape.building.source import Source  # torch, which only texts need

    # Lengths beyond the model's limit are what a plan has to know; the warning about them is not.
    logging.set_verbosity_error()
    try:
        tokenizer = Source(name, name, folder).tokenizer()
    except BuildError as error:
        reason = str(error).partition(": ")[2]  # after the recipe's key, which nobody wrote here
        raise PlanError(f"no tokenizer at {name}: {reason}") from error

    def count(texts: List[str]) -> List[int]:
        return [len(ids) for ids in tokenizer(texts, truncation=False)["input_ids"]]

    return count


def _lengths_from_json(data: Any, field: Optional[str], where: str) -> Histogram:
    histogram: Counter[Size] = Counter()
    if isinstance(data, dict) and (field is not None or _named(data)):
        if field is None and len(data) > 1:
            raise PlanError(f"{where} holds {', '.join(data)}: pick one with --field")
        name = field if field is not None else next(iter(data), None)
        if name not in data:
            raise PlanError(f"{where} has no field {name!r}; it has {', '.join(map(str, data))}")
        chosen = data[name]
        if isinstance(chosen, list) and _whole(chosen, least=0):
            data = {str(length): count for length, count in enumerate(chosen) if count}
        else:
            data = chosen
    if isinstance(data, dict):
        for length, count in data.items():
            if not str(length).isdecimal() or not _whole([count], least=0):
                raise PlanError(f'{where}: a histogram reads {{"37": 12}}, not {{{length!r}: {count!r}}}')
            histogram[(int(length),)] += count
    elif isinstance(data, list) and _whole(data):
        histogram.update((length,) for length in data)
    elif isinstance(data, list) and all(
        isinstance(pair, list) and len(pair) == 2 and _whole(pair) for pair in data
    ):
        for length, count in data:
            histogram[(length,)] += count
    else:
        raise PlanError(
            f'{where}: lengths are a list [37, 120], a histogram {{"37": 12}} or named counts '
            '{"pair": [0, 3, 9]}, whole and positive'
        )
    if any(size[0] < 1 and count for size, count in histogram.items()):
        raise PlanError(f"{where}: a length is at least 1; leave out the items without tokens")
    return _filled(histogram, where)


def _named(data: Mapping[str, Any]) -> bool:
    return any(isinstance(value, (list, dict)) for value in data.values())


def _whole(values: Iterable[Any], least: int = 1) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in values)


def _filled(histogram: Mapping[Size, int], where: str) -> Histogram:
    kept = {size: count for size, count in histogram.items() if count}
    if not kept:
        raise PlanError(f"{where} holds no items to plan from")
    return kept


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is neither JSON nor UTF-8 text") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except PlanError:
        raise
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is not valid JSON: {error}") from error
