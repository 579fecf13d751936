"""An order once more, after an answer that did not satisfy the policy."""

import orjson

from router.surfaces.surface import Order

_WARMTH = 0.3
"""Greedy decoding would give the same bad answer again; this little heat gives another one of its kind."""
_OTHER = 1 << 16
"""vLLM draws the i-th of n choices with seed + i: far beyond the 128 that a request may have, or one seed's
second choice would come again as the other's first. Within 32 bits: PyTorch drops the others on a CPU."""


def again(order: Order) -> Order:
    """With another seed, and as warm as the policy allows up to _WARMTH if it was colder."""
    fields = orjson.loads(order.body)
    bounds = order.policy.policy.sampling
    fields["temperature"] = max(fields.get("temperature", 0), min(_WARMTH, bounds.max_temperature))
    fields["seed"] = (fields.get("seed") or 0) ^ _OTHER
    return order._replace(body=orjson.dumps(fields))
