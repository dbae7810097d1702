"""Drives a server with OpenAI's own Python SDK. python sdk.py BASE_URL MODEL"""

import sys

import openai

base, model = sys.argv[1:3]
c = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
ask = [{"role": "user", "content": "Tell me about the sea."}]

whole = c.chat.completions.create(model=model, messages=ask, max_tokens=16, temperature=0)
assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 16, whole
text = whole.choices[0].message.content

streamed, usage = "", None
for chunk in c.chat.completions.create(model=model, messages=ask, max_tokens=16, temperature=0, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        streamed += choice.delta.content or ""
assert streamed == text and usage.completion_tokens == 16, (streamed, text, usage)

probs = c.chat.completions.create(model=model, messages=ask, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2, n=2)
assert len(probs.choices) == 2 and len(probs.choices[0].logprobs.content) == 3 and len(probs.choices[0].logprobs.content[0].top_logprobs) == 2, probs

completion = c.completions.create(model=model, prompt="Once upon a time", max_tokens=8, temperature=0)
assert completion.choices[0].text and completion.usage.completion_tokens == 8, completion

response = c.responses.create(model=model, input="Tell me about the sea.", max_output_tokens=16, temperature=0)
assert response.output_text == text and response.status == "incomplete", response
events = [e.type for e in c.responses.create(model=model, input="Hi", max_output_tokens=8, stream=True)]
assert events[0] == "response.created" and "response.output_text.delta" in events, events
background = c.responses.create(model=model, input="Hi", max_output_tokens=8, background=True)
while background.status in ("queued", "in_progress"):
    background = c.responses.retrieve(background.id)
assert background.status in ("completed", "incomplete"), background

assert [m.id for m in c.models.list()] == [model]
for kind, call in [
    (openai.NotFoundError, lambda: c.chat.completions.create(model="other", messages=ask)),
    (openai.BadRequestError, lambda: c.chat.completions.create(model=model, messages=ask, temperature=9)),
    (openai.BadRequestError, lambda: c.chat.completions.create(model=model, messages=[])),
]:
    try:
        call()
    except kind as e:
        assert e.body["message"], e
    else:
        raise AssertionError(f"no {kind.__name__}")

s = c.chat.completions.create(model=model, messages=ask, max_tokens=900, stream=True, extra_body={"ignore_eos": True})
next(iter(s))
s.close()
print("ok", openai.__version__)
