"""What TorchServe hands to a handler, as far as it is used here."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Sequence


class Metrics(Protocol):
    """TorchServe's metrics of one model."""

    def get_metric(self, metric_name: str, metric_type: Any) -> Any: ...


class Context(Protocol):
    """The context of a worker (in `initialize`) and of a batch (in `handle`)."""

    model_name: str
    manifest: Optional[Dict[str, Any]]
    system_properties: Mapping[str, Any]
    model_yaml_config: Optional[Dict[str, Any]]
    metrics: Metrics
    request_ids: Dict[int, str]  # of a batch: what its answers are sent by
    request_processor: Sequence[Any]  # of a batch: its requests' headers, and those of the answers
    stopping_criteria: Optional[Sequence[Callable[[Any], Optional[bool]]]]
    cl_socket: Any  # to the frontend

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]: ...
    def set_response_status(self, code: int, phrase: str, idx: int) -> None: ...
    def set_response_content_type(self, idx: int, value: str) -> None: ...
    def set_response_header(self, idx: int, key: str, value: str) -> None: ...


def url_path(context: Context, i: int) -> Optional[str]:
    """What stands behind the version in a prediction's URL, "" for nothing; None if it came along another.

    The frontend writes it under this very name, over what a client may have sent so.
    """
    return context.get_all_request_header(i).get("url_path")


def header(context: Context, i: int, name: str) -> Optional[str]:
    """A request's header. The frontend passes names on as the client wrote them: many write lower case."""
    return headers(context, i).get(name)


def headers(context: Context, i: int) -> Dict[str, str]:
    """All headers of a request, by their names in lower case."""
    return {
        key.lower(): value
        for key, value in context.get_all_request_header(i).items()
        if isinstance(value, str)
    }
