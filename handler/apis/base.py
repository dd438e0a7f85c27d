"""What an API does: a body into a Request, answers and errors into bodies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Optional, Sequence, Type, TypeVar

import msgspec

from anyshape.errors import NotFound, Refused, UnprocessableInput
from anyshape.items import Answer, Input, Json, Parts, Read, items_of
from anyshape.tasks.base import TO_CUT

if TYPE_CHECKING:
    from anyshape.model import BucketedModel

Body = TypeVar("Body")


@dataclass
class Served:
    """The model that answers, the name that TorchServe serves it by, and how many requests wait at most."""

    name: str
    model: BucketedModel
    queue: int = 100  # TorchServe's own default


class Api:
    """How one request is answered: this project's own contract, and what the others change of it."""

    bodyless: ClassVar[bool] = False  # asked without a body, as by GET
    uncounted: ClassVar[int] = 0  # inputs that do not count for the limit on them

    def place(self, i: int) -> str:
        """What the body called the i-th input, for messages."""
        return f"inputs[{i}]"

    def answer(self, answers: List[Answer], request: Request, read: Sequence[Read]) -> Answer:
        """The body for the task's answers, one for each input; may hold numpy arrays.

        `read` is what the inputs became, none of them refused.
        """
        return answers if request.many else answers[0]

    def error(self, error: Refused) -> Json:
        """The body for a refusal; its status is the error's own in every API."""
        return error.body()


OWN = Api()


@dataclass
class Request:
    """What one request asks for.

    many: it sent a list and gets a list back. raw: it gets numbers as bytes, not as JSON. api: who words the
    answer. refused: the error that it deserves; then it has no inputs.
    """

    inputs: Sequence[Input]
    many: bool = False
    parameters: Dict[str, Any] = field(default_factory=dict)
    api: Api = field(default=OWN, compare=False)
    refused: Optional[Refused] = None
    raw: bool = False


class OtherApi(Api):
    """Somebody else's API: one object for one request, so that it may keep what the answer needs.

    how: what to send, for messages. to_cut: how a request says there that a text may be cut.
    """

    how: ClassVar[str] = ""
    to_cut: ClassVar[str] = ""

    def __init__(self, served: Served) -> None:
        self.served = served

    def read(self, body: Json) -> Request:
        """A decoded body as a request; its parameters are the task's, and not checked yet.

        Raises UnprocessableInput, which names the field.
        """
        raise NotImplementedError

    def message(self, error: Refused) -> str:
        """What a refusal says, in this API's words."""
        return str(error).replace(TO_CUT, self.to_cut)

    def convert(self, body: Json, kind: Type[Body]) -> Body:
        """A decoded body as the struct `kind`. Raises WrongField."""
        try:
            return msgspec.convert(body, kind)
        except msgspec.ValidationError as error:
            said, _, place = str(error)[:300].partition(" - at `$")
            where = place.strip("`.")
            what = said[:1].lower() + said[1:]
            raise WrongField(where, f"{where}: {what}" if where else f"{what}: {self.how}") from None

    def texts(self, value: Json, field: str) -> List[str]:
        """A text, or a list of them, as a list. Raises WrongField, also for token ids."""
        values = value if isinstance(value, list) else [value]
        for i, each in enumerate(values):
            if isinstance(each, str):
                continue
            if isinstance(each, int) or (isinstance(each, list) and all(isinstance(t, int) for t in each)):
                raise WrongField(field, self.no_ids(field))
            place = f"{field}[{i}]" if isinstance(value, list) else field
            raise WrongField(field, f"{place} is not a text: {self.how}")
        return list(values)

    def no_ids(self, field: str) -> str:
        """Why token ids are refused: nothing tells whose tokenizer made them."""
        return f"{field} holds token ids, which may be another tokenizer's: send texts"


class Absent(OtherApi):
    """A path that the model's task does not have: whatever comes is refused, in the words of `words`."""

    bodyless = True

    def __init__(self, served: Served, says: str, words: Api) -> None:
        super().__init__(served)
        self.says, self.words = says, words

    def read(self, body: Any) -> Request:
        raise NotFound(self.says)

    def error(self, error: Refused) -> Any:
        return self.words.error(error)


class WrongField(UnprocessableInput):
    """A field of a body that cannot be what it is. `param` is the field's name, where one is known."""

    def __init__(self, field: str, says: str) -> None:
        super().__init__(says)
        self.param: Optional[str] = re.split(r"[.\[]", field)[0] or None


def tokens_of(read: Sequence[Read]) -> int:
    """The tokens of all inputs, special ones too; those that several windows of a text have count once."""
    wholes: List[Read] = [
        one.origin["whole"] if isinstance(one, Parts) and one.windows else one for one in read
    ]
    return sum(int(item.size[0]) for item in items_of(wholes))


def given(**parameters: Any) -> Dict[str, Any]:
    """The parameters that a request set: those that are not None."""
    return {key: value for key, value in parameters.items() if value is not None}
