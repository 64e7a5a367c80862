// The OpenAI client for Node as anyone uses it: only its base URL is Tradewind's. Called by tests/openai.rs, which says in
// NODE_PATH where the client is. What client.py asks, in JavaScript.
//
//     client.cjs SCENARIO BASE_URL
"use strict";

const assert = require("node:assert/strict");
const OpenAI = require("openai");

const messages = [{ role: "user", content: "Which way does the wind blow?" }];
const TEXT = "From the east, all year.";

// The error that `asked` ends with.
async function failure(asked) {
  try {
    await asked();
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

const scenarios = {
  // Requests that a backend answers.
  async answers(client) {
    const completion = await client.chat.completions.create({ model: "trade-1", messages });
    assert.equal(completion.choices[0].message.content, TEXT);
    assert.equal(completion.usage.total_tokens, 12);
    assert.ok(completion._request_id, "the request id reaches the client");

    const stream = await client.chat.completions.create({
      model: "trade-1",
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), TEXT);
    assert.equal(chunks.at(-1).usage.total_tokens, 12);

    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    assert.deepEqual(models, ["trade-1"]);

    const embedding = await client.embeddings.create({ model: "trade-1", input: "wind", encoding_format: "float" });
    assert.deepEqual(embedding.data[0].embedding, [0.25, -0.5]);

    const { response } = await client.chat.completions
      .create({ model: "trade-1", messages }, { maxRetries: 0, headers: { "x-request-id": "mine-1" } })
      .withResponse();
    assert.equal(response.headers.get("x-request-id"), "mine-1");

    // A client that leaves in the middle of a stream.
    const left = await client.chat.completions.create({ model: "trade-1", messages, stream: true });
    for await (const chunk of left) {
      assert.equal(chunk.choices[0].delta.content, "From");
      break;
    }
  },

  // Errors of the backend reach the client as they are.
  async errors(client) {
    for (const [model, kind, status, code] of [
      ["busy", OpenAI.RateLimitError, 429, "rate_limit_exceeded"],
      ["unknown", OpenAI.NotFoundError, 404, "model_not_found"],
    ]) {
      const error = await failure(() => client.chat.completions.create({ model, messages }, { maxRetries: 0 }));
      assert.ok(error instanceof kind, error);
      assert.deepEqual([error.status, error.code], [status, code]);
    }

    // The client's own retries work through it: the backend refuses the first two of these.
    const retried = await client.chat.completions.create({ model: "flaky", messages }, { maxRetries: 2 });
    assert.equal(retried.choices[0].message.content, TEXT);

    const stream = await client.chat.completions.create({ model: "broken", messages, stream: true });
    const words = [];
    const error = await failure(async () => {
      for await (const chunk of stream) words.push(chunk.choices[0].delta.content);
    });
    assert.deepEqual(words, ["From"], error);
  },

  // Refused with 429, then with 503, each with a Retry-After of a second: the client waits that long, and asks again.
  async retries(client) {
    const begun = performance.now();
    const completion = await client.chat.completions.create({ model: "later", messages }, { maxRetries: 2 });
    assert.equal(completion.choices[0].message.content, TEXT);
    // Timers of Node may be a millisecond early.
    assert.ok(performance.now() - begun >= 1990, "it was not told when to come back");
  },

  // Errors of Tradewind itself are errors of the API to the client: no backend is healthy.
  async refusals(client) {
    for (const stream of [false, true]) {
      const asked = () => client.chat.completions.create({ model: "trade-1", messages, stream }, { maxRetries: 0 });
      const error = await failure(asked);
      assert.ok(error instanceof OpenAI.InternalServerError, error);
      assert.deepEqual([error.status, error.code], [503, "no_backend_available"]);
      assert.equal(error.type, "service_unavailable");
      assert.ok(Number(error.headers.get("retry-after")) > 0);
      assert.ok(error.requestID, "the request id is there to ask about");
    }
  },

  // Requests that match no route.
  async no_route(client) {
    const error = await failure(() =>
      client.chat.completions.create({ model: "trade-1", messages }, { maxRetries: 0 }),
    );
    assert.ok(error instanceof OpenAI.NotFoundError, error);
    assert.equal(error.code, "no_route");
  },
};

async function main() {
  const [scenario, baseURL] = process.argv.slice(2);
  await scenarios[scenario](new OpenAI({ baseURL, apiKey: "sk-test", timeout: 20_000 }));
  console.log("passed", scenario, process.version);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
