"""Planning buckets from data: which buckets waste least on the sizes that really come.

histogram = {(37,): 12, (120,): 3}                   # {size: how many items}
plan = make_plan(histogram, count=4)
plan.buckets, plan.waste                             # [(37,), (120,)], 1.0
"""

from builder.planning.errors import PlanError
from builder.planning.plan import (
    PlanResult,
    knee,
    make_plan,
    memory_bucket_limit,
    neuron_bucket_limit,
    plan_buckets,
    plan_lengths,
    plan_sizes,
    plan_waste,
)

__all__ = [
    "PlanError",
    "PlanResult",
    "knee",
    "make_plan",
    "memory_bucket_limit",
    "neuron_bucket_limit",
    "plan_buckets",
    "plan_lengths",
    "plan_sizes",
    "plan_waste",
]
