"""Runs the items of a batch in as few and as cheap calls as the packer finds; errors stay in their places.

    ran = Runner(pack, costs, run_call, touched).run(read)      # one result for each that was read

What already is refused stays so, what fits nowhere is refused, and a call that fails takes only those items
with it that fail alone as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional, Sequence

from anyshape.buckets import bucket_name
from anyshape.costs import CostTable
from anyshape.errors import InputTooLarge, ModelFailed, Refused
from anyshape.failures import log_failure
from anyshape.items import Item, ItemOrRefused, Output, OutputOrRefused, Parts, Ran, Read, Row
from anyshape.packing import Call, Policy, one_by_one

# Told when a call has ended and others are left: what came of each input, None where it has not all run, and
# the seconds that the calls that are left cost.
Ended = Callable[[Sequence[Optional[Ran]], float], None]


@dataclass(frozen=True)
class Runner:
    """policy: what splits a batch into calls, by `costs`. run_call: runs one call. touched: the items of a
    call whose outputs a neighbour may have spoilt, by their places in it; they are run again, alone."""

    policy: Policy
    costs: CostTable
    run_call: Callable[[Call, Sequence[Item]], Sequence[Output]]
    touched: Callable[[Sequence[Row], Call], Sequence[int]]

    def run(self, read: Sequence[Read], ended: Optional[Ended] = None) -> List[Ran]:
        """What came of each input, in their order. The parts of one come back together, or fail together.

        ended: who is told after each call; the calls that answer soonest then come first.
        """
        items: List[ItemOrRefused] = []
        for one in read:
            items.extend(one.items if isinstance(one, Parts) else [one])
        outputs: List[Optional[OutputOrRefused]] = [None] * len(items)
        for left in self._run_items(items, outputs, ended is not None):
            if ended is not None and left:
                ended(gathered(read, outputs), left)
        return [ran for ran in gathered(read, outputs) if ran is not None]  # all have run

    def _run_items(
        self, items: Sequence[ItemOrRefused], outputs: List[Optional[OutputOrRefused]], soonest: bool
    ) -> Iterator[float]:
        """Fill in the outputs, call by call; after each the seconds that the calls that are left cost.

        soonest: the calls that cost least for each of their items come first.
        """
        waiting: List[Item] = []
        places: List[int] = []  # of those that wait, in the batch
        for i, item in enumerate(items):
            if isinstance(item, Refused):
                outputs[i] = item
            elif self.costs.takes(item.size):
                waiting.append(item)
                places.append(i)
            else:
                outputs[i] = self.too_large(item)
        calls = self.policy([item.size for item in waiting], self.costs)
        if soonest:
            calls = sorted(calls, key=lambda call: self._seconds(call) / len(call.items))
        for number, call in enumerate(calls):
            done = self.run_or_fail(call, [waiting[i] for i in call.items])
            for i, output in zip(call.items, done):
                outputs[places[i]] = output
            yield sum(map(self._seconds, calls[number + 1 :])) if soonest else 0.0

    def _seconds(self, call: Call) -> float:
        return self.costs.cost(call.bucket, call.batch_size)

    def run_or_fail(self, call: Call, items: Sequence[Item]) -> Sequence[OutputOrRefused]:
        """The outputs of one call. If it fails, those of each item alone, a ModelFailed for a bad one."""
        try:
            done = self.run_call(call, items)
        except Exception as error:
            name = bucket_name(call.bucket)
            # A call has numbers alone, so that what it says holds no client's words.
            said = " ".join(str(error).split())[-300:]
            log_failure(f"a call of bucket {name} with {call.batch_size} rows failed ({said})", error)
            if len(items) == 1:
                return [ModelFailed(f"the model failed in bucket {name}; the server's log says why")]
            return [self._alone(item) for item in items]
        outputs: List[OutputOrRefused] = list(done)
        for i in self.touched([output.row for output in done], call):
            outputs[i] = self._alone(items[i])
        return outputs

    def _alone(self, item: Item) -> OutputOrRefused:
        (call,) = one_by_one([item.size], self.costs)
        (output,) = self.run_or_fail(call, [item])
        return output

    def too_large(self, item: Item) -> InputTooLarge:
        """The error of an item that no bucket contains."""
        return InputTooLarge(
            f"an input of size {bucket_name(item.size)} fits none of the buckets "
            f"{', '.join(map(bucket_name, self.costs.buckets))}"
        )


def gathered(read: Sequence[Read], outputs: Sequence[Optional[OutputOrRefused]]) -> List[Optional[Ran]]:
    """What came of each input, from the outputs of all items in a row; None where one has not run."""
    rest = iter(outputs)
    ran: List[Optional[Ran]] = []
    for one in read:
        if isinstance(one, Parts):
            parts = [next(rest) for _ in one.items]
            done = [part for part in parts if part is not None]
            ran.append(together(done) if len(done) == len(parts) else None)
        else:
            ran.append(next(rest))
    return ran


def together(outputs: List[OutputOrRefused]) -> Ran:
    """The outputs of one input's parts, or the error of the first that has one."""
    done = [output for output in outputs if isinstance(output, Output)]
    return done if len(done) == len(outputs) else next(o for o in outputs if isinstance(o, Refused))
