"""The errors that a client sees, each tied to its HTTP status.

    Refused
    ├── BadRequest              400  the body cannot be read
    ├── NotFound                404  nothing is at the path
    ├── NotAcceptable           406  no answer of the kind that was asked for
    ├── InputTooLarge           413  larger than the largest bucket, or than a limit of the recipe
    ├── UnsupportedMediaType    415  the wrong kind of body
    ├── UnprocessableInput      422  readable, but wrong
    ├── ModelFailed             500  the compiled model itself failed; its neighbours in other calls did not
    └── Unavailable             503  too many requests wait already; TorchServe's frontend says so itself

    ConfigError                      a recipe, an archive or a setting is wrong; never sent to a client
    ├── BuildError                   … an archive cannot be built (building/errors.py)
    ├── PlanError                    … buckets cannot be planned (building/planning/errors.py)
    └── ServeError                   … the server cannot start, or has stopped (server/checks.py)

An error belongs to the one request that caused it: it is carried as a value to that request's place in the
batch, because TorchServe answers whatever escapes from the handler to *every* request of the batch.
"""

from __future__ import annotations

from typing import Any, Dict


class Refused(Exception):
    """A refusal of one request. `code` is the HTTP status, `phrase` its fixed ASCII reason."""

    code = 500
    phrase = "Internal Server Error"

    def body(self) -> Dict[str, Any]:
        """The JSON body; it repeats the code because gRPC loses the status."""
        return {"code": self.code, "type": type(self).__name__, "message": str(self)}


class BadRequest(Refused):
    code, phrase = 400, "Bad Request"


class NotFound(Refused):
    code, phrase = 404, "Not Found"


class NotAcceptable(Refused):
    code, phrase = 406, "Not Acceptable"


class InputTooLarge(Refused):
    code, phrase = 413, "Request Entity Too Large"


class UnsupportedMediaType(Refused):
    code, phrase = 415, "Unsupported Media Type"


class UnprocessableInput(Refused):
    code, phrase = 422, "Unprocessable Entity"


class ModelFailed(Refused):
    code, phrase = 500, "Internal Server Error"


class Unavailable(Refused):
    code, phrase = 503, "Service Unavailable"


class ConfigError(Exception):
    """A recipe or an archive that cannot be used. The message names the key or file and the remedy."""
