"""What clients get, through the official client and over plain HTTP, from the real server with a stand-in engine."""

import io
import json

import aiohttp
import openai
import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from moorage_runtime.engine.messages import SamplingParams


@pytest.fixture
async def client(echo):
    async with openai.AsyncOpenAI(base_url=echo.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def chat(content="hi", **more):
    return {"model": "echo", "messages": [{"role": "user", "content": content}], **more}


async def test_chat_completion(client):
    answer = await client.chat.completions.create(**chat("Grüße 🎉"))
    assert answer.choices[0].message.content == "user: Grüße 🎉\n"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == len("user: Grüße 🎉\n".encode())
    assert answer.usage.completion_tokens == answer.usage.prompt_tokens + 1


async def test_chat_stream_is_the_same_text_in_whole_characters(client):
    stream = await client.chat.completions.create(
        **chat("Grüße 🎉 日本"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(pieces) == "user: Grüße 🎉 日本\n"
    assert not any("\ufffd" in piece for piece in pieces)
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len("user: Grüße 🎉 日本\n".encode()) + 1


async def test_a_character_that_is_cut_by_the_limit_is_left_out(client):
    answer = await client.completions.create(model="echo", prompt="ab🎉", max_tokens=4)
    assert answer.choices[0].text == "ab"
    assert answer.choices[0].finish_reason == "length"


async def test_stop_strings_over_token_boundaries(client):
    answer = await client.completions.create(model="echo", prompt="one, two, three", stop=["three", "two"])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one, ", "stop")
    stream = await client.completions.create(model="echo", prompt="tw two tw", stop="two", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "tw "


async def test_what_looked_like_a_stop_string_comes_at_the_end(client):
    answer = await client.completions.create(model="echo", prompt="a tw", stop="two")
    assert answer.choices[0].text == "a tw"


async def test_several_prompts_and_choices(client, echo):
    answer = await client.completions.create(model="echo", prompt=["ab", "cd"], n=2, seed=5)
    assert [choice.text for choice in answer.choices] == ["ab", "ab", "cd", "cd"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == 4
    assert answer.usage.completion_tokens == 12
    requests = echo.submitted()[-4:]
    assert [request.sampling.seed for request in requests] == [5, 6, 5, 6]
    assert len({request.id for request in requests}) == 4


async def test_streamed_choices_are_told_apart_by_index(client):
    stream = await client.chat.completions.create(**chat("abc"), n=3, stream=True)
    texts = ["", "", ""]
    ends = []
    async for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert texts == ["user: abc\n"] * 3
    assert sorted(ends) == [0, 1, 2]


async def test_prompt_of_token_ids(client, echo):
    await client.completions.create(model="echo", prompt=[1, 2, 3])
    assert echo.submitted()[-1].prompt == [1, 2, 3]


async def test_chat_logprobs(client):
    answer = await client.chat.completions.create(**chat("é"), logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert len(content) == len("user: é\n".encode())  # the end token is no text
    assert content[0].token == "u"
    assert content[0].bytes == [ord("u")]
    assert [entry.logprob for entry in content[0].top_logprobs] == [-0.5, -1.5]
    assert content[6].bytes + content[7].bytes == list("é".encode())


async def test_completion_logprobs(client):
    stream = await client.completions.create(model="echo", prompt="abc", logprobs=1, stream=True)
    offsets = []
    async for chunk in stream:
        offsets += chunk.choices[0].logprobs.text_offset
    assert offsets == [0, 1, 2]


async def test_parameters_reach_the_engine(client, echo):
    await client.chat.completions.create(
        **chat(),
        temperature=0.5,
        top_p=0.9,
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={"7": -1},
        max_completion_tokens=5,
        extra_body={"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "ignore_eos": True}
        | {"cache_salt": "tenant", "timeout": 90},
        user="someone",
        store=True,
        metadata={"a": "b"},
        parallel_tool_calls=False,
        service_tier="auto",
        reasoning_effort="low",
        prompt_cache_key="someone's",
        prediction={"type": "content", "content": "hi"},
        response_format={"type": "text"},
        modalities=["text"],
        verbosity="medium",
        tool_choice="none",
    )
    request = echo.submitted()[-1]
    assert request.max_tokens == 5
    assert request.sampling == SamplingParams(0.5, 0.9, 40, 0.05, 1.1, 0.1, 0.2, 3, {7: -1.0}, None)
    assert request.stop_token_ids == []
    assert request.cache_salt == "tenant"
    assert request.timeout_seconds == 90


async def test_the_models_own_defaults_fill_what_is_left_out(client, echo):
    await client.chat.completions.create(**chat())
    request = echo.submitted()[-1]
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (0.25, 1.0, 7)
    assert request.stop_token_ids == [256]
    assert request.max_tokens == 512 - len(request.prompt)
    assert (request.priority, request.cache_salt, request.timeout_seconds) == (0, "", None)


async def test_null_is_absent_whatever_the_field(echo):
    status, _, _ = await echo.post("/v1/chat/completions", chat() | {"tools": None, "seed": None, "stop": None})
    assert status == 200


PARTS = [
    {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
    {"type": "text", "text": "b"},
]


async def test_text_parts_and_the_developer_role(client):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": PARTS},
    ]
    answer = await client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == "system: be brief\nuser: ab\n"


async def test_models(client):
    models = await client.models.list()
    assert [model.id for model in models.data] == ["echo"]
    assert models.data[0].max_model_len == 512
    assert (await client.models.retrieve("echo")).id == "echo"
    with pytest.raises(openai.NotFoundError, match="The model 'other' does not exist here"):
        await client.models.retrieve("other")


async def test_the_gateways_name_for_the_model(echo):
    status, headers, answer = await echo.post(
        "/v1/chat/completions", chat() | {"model": "anything"}, **{"x-moorage-model": "public"}
    )
    assert (status, answer["model"]) == (200, "public")
    assert headers["x-moorage-load"] == "running=0,waiting=0"


WRONG_TYPE = "Invalid type for '{}': expected {}, but got {} instead."
WRONG_VALUE = "Invalid value for '{}': expected {}, but got {} instead."
CONTEXT = "This model's maximum context length is 512 tokens, but {}. Shorten the prompt or ask for fewer tokens."
PRIORITY = "It is for servers that run with --scheduling-policy Priority."
IMAGE = {"type": "image_url", "image_url": {"url": "http://a/b"}}

# What is wrong, the parameter that the answer names, and its message.
REFUSED = [
    ({"temperature": "hot"}, "temperature", WRONG_TYPE.format("temperature", "a number", "a string")),
    ({"temperature": 3}, "temperature", WRONG_VALUE.format("temperature", "a number from 0 to 2", "3")),
    ({"top_p": 0}, "top_p", WRONG_VALUE.format("top_p", "a number above 0 up to 1", "0")),
    (
        {"repetition_penalty": 1e-300},
        "repetition_penalty",
        WRONG_VALUE.format("repetition_penalty", "a number from 1e-06 to 10", "1e-300"),
    ),
    ({"n": True}, "n", WRONG_TYPE.format("n", "an integer", "a boolean")),
    ({"n": 0}, "n", WRONG_VALUE.format("n", "an integer from 1 to 64", "0")),
    ({"max_tokens": 1.5}, "max_tokens", WRONG_TYPE.format("max_tokens", "an integer", "a number")),
    ({"tools": [{}]}, "tools", "'tools' other than [] is not supported here."),
    ({"moderation": {"model": "m"}}, "moderation", "'moderation' is not supported here."),
    (
        {"response_format": {"type": "json_object"}},
        "response_format",
        """'response_format' other than {"type":"text"} is not supported here.""",
    ),
    ({"tempratur": 1}, "tempratur", "Unrecognized request argument supplied: 'tempratur'."),
    ({"stream": 1}, "stream", WRONG_TYPE.format("stream", "a boolean", "an integer")),
    ({"stream_options": {}}, "stream_options", "'stream_options' needs 'stream' to be true."),
    ({"stop": 7}, "stop", WRONG_TYPE.format("stop", "a string or an array of strings", "an integer")),
    ({"stop": [""]}, "stop", WRONG_VALUE.format("stop", "at most 16 strings, none of them empty", "['']")),
    ({"logit_bias": {"x": 1}}, "logit_bias", WRONG_VALUE.format("logit_bias", "token ids as keys", "'x'")),
    ({"logit_bias": {"1": 101}}, "logit_bias.1", WRONG_VALUE.format("logit_bias.1", "a number from -100 to 100", 101)),
    (
        {"logit_bias": {"999": 1}},
        "logit_bias",
        "Invalid value for 'logit_bias': token id 999 is not in the model's vocabulary of 260.",
    ),
    (
        {"logit_bias": {"9" * 5000: 1}},
        "logit_bias",
        WRONG_VALUE.format("logit_bias", "token ids as keys", "'" + "9" * 79 + "…"),
    ),
    (
        {"logit_bias": {f"{index:09}": 1 for index in range(1025)}},
        "logit_bias",
        WRONG_VALUE.format("logit_bias", "at most 1024 token ids", "1025"),
    ),
    (
        {"priority": 1},
        "priority",
        f"'priority' has no effect here: this server schedules by FCFS. {PRIORITY}",
    ),
    ({"priority": "high"}, "priority", WRONG_TYPE.format("priority", "an integer", "a string")),
    ({"cache_salt": 7}, "cache_salt", WRONG_TYPE.format("cache_salt", "a string", "an integer")),
    ({"cache_salt": ""}, "cache_salt", WRONG_VALUE.format("cache_salt", "1 to 256 characters", "0")),
    (
        {"cache_salt": "x" * 257},
        "cache_salt",
        WRONG_VALUE.format("cache_salt", "1 to 256 characters", "257"),
    ),
    ({"timeout": 0}, "timeout", WRONG_VALUE.format("timeout", "a number above 0 up to 86400", "0")),
    ({"timeout": "5s"}, "timeout", WRONG_TYPE.format("timeout", "a number", "a string")),
    ({"top_logprobs": 2}, "top_logprobs", "'top_logprobs' needs 'logprobs' to be true."),
    ({"messages": []}, "messages", "'messages' is empty: it needs at least one message."),
    ({"messages": None}, "messages", "Missing required parameter: 'messages'."),
    ({"messages": "hi"}, "messages", WRONG_TYPE.format("messages", "an array of messages", "a string")),
    (
        {"messages": [{"role": "user"}]},
        "messages[0].content",
        "Missing required parameter: 'messages[0].content'.",
    ),
    (
        {"messages": [{"role": "chief", "content": ""}]},
        "messages[0].role",
        WRONG_VALUE.format("messages[0].role", "one of system, developer, user, assistant", "'chief'"),
    ),
    (
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        "messages[0].content[0].type",
        "Content of type 'image_url' is not supported: this server takes text only.",
    ),
    (
        {"messages": [{"role": "assistant", "content": "first"}]},
        "messages",
        "The model's chat template does not accept these messages: begin with the user",
    ),
    (
        {"messages": [{"role": "user", "content": "x" * 600}]},
        "messages",
        CONTEXT.format("your prompt has 607 tokens and leaves no room for an answer"),
    ),
    (
        {"max_tokens": 600},
        "max_tokens",
        CONTEXT.format("you asked for 609 tokens (9 in the prompt, 600 in the completion)"),
    ),
]


TYPED = (
    "temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty logit_bias logprobs "
    "top_logprobs max_tokens max_completion_tokens n seed stream stream_options stop ignore_eos priority cache_salt "
    "timeout"
)


@pytest.mark.parametrize("param", TYPED.split())
async def test_every_parameter_has_a_type(echo, param):
    wrong = {param: [1]} | ({"stream": True} if param == "stream_options" else {})
    status, _, answer = await echo.post("/v1/chat/completions", chat() | wrong)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_type", param)
    assert f"Invalid type for '{param}'" in answer["error"]["message"]


def parameters(module):
    """Of the official client's method: those of its typed dictionaries."""
    kinds = (module.CompletionCreateParamsBase, module.CompletionCreateParamsStreaming)
    return sorted({name for kind in kinds for name in kind.__annotations__})


@pytest.mark.parametrize(("path", "module"), [("/v1/chat/completions", chat_params), ("/v1/completions", text_params)])
async def test_no_parameter_of_the_official_client_is_unknown(echo, path, module):
    asked = chat() if "chat" in path else {"model": "echo", "prompt": "hi"}
    for name in parameters(module):
        _, _, answer = await echo.post(path, asked | {name: "of the wrong type, or not"})
        assert "error" not in answer or answer["error"]["code"] != "unknown_parameter", name


@pytest.mark.parametrize(("wrong", "param", "message"), REFUSED)
async def test_a_wrong_request_is_told_what_is_wrong(echo, wrong, param, message):
    status, _, answer = await echo.post("/v1/chat/completions", chat() | wrong)
    assert (status, answer["error"]["message"], answer["error"]["param"]) == (400, message, param)
    assert answer["error"]["type"] == "invalid_request_error"
    assert set(answer["error"]) == {"message", "type", "param", "code"}


async def test_codes_that_programs_look_for(client):
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(**chat() | {"model": "gpt"})
    assert unknown.value.code == "model_not_found"
    assert unknown.value.body["message"] == "The model 'gpt' does not exist here. This server has 'echo'."
    with pytest.raises(openai.BadRequestError) as long:
        await client.chat.completions.create(**chat("x" * 600), stream=True)
    assert long.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "x" * 9999},
        {"x" * 9999: 1},
        {"stop": ["x"] * 9999},
        {"messages": [{"role": "x" * 9999, "content": ""}]},
        {"messages": [{"role": "user", "content": [{"type": "x" * 9999}]}]},
    ],
)
async def test_what_a_client_sent_is_not_sent_back_at_length(echo, wrong):
    status, _, answer = await echo.post("/v1/chat/completions", chat() | wrong)
    assert status in (400, 404)
    assert len(json.dumps(answer)) < 600


async def test_malformed_json(echo):
    status, _, answer = await echo.post("/v1/chat/completions", b'{"model": "echo",}')
    assert status == 400
    assert answer["error"]["message"].startswith("The request's body is not valid JSON: ")
    assert "line 1 column 17" in answer["error"]["message"]
    status, _, answer = await echo.post("/v1/completions", b"[1]")
    assert (status, answer["error"]["message"]) == (400, "The request's body must be a JSON object.")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit(echo, announced):
    async def pieces():
        for _ in range(3):
            yield b" " * (1 << 19)

    body = io.BytesIO(b" " * (3 << 19)) if announced else pieces()
    async with aiohttp.ClientSession() as session, session.post(echo.url + "/v1/completions", data=body) as response:
        answer = await response.json()
    assert (response.status, answer["error"]["code"]) == (413, "request_too_large")


async def test_unknown_routes_and_methods(echo):
    status, _, answer = await echo.post("/v1/nothing", {})
    assert (status, answer["error"]["message"]) == (404, "Not Found: POST /v1/nothing")
    status, body = await echo.get("/v1/completions")
    assert (status, json.loads(body)["error"]["message"]) == (405, "Method Not Allowed: GET /v1/completions")


@pytest.mark.parametrize(
    ("prompts", "n", "param", "message"),
    [
        (65, 1, "prompt", "at most 64 prompts, but got 65 instead."),
        (64, 5, "n", "at most 256 answers to all prompts together, but got 320 instead."),
    ],
)
async def test_a_request_asks_for_so_many_answers_at_most(echo, prompts, n, param, message):
    status, _, answer = await echo.post("/v1/completions", {"model": "echo", "prompt": ["a"] * prompts, "n": n})
    assert (status, answer["error"]["param"]) == (400, param)
    assert answer["error"]["message"].endswith(message)


@pytest.mark.parametrize("more", [{"echo": True}, {"best_of": 3}, {"prompt": ""}, {"prompt": []}, {"prompt": [300]}])
async def test_completions_refuse_what_they_cannot_do(echo, more):
    status, _, answer = await echo.post("/v1/completions", {"model": "echo", "prompt": "a"} | more)
    assert status == 400
    assert answer["error"]["param"] == next(iter(more))


async def test_usage_counts_a_prompt_and_what_was_cached_of_it_once(client):
    """The stand-in finds half of the first choice's prompt in its cache, and nearly all of the others'."""
    answer = await client.completions.create(model="echo", prompt=["abcdefgh", "ij"], n=3)
    assert answer.usage.prompt_tokens == 10
    assert answer.usage.prompt_tokens_details.cached_tokens <= 4 + 1
    alone = await client.completions.create(model="echo", prompt="abcdefgh", n=3)
    assert alone.usage.prompt_tokens_details.cached_tokens == 4


async def test_the_last_seeds_successor_is_the_first(client, echo):
    await client.completions.create(model="echo", prompt="a", n=2, seed=2**63 - 1)
    assert [request.sampling.seed for request in echo.submitted()[-2:]] == [2**63 - 1, -(2**63)]


async def test_text_that_needs_care_in_json_is_streamed_as_it_is(client):
    text = 'quotes " and \\ and \x01\x7f\u2028 and ␀ and \n'
    stream = await client.completions.create(model="echo", prompt=text, max_tokens=100, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == text
    stream = await client.chat.completions.create(**chat(text), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == f"user: {text}\n"
