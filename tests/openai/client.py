"""The OpenAI client as anyone uses it: only its base URL is Tradewind's. Called by tests/openai.rs.

    client.py SCENARIO BASE_URL
"""

import sys
import time

import openai

MESSAGES = [{"role": "user", "content": "Which way does the wind blow?"}]


def answers(client):
    """Requests that a backend answers."""
    completion = client.chat.completions.create(model="trade-1", messages=MESSAGES)
    assert completion.choices[0].message.content == "From the east, all year.", completion
    assert completion.usage.total_tokens == 12, completion
    assert completion._request_id, "the request id reaches the client"

    stream = client.chat.completions.create(
        model="trade-1", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(words) == "From the east, all year.", words
    assert chunks[-1].usage.total_tokens == 12, chunks[-1]

    assert [model.id for model in client.models.list()] == ["trade-1"]

    embedding = client.embeddings.create(model="trade-1", input="wind", encoding_format="float")
    assert embedding.data[0].embedding == [0.25, -0.5], embedding

    raw = client.with_options(max_retries=0).chat.completions.with_raw_response.create(
        model="trade-1", messages=MESSAGES, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1", raw.headers


def errors(client):
    """Errors of the backend reach the client as they are."""
    client = client.with_options(max_retries=0)
    for model, kind, status, code in [
        ("busy", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("unknown", openai.NotFoundError, 404, "model_not_found"),
    ]:
        try:
            client.chat.completions.create(model=model, messages=MESSAGES)
        except kind as error:
            assert (error.status_code, error.code) == (status, code), error
        else:
            raise AssertionError(f"{model}: no error")

    # The client's own retries work through it: the backend refuses the first two of these.
    retried = client.with_options(max_retries=2).chat.completions.create(model="flaky", messages=MESSAGES)
    assert retried.choices[0].message.content == "From the east, all year.", retried

    stream = client.chat.completions.create(model="broken", messages=MESSAGES, stream=True)
    words = []
    try:
        for chunk in stream:
            words.append(chunk.choices[0].delta.content)
    except Exception as error:
        assert words == ["From"], (words, error)
    else:
        raise AssertionError(f"a broken stream ended as if it were complete, after {words}")


def retries(client):
    """Refused with 429, then with 503, each with a Retry-After of a second: the client waits that long, and asks again."""
    begun = time.monotonic()
    completion = client.with_options(max_retries=2).chat.completions.create(model="later", messages=MESSAGES)
    assert completion.choices[0].message.content == "From the east, all year.", completion
    assert time.monotonic() - begun >= 2, "it was not told when to come back"


def refusals(client):
    """Errors of Tradewind itself are errors of the API to the client: no backend is healthy."""
    client = client.with_options(max_retries=0)
    for stream in (False, True):
        try:
            client.chat.completions.create(model="trade-1", messages=MESSAGES, stream=stream)
        except openai.InternalServerError as error:
            assert (error.status_code, error.code) == (503, "no_backend_available"), error
            assert error.type == "service_unavailable", error.type
            assert int(error.response.headers["retry-after"]) > 0
            assert error.request_id, "the request id is there to ask about"
        else:
            raise AssertionError("no error")


def no_route(client):
    """Requests that match no route."""
    try:
        client.with_options(max_retries=0).chat.completions.create(model="trade-1", messages=MESSAGES)
    except openai.NotFoundError as error:
        assert error.code == "no_route", error
    else:
        raise AssertionError("no error")


def tenants(client):
    """Keys, models and rates are refused as the API refuses them."""
    client = client.with_options(max_retries=0)
    ask = lambda client, model="trade-1": client.chat.completions.create(model=model, messages=MESSAGES)
    for key, model, kind, status, code in [
        ("sk-nobodys", "trade-1", openai.AuthenticationError, 401, "invalid_api_key"),
        ("sk-test", "other", openai.PermissionDeniedError, 403, "model_not_allowed"),
    ]:
        try:
            ask(client.with_options(api_key=key), model)
        except kind as error:
            assert (error.status_code, error.code) == (status, code), error
        else:
            raise AssertionError(f"{status}: no error")

    raw = client.chat.completions.with_raw_response.create(model="trade-1", messages=MESSAGES)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1", raw.headers
    stream = client.chat.completions.create(model="trade-1", messages=MESSAGES, stream=True)
    assert len(list(stream)) == 6
    try:
        ask(client)
    except openai.RateLimitError as error:
        assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests"), error
        assert 0 < int(error.response.headers["retry-after"]) <= 30, error.response.headers
    else:
        raise AssertionError("429: no error")


if __name__ == "__main__":
    scenario, base_url = sys.argv[1:]
    with openai.OpenAI(base_url=base_url, api_key="sk-test", timeout=20) as the_client:
        globals()[scenario](the_client)
    print("passed", scenario, openai.__version__)
