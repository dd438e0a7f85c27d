"""Reading the distribution to plan from: {size: count}, a size is (tokens,) or (height, width).

    read_lengths(path, field="pair")    JSON, or a text file with a tokenizer
    read_sizes(path)                    JSON: [[height, width], ...], a count may follow
    read_images(folder)                 every picture below a folder
    read_plan_file(path)                whatever of these a recipe's `plan:` names

All raise PlanError with what to do next.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

import msgspec
from msgspec import Meta

from anyshape.buckets import Size
from anyshape.building.errors import BuildError
from anyshape.building.planning.errors import PlanError
from anyshape.costs import CostRow
from anyshape.errors import Refused
from anyshape.recipe import MAX_PIXELS

Histogram = Dict[Size, int]
HERE = Path()
Side = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
# The forms in which JSON may hold lengths, each with how many items of each length that is.
FORMS: List[Tuple[Any, Callable[[Any], Dict[int, int]]]] = [
    (List[Side], Counter),
    (List[Tuple[Side, Side]], lambda pairs: sum((Counter({n: count}) for n, count in pairs), Counter())),
    (Dict[Count, Count], dict),
]
Sizes = List[Annotated[List[Side], Meta(min_length=2, max_length=3)]]
TEXTS_AT_ONCE = 1000  # tokenizers work on batches; this bounds the memory for a long file


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
    try:
        entries = msgspec.convert(_read_json(path), Sizes)
    except msgspec.ValidationError as error:
        raise PlanError(
            f"{path}: a list of [height, width] or [height, width, count], whole and positive, is wanted: "
            f"{error}"
        ) from None
    histogram: Counter[Size] = Counter()
    for entry in entries:
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


def read_table(path: Path) -> List[CostRow]:
    """A JSON list of measured costs: seconds of one call, by bucket and batch size."""
    try:
        table = msgspec.convert(_read_json(path), List[CostRow])
    except msgspec.ValidationError as error:
        raise PlanError(
            f"{path} is no cost table ({error}): each row reads "
            '{"bucket": [128], "batch_size": 1, "seconds": 0.01}'
        ) from None
    if not table:
        raise PlanError(f"{path} holds no cost table: a list, or an archive that was measured")
    return table


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


def _lengths_from_json(data: object, field: Optional[str], where: str) -> Histogram:
    if isinstance(data, dict) and (field or any(isinstance(value, (list, dict)) for value in data.values())):
        data = _chosen(data, field, where)
    for form, count in FORMS:
        try:
            histogram = count(msgspec.convert(data, form, str_keys=True))
        except msgspec.ValidationError:
            continue
        if any(length < 1 and items for length, items in histogram.items()):
            raise PlanError(f"{where}: a length is at least 1; leave out the items without tokens")
        return _filled({(length,): items for length, items in histogram.items()}, where)
    raise PlanError(
        f'{where}: lengths are a list [37, 120], pairs [[37, 12]], a histogram {{"37": 12}} or named counts '
        '{"pair": [0, 3, 9]}, whole and positive'
    )


def _chosen(data: Mapping[str, object], field: Optional[str], where: str) -> object:
    """One of several named histograms; a list of counts, whose index is the length, becomes a mapping."""
    if field is None and len(data) > 1:
        raise PlanError(f"{where} holds {', '.join(data)}: pick one with --field")
    name = next(iter(data)) if field is None else field
    if name not in data:
        raise PlanError(f"{where} has no field {name!r}; it has {', '.join(map(str, data))}")
    try:
        return {str(length): count for length, count in enumerate(msgspec.convert(data[name], List[Count]))}
    except msgspec.ValidationError:
        return data[name]


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
