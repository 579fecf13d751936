"""Three tenants ask the same platform; nobody gets anybody else's adapter, or learns that it exists."""

import json
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from openai import OpenAI

from registry.names import engine_name
from server.testing.fake_model import signature, signed_by
from tests.journeys.conftest import TENANTS, Served, schema_of

QUESTION: Any = [{"role": "user", "content": "Please transfer 640.00 EUR to Marvik Ltd."}]


def client(served: Served, tenant: str) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key=served.keys[tenant], max_retries=0)


@pytest.mark.parametrize("tenant", TENANTS)
def test_each_tenant_is_answered_by_its_own_adapter(served: Served, tenant: str) -> None:
    with client(served, tenant) as api:
        raw = api.chat.completions.with_raw_response.create(
            model="assistant",
            messages=QUESTION,
            extra_headers={"X-Tenant-ID": tenant, "X-Policy-Version": "v1"},
        )
    answer = raw.parse()
    text = answer.choices[0].message.content
    assert text is not None
    jsonschema.validate(json.loads(text), schema_of(tenant))
    # The fake engine writes the digest of the weights that really answered into its free text.
    assert signed_by(text) == {signature(served.weights[tenant])}
    assert raw.headers["x-tenon-version"] == served.versions[tenant]
    assert answer.model == "assistant"


@pytest.mark.parametrize("tenant", TENANTS)
def test_streams_end_properly_and_say_the_same(served: Served, tenant: str) -> None:
    with client(served, tenant) as api:
        text, reasons = "", []
        for chunk in api.chat.completions.create(
            model="assistant", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        ):
            assert chunk.model == "assistant"
            for choice in chunk.choices:
                text += choice.delta.content or ""
                if choice.finish_reason:
                    reasons.append(choice.finish_reason)
    assert reasons == ["stop"]
    jsonschema.validate(json.loads(text), schema_of(tenant))
    assert signed_by(text) == {signature(served.weights[tenant])}


def test_another_tenants_header_is_refused(served: Served) -> None:
    with client(served, "bank_a") as api, pytest.raises(openai.PermissionDeniedError) as caught:
        api.chat.completions.create(
            model="assistant", messages=QUESTION, extra_headers={"X-Tenant-ID": "retail_b"}
        )
    assert caught.value.code == "tenant_mismatch"


def test_a_foreign_adapter_and_a_name_nobody_has_are_the_same_answer(served: Served) -> None:
    bodies = set()
    foreign = engine_name(served.versions["retail_b"])
    for name in ("retail_b/assistant", "no/such", foreign, "tenon-base", "../retail_b", "demo"):
        answer = httpx.post(
            f"{served.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {served.keys['bank_a']}"},
            json={"model": name, "messages": QUESTION},
        )
        assert answer.status_code == 404, name
        error = answer.json()["error"]
        bodies.add(json.dumps({**error, "message": error["message"].replace(name, "NAME")}, sort_keys=True))
    assert len(bodies) == 1
    assert "retail" not in bodies.pop()


def test_no_key_and_a_wrong_key(served: Served) -> None:
    url, body = f"{served.url}/v1/chat/completions", {"model": "assistant", "messages": QUESTION}
    assert httpx.post(url, json=body).status_code == 401
    wrong = httpx.post(url, json=body, headers={"Authorization": f"Bearer {served.keys['bank_a']}x"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_cut_off_answer_is_an_error_not_broken_json(served: Served) -> None:
    with client(served, "bank_a") as api:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            api.chat.completions.create(model="assistant", messages=QUESTION, max_tokens=4)
        assert caught.value.code == "output_truncated"
        with pytest.raises(openai.APIError, match="max_tokens"):
            for _ in api.chat.completions.create(
                model="assistant", messages=QUESTION, max_tokens=4, stream=True
            ):
                pass


def test_missing_or_unknown_metadata_falls_to_nobody(served: Served) -> None:
    with client(served, "bank_a") as api:
        with pytest.raises(openai.BadRequestError) as missing:
            api.chat.completions.create(model="strict", messages=QUESTION)
        assert missing.value.code == "metadata_required"
        with pytest.raises(openai.BadRequestError) as unknown:
            api.chat.completions.create(
                model="assistant", messages=QUESTION, extra_headers={"X-Policy-Version": "v9"}
            )
        assert unknown.value.code == "metadata_unmatched"


def test_models_are_the_tenants_own(served: Served) -> None:
    with client(served, "bank_a") as api:
        assert sorted(model.id for model in api.models.list()) == ["assistant", "strict"]


def test_dangerous_fields_are_refused(served: Served) -> None:
    for name, value in (("cache_salt", "x"), ("prompt_logprobs", 1), ("chat_template", "x"), ("echo", True)):
        with client(served, "bank_a") as api, pytest.raises(openai.BadRequestError) as caught:
            api.chat.completions.create(model="assistant", messages=QUESTION, extra_body={name: value})
        assert caught.value.code == "unsupported_parameter"


def test_paths_beyond_the_api_do_not_exist(served: Served) -> None:
    for path in ("/invocations", "/v1/load_lora_adapter", "/tokenize", "/adapters", "/v1/score"):
        assert httpx.post(f"{served.url}{path}", json={}).status_code == 404
