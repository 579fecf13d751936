// TENON_URL, TENON_KEY and SAID come from test_router_on_vllm.py: a router before a real vLLM, a tenant's key, and
// what vLLM itself says to the question, by the tenant's adapter.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { TENON_URL, TENON_KEY, SAID } = process.env;
const client = new OpenAI({ apiKey: TENON_KEY, baseURL: `${TENON_URL}/v1`, maxRetries: 0 });
const messages = [{ role: "user", content: "What is new?" }];
const asked = { model: "assistant", messages, max_tokens: 16 };
const parameters = {
  type: "object",
  properties: { pay: { enum: ["yes", "no"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["pay", "days"],
  additionalProperties: false,
};

test("chat", async () => {
  const answer = await client.chat.completions.create(asked);
  assert.equal(answer.model, "assistant");
  assert.equal(answer.choices[0].message.content, SAID);
  const two = await client.chat.completions.create({ ...asked, n: 2, temperature: 1, seed: 1, logprobs: true });
  assert.deepEqual(two.choices.map((choice) => choice.index), [0, 1]);
  assert.ok(two.choices.every((choice) => choice.logprobs.content.length > 0));
});

test("chat, streamed with usage", async () => {
  const stream = client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
  for await (const event of stream) assert.equal(event.model, "assistant");
  assert.equal(await stream.finalContent(), SAID);
  const whole = await client.chat.completions.create(asked);
  assert.deepEqual(await stream.totalUsage(), whole.usage);
});

for (const stream of [false, true]) {
  test(`the client's own loop runs a tool, stream: ${stream}`, async () => {
    const called = [];
    const decide = {
      type: "function",
      function: { name: "decide", parameters, parse: JSON.parse, function: (given) => { called.push(given); } },
    };
    const choice = { type: "function", function: { name: "decide" } };
    const runner = client.chat.completions.runTools({
      model: "assistant", messages, tools: [decide], tool_choice: choice, max_tokens: 120, stream,
    });
    await runner.done();
    assert.equal(called.length, 1);
    assert.ok(["yes", "no"].includes(called[0].pay) && called[0].days >= 1 && called[0].days <= 9);
  });
}

test("a policy's schema", async () => {
  const answer = await client.chat.completions.create({ model: "strict", messages });
  assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)), ["reason", "verdict"]);
  const cut = client.chat.completions.create({ model: "strict", messages, max_tokens: 4 });
  await assert.rejects(cut, (error) => error.status === 422 && error.code === "output_truncated");
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ["assistant", "strict"]);
  assert.equal((await client.models.retrieve("assistant")).owned_by, "bank_a");
  await assert.rejects(client.models.retrieve("cashier"), OpenAI.NotFoundError);
});
