"""What may have changed while a request waited: its turn can be half a minute away, an answer minutes.

Rules are not a promise made at the door. Whoever was revoked or suspended meanwhile gets nothing, and what
was promoted, rolled back or loaded anew meanwhile answers instead of what was there before.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from router.auth import authenticate, may_ask
from router.errors import InvalidApiKey, RouterNotReady
from router.headers import Headers
from router.resolution import Target, choose, resolve, unit_of
from router.surfaces.again import again
from router.surfaces.surface import Question
from router.tables import Tables
from router.tokens import Tokens

if TYPE_CHECKING:
    from router.asked import Asked


def look_again(
    headers: Headers,
    question: Question,
    before: Target,
    tables: Tables,
    now: datetime,
    tokens: Tokens | None,
    *,
    began: int = 0,
) -> Target:
    """What a request that was resolved to ``before`` is answered by as the rules are now. ``began``: see
    :func:`router.resolution.resolve`.

    Raises what the steps up to ``resolve`` raise, and RouterNotReady when the policy is another one: what was
    reserved and what is kept of the request were settled by the old one.
    """
    principal = authenticate(headers, tables, now, tokens)
    may_ask(principal)
    if principal.tenant != before.route.tenant:
        raise InvalidApiKey
    route = choose(principal, question.model, headers, tables)
    unit = unit_of(principal, headers, question.user)
    same = (route.adapter, route.alias) == (before.route.adapter, before.route.alias)
    target = resolve(route, tables, unit=unit, now=now, began=began if same else 0)
    if target.policy.digest != before.policy.digest:
        raise RouterNotReady("the policy of the route was changed while the request waited")
    return target


def renew(asked: "Asked", tables: Tables, now: datetime, tokens: Tokens | None, salt_secret: bytes) -> None:
    """Its target and its order, as the rules are now. Raises what :func:`look_again` raises."""
    question, before = asked.question, asked.target
    target = look_again(asked.exchange.headers, question, before, tables, now, tokens, began=asked.began)
    if target is before:
        return
    if (target.route.adapter, target.route.alias) != (before.route.adapter, before.route.alias):
        asked.began = 0  # else the next look would take it for the new alias's
    asked.note_route(question, target.route)
    asked.target = target
    asked.note_live()
    if target.live[:3] != before.live[:3]:  # version, epoch, engine name: all that is in the order's bytes
        order = asked.surface.order(question, target, salt_secret)._replace(own=asked.order.own)
        for _ in range(asked.repeats):
            order = again(order)
        asked.order = order
