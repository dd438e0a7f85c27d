"""Runs the items of a batch in as few and as cheap calls as the packer finds; errors stay in their places.

    ran = Runner(pack, costs, run_call, touched).run(read)      # one result for each that was read

What already is refused stays so, what fits nowhere is refused, and a call that fails takes only those items
with it that fail alone as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence

from anyshape.buckets import bucket_name, fits
from anyshape.costs import CostTable
from anyshape.errors import InputTooLarge, ModelFailed, Refused
from anyshape.failures import log_failure
from anyshape.items import Item, ItemOrRefused, Output, OutputOrRefused, Parts, Ran, Read, Row
from anyshape.packing import Call, Policy, one_by_one


@dataclass(frozen=True)
class Runner:
    """policy: what splits a batch into calls, by `costs`. run_call: runs one call. touched: the items of a
    call whose outputs a neighbour may have spoilt, by their places in it; they are run again, alone."""

    policy: Policy
    costs: CostTable
    run_call: Callable[[Call, Sequence[Item]], Sequence[Output]]
    touched: Callable[[Sequence[Row], Call], Sequence[int]]

    def run(self, read: Sequence[Read]) -> List[Ran]:
        """What came of each input, in their order. The parts of one come back together, or fail together."""
        items: List[ItemOrRefused] = []
        for one in read:
            items.extend(one.items if isinstance(one, Parts) else [one])
        outputs = iter(self._run_items(items))
        return [
            together([next(outputs) for _ in one.items]) if isinstance(one, Parts) else next(outputs)
            for one in read
        ]

    def _run_items(self, items: Sequence[ItemOrRefused]) -> List[OutputOrRefused]:
        results: Dict[int, OutputOrRefused] = {}
        waiting: List[Item] = []
        places: List[int] = []  # of those that wait, in the batch
        for i, item in enumerate(items):
            if isinstance(item, Refused):
                results[i] = item
            elif fits(item.size, self.costs.buckets, self.costs.unpadded):
                waiting.append(item)
                places.append(i)
            else:
                results[i] = self.too_large(item)
        for call in self.policy([item.size for item in waiting], self.costs):
            outputs = self.run_or_fail(call, [waiting[i] for i in call.items])
            results.update(zip([places[i] for i in call.items], outputs))
        return [results[i] for i in range(len(items))]

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


def together(outputs: List[OutputOrRefused]) -> Ran:
    """The outputs of one input's parts, or the error of the first that has one."""
    done = [output for output in outputs if isinstance(output, Output)]
    return done if len(done) == len(outputs) else next(o for o in outputs if isinstance(o, Refused))
