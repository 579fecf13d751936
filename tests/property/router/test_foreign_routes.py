"""No key and no set of headers reaches another tenant's adapter, policy or engine name."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from registry.models import Role
from registry.names import engine_name
from router.auth import authenticate
from router.errors import RouterError
from router.headers import Headers
from router.resolution import choose, resolve, unit_of
from router.surfaces.chat.order import constrain
from router.surfaces.chat.question import parse
from router.tables import compile_tables
from router.testing import Scene

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANTS = ("bank_a", "retail_b", "saas_c")
MODELS = ("assistant", "cashier", "desk")
ADAPTERS = ("desk", "other")
NAMES = ("x-policy-version", "x-region", "x-tenant-id")
VALUES = ("v1", "v2", "bank_a", "retail_b", "")


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Scene, list[tuple[str, str]]]:
    """A world with routes in every shape, and its (tenant, secret) pairs. Some aliases are crossed."""
    scene = Scene()
    scene.engine()
    keys = []
    for tenant in TENANTS:
        policy = scene.policy(tenant)
        for adapter in ADAPTERS:
            scene.attest(scene.version(tenant, adapter))
        for _ in range(draw(st.integers(0, 4))):
            when = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=2))
            scene.route(
                tenant,
                draw(st.sampled_from([policy, *scene.policies])),
                model=draw(st.sampled_from(MODELS)),
                adapter=draw(st.sampled_from(ADAPTERS)),
                when=when,
            )
        keys.append((tenant, scene.key(tenant, draw(st.sampled_from(list(Role))))))
    for index in draw(st.sets(st.integers(0, len(scene.aliases) - 1), max_size=3)):
        version = draw(st.sampled_from(scene.versions)).version
        scene.aliases[index] = scene.aliases[index].model_copy(update={"version": version})
    return scene, keys


@given(world=scenes(), data=st.data())
def test_an_answer_can_only_come_from_the_callers_own(world: tuple[Scene, Any], data: st.DataObject) -> None:
    scene, keys = world
    tables = compile_tables(scene.snapshot())
    owners = {state.version: (state.tenant, state.adapter) for state in scene.versions}
    tenant, secret = data.draw(st.sampled_from(keys))
    sent = data.draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3))
    foreign = [engine_name(state.version) for state in scene.versions]
    model = data.draw(st.sampled_from([*MODELS, *foreign, "../desk", "bank_a/desk"]))
    headers = Headers(
        [(name.encode(), value.encode()) for name, value in sent]
        + [(b"authorization", f"Bearer {secret}".encode())]
    )
    try:
        principal = authenticate(headers, tables, NOW)
        chosen = choose(principal, model, headers, tables)
        target = resolve(chosen, tables, unit=unit_of(principal, headers, None), now=NOW)
    except RouterError as error:
        refusal: RouterError | None = error
    else:
        refusal = None
    if refusal is not None:
        assert not any(other in refusal.message for other in TENANTS)
        return
    assert principal.tenant == tenant
    assert target.route.tenant == tenant
    assert target.route.model == model
    assert target.policy.policy.tenant == tenant
    assert owners[target.live.version] == (tenant, target.route.adapter)
    given_headers = dict(sent)
    assert all(given_headers.get(name) == value for name, value in target.route.when.items())
    question = parse(b'{"model":"m","messages":[{"role":"user","content":"x"}]}', most_choices=1)
    order = constrain(question, target, b"s" * 32)
    assert order.engine_name == engine_name(target.live.version)
