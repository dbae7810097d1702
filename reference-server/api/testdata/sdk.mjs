// Drives a server with OpenAI's own JavaScript SDK. node sdk.mjs BASE_URL MODEL
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { default: OpenAI } = await import(createRequire(process.env.SDK_FROM + "/").resolve("openai"));
const [base, model] = process.argv.slice(2);
const c = new OpenAI({ baseURL: base + "/v1", apiKey: "none", maxRetries: 0 });
const ask = { model, messages: [{ role: "user", content: "Tell me about the sea." }], max_tokens: 16, temperature: 0 };

const whole = await c.chat.completions.create(ask);
assert.equal(whole.choices[0].finish_reason, "length");
assert.equal(whole.usage.completion_tokens, 16);

let text = "", usage;
for await (const chunk of await c.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
  usage = chunk.usage ?? usage;
  for (const choice of chunk.choices) text += choice.delta.content ?? "";
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, 16);

const response = await c.responses.create({ model, input: "Tell me about the sea.", max_output_tokens: 16, temperature: 0 });
assert.equal(response.output_text, text);

await assert.rejects(c.chat.completions.create({ ...ask, model: "other" }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
const long = await c.chat.completions.create({ ...ask, max_tokens: 900, stream: true, ignore_eos: true });
for await (const _ of long) break; // closes the stream
console.log("ok");
