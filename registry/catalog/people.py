"""Are two actors two pairs of eyes?

A key and what replaced it are one person. So are a key and who issued it (who was shown its secret), and two
keys that one key of the same tenant, or one person of an identity provider, issued: else an administrator
would approve with a second key of their own. Keys that the platform issued to two people are two people.
"""

from registry.store.transaction import Transaction

_KEY = "key:"
_PROVIDED = "oidc:"


def independent(rows: Transaction, one: str, other: str) -> bool:
    if _unknown(rows, one) or _unknown(rows, other):
        return False
    mine, theirs = _line(rows, one), _line(rows, other)
    if mine[0] in theirs or theirs[0] in mine:
        return False
    return not any(_of_tenant(rows, actor) for actor in set(mine) & set(theirs))


def _line(rows: Transaction, actor: str) -> list[str]:
    """The actor, who issued it, who issued that, and so on; keys by the first of their line."""
    found: list[str] = []
    seen: set[str] = set()
    waiting = [actor]
    while waiting:
        known = waiting.pop(0)
        if known in seen:
            continue
        seen.add(known)
        key = rows.keys.get(known.removeprefix(_KEY)) if known.startswith(_KEY) else None
        name = f"{_KEY}{key.line}" if key else known
        if name not in found:
            found.append(name)
        if key:
            waiting += [issuer for issuer in (rows.keys.issuer(key.id), rows.keys.issuer(key.line)) if issuer]
    return found


def _unknown(rows: Transaction, actor: str) -> bool:
    """A key that this transaction cannot see (behind a tenant's wall, a platform admin's): it could be
    anybody."""
    return actor.startswith(_KEY) and rows.keys.get(actor.removeprefix(_KEY)) is None


def _of_tenant(rows: Transaction, actor: str) -> bool:
    if actor.startswith(_PROVIDED):  # its name does not say whether it belongs to a tenant
        return True
    key = rows.keys.get(actor.removeprefix(_KEY)) if actor.startswith(_KEY) else None
    return key is not None and key.tenant is not None
