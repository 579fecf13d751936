// TENON_URL, TENON_KEY and SIGNED come from test_openai_node.py: a router, a tenant's key, and how its adapter
// signs what it says.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { TENON_URL, TENON_KEY, SIGNED } = process.env;
const client = new OpenAI({ apiKey: TENON_KEY, baseURL: `${TENON_URL}/v1`, maxRetries: 0 });
const messages = [{ role: "user", content: "Pay Norvik" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 1 } },
  required: ["city", "days"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", parameters } }];

test("chat", async () => {
  const answer = await client.chat.completions.create({ model: "assistant", messages, n: 2, temperature: 0.5 });
  assert.equal(answer.model, "assistant");
  assert.equal(answer.choices.length, 2);
  assert.ok(answer.choices[1].message.content.includes(SIGNED));
});

test("chat, streamed with usage", async () => {
  const stream = client.chat.completions.stream({
    model: "assistant", messages, stream_options: { include_usage: true },
  });
  for await (const event of stream) assert.equal(event.model, "assistant");
  assert.ok((await stream.finalContent()).includes(SIGNED));
  assert.ok((await stream.totalUsage()).completion_tokens > 0);
});

for (const stream of [false, true]) {
  test(`tools are run by the client's own loop, stream: ${stream}`, async () => {
    const asked = [];
    const weather = {
      type: "function",
      function: {
        name: "weather", parameters, parse: JSON.parse,
        function: (given) => { asked.push(given); return "rain"; },
      },
    };
    const runner = client.chat.completions.runTools({ model: "assistant", messages, tools: [weather], stream });
    assert.ok((await runner.finalContent()).includes(SIGNED));
    assert.deepEqual(asked, [{ city: SIGNED, days: 1 }]);
  });
}

test("a policy's schema", async () => {
  const answer = await client.chat.completions.create({ model: "strict", messages });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), { zeta: SIGNED, amount: 0 });
});

test("completions, whole and streamed", async () => {
  const whole = await client.completions.create({ model: "assistant", prompt: ["a", "b"], max_tokens: 40 });
  assert.ok(whole.choices.every((choice) => choice.text.includes(SIGNED)));
  let text = "";
  const stream = await client.completions.create({ model: "assistant", prompt: [1, 2], max_tokens: 40, stream: true });
  for await (const event of stream) text += event.choices[0]?.text ?? "";
  assert.ok(text.includes(SIGNED));
});

test("responses, whole and streamed", async () => {
  const whole = await client.responses.create({ model: "assistant", input: "Pay", store: false });
  assert.ok(whole.output_text.includes(SIGNED));
  const stream = client.responses.stream({ model: "assistant", input: "Pay" });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  assert.equal(kinds.at(-1), "response.completed");
  assert.ok((await stream.finalResponse()).output_text.includes(SIGNED));
});

test("responses call tools", async () => {
  const flat = [{ type: "function", name: "weather", parameters, strict: true }];
  const stream = client.responses.stream({ model: "assistant", input: "Pay", tools: flat });
  const { output } = await stream.finalResponse();
  assert.equal(output[0].type, "function_call");
  assert.deepEqual(JSON.parse(output[0].arguments), { city: SIGNED, days: 1 });
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ["assistant", "formal", "strict", "toolless"]);
  assert.equal((await client.models.retrieve("strict")).owned_by, "bank_a");
  await assert.rejects(client.models.retrieve("cashier"), OpenAI.NotFoundError);
});

test("errors carry their codes", async () => {
  const refused = [
    [() => client.chat.completions.create({ model: "cashier", messages }), "model_not_found"],
    [() => client.chat.completions.create({ model: "toolless", messages, tools }), "tool_not_allowed"],
    [() => client.embeddings.create({ model: "assistant", input: "a" }), "endpoint_unsupported"],
    [() => client.completions.create({ model: "assistant", prompt: "a", echo: true }), "unsupported_parameter"],
    [() => client.responses.create({ model: "assistant", input: "a", store: true }), "unsupported_parameter"],
  ];
  for (const [call, code] of refused) {
    await assert.rejects(call, (error) => error instanceof OpenAI.APIError && error.code === code);
  }
});
