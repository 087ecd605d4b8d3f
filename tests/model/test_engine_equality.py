"""Greedy output of the engine is transformers' `generate`, token for token, in float32.

Where the reference's two best logits are closer than `MARGIN`, the order of additions may decide; a difference there
ends the comparison of that prompt and is no failure. How much was compared is asserted too.
"""

import hashlib
import json

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.model.checkpoint import open_checkpoint
from tests.gguf_models import write_gguf

pytestmark = pytest.mark.model

MARGIN = 1e-3
NEW_TOKENS = 24
BATCH = 16
"""Prompts that the reference takes together."""
ALONE = 7
"""Every so many prompts one is computed by itself too."""
TOPICS = ("harbours", "violins", "volcanoes", "the Roman Empire", "prime numbers", "penguins", "chess", "bread", "rain")
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Name three planets.",
    "Why is the sky blue?",
    "Translate 'good morning' to Spanish.",
    "What is 17 plus 25?",
    "Explain photosynthesis to a child.",
    "Give me a recipe for pancakes.",
    "Who wrote Hamlet?",
    "List the days of the week.",
    "What does HTTP stand for?",
    "Tell me a joke about computers.",
    "How do birds fly?",
    "What is the boiling point of water?",
    "Summarize the story of Cinderella in two sentences.",
    "Write a Python function that reverses a string.",
    *(f"Tell me something about {topic}." for topic in TOPICS),
    *(f"What is {number} times {number + 3}?" for number in range(2, 10)),
]
TEXTS = [
    "Once upon a time",
    "The quick brown fox",
    "def fibonacci(n):",
    "1, 2, 3, 4,",
    "In the beginning",
    "Kubernetes is",
    "A",
    "import numpy as np\n\n",
    "Dear Sir or Madam,",
    "Das ist ein",
    "SELECT name FROM",
    "The opposite of hot is",
    '{"name": "Ada", "age":',
    "Chapter 1\n\n",
    " ".join(f"Item {number} costs {number * 7} coins." for number in range(40)),
    *(f"The {word} is" for word in ("sun", "heart", "best way to learn", "largest animal")),
]


class Reference:
    """What transformers generates, with the distance of the two best logits at each token."""

    def __init__(self, model):
        self.model = model

    def generate(self, prompts):
        """Prompts of similar length together, padded on the left; the answers in the order of the prompts."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = {}
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            answers |= zip(chosen, self._batch([prompts[index] for index in chosen]), strict=True)
        return [answers[index] for index in range(len(prompts))]

    def _batch(self, prompts):
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        run = self.model.generate(
            torch.tensor(padded),
            attention_mask=torch.tensor(mask),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(run.logits, 1).float().topk(2, dim=-1).values
        for prompt, ids, two in zip(prompts, run.sequences[:, width:].tolist(), best, strict=True):
            tokens = self._ended(ids)
            yield {"prompt": prompt, "tokens": tokens, "margins": (two[:, 0] - two[:, 1]).tolist()[: len(tokens)]}

    def _ended(self, ids):
        """Up to the first token that ends an answer: what follows is padding."""
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        return ids[: next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))]


def compared(reference, tokens):
    """Tokens compared until the end or an undecided difference; fails at a decided one."""
    for index, (expected, margin) in enumerate(zip(reference["tokens"], reference["margins"], strict=True)):
        if index >= len(tokens) or tokens[index] != expected:
            assert margin <= MARGIN, f"token {index} of {tokens} is not that of {reference['tokens']} (margin {margin})"
            return index
    assert len(tokens) == len(reference["tokens"])
    return len(tokens)


def requests(references, stop):
    greedy = SamplingParams(temperature=0.0)
    return [
        Submit(str(index), reference["prompt"], NEW_TOKENS, greedy, stop) for index, reference in enumerate(references)
    ]


def assert_equal(room, references, stop):
    """Batched together, batched while others come and go, and some alone."""
    asked = requests(references, stop)
    together, _ = room.answer(asked)
    arriving, _ = room.answer(asked[:3], after={step: [request] for step, request in enumerate(asked[3:])})
    total = 0
    for index, (request, reference) in enumerate(zip(asked, references, strict=True)):
        total += compared(reference, together[request.id].tokens)
        compared(reference, arriving[request.id].tokens)
        if index % ALONE == 0:
            compared(reference, room.alone(request).tokens)
    assert total >= 0.9 * sum(len(reference["tokens"]) for reference in references)


@pytest.fixture(scope="module")
def smollm2_references(request, smollm2_path):
    """Kept in pytest's cache, because the reference takes 20 s to load and as long to generate."""
    digest = hashlib.sha256(smollm2_path.read_bytes())
    digest.update(json.dumps([transformers.__version__, torch.__version__, NEW_TOKENS, QUESTIONS, TEXTS]).encode())
    key = f"moorage/smollm2-{digest.hexdigest()[:16]}"
    found = request.config.cache.get(key, None)
    if found is None:
        found = _smollm2_references(smollm2_path)
        request.config.cache.set(key, found)
    return found


def _smollm2_references(path):
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # `from_pretrained` of a GGUF wants accelerate only to place the layers; this is what it calls besides.
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    assert config.rms_norm_eps == pytest.approx(1e-5)
    model = AutoModelForCausalLM.from_config(config)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    loaded = model.load_state_dict(tensors, strict=False)
    assert (loaded.missing_keys, loaded.unexpected_keys) == (["lm_head.weight"], [])  # tied to the embedding
    model.tie_weights()
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]
    prompts += [tokenizer(text)["input_ids"] for text in TEXTS]
    return Reference(model.eval()).generate(prompts)


def test_smollm2_equals_transformers_batched_and_alone(smollm2, smollm2_references):
    assert len(smollm2_references) >= 50
    assert_equal(smollm2, smollm2_references, stop=list(smollm2.model.config.eos_token_ids))


@pytest.mark.parametrize("ranks", ["2 ranks", "3 ranks"])
def test_smollm2_on_several_ranks_equals_transformers(room, smollm2_path, smollm2_references, ranks):
    """Its 3 KV heads on 2 ranks are 2 and 1."""
    loaded = room(smollm2_path, ranks)
    assert_equal(loaded, smollm2_references[::5], stop=list(loaded.model.config.eos_token_ids))


SMALL = {
    "vocab_size": 199,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "llama-untied-biased": (LlamaForCausalLM, LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True)),
    "llama-llama3-rope": (LlamaForCausalLM, LlamaConfig(**SMALL, rope_parameters=LLAMA3)),
    "llama-linear-rope": (
        LlamaForCausalLM,
        LlamaConfig(**SMALL, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    ),
    "mistral-head-dim": (MistralForCausalLM, MistralConfig(**SMALL, head_dim=32, sliding_window=None)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SMALL)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SMALL, head_dim=32)),
    "llama-multi-head": (LlamaForCausalLM, LlamaConfig(**{**SMALL, "num_key_value_heads": 4})),
    "llama-multi-query": (LlamaForCausalLM, LlamaConfig(**{**SMALL, "num_key_value_heads": 1})),
}


@pytest.fixture(scope="module", params=MODELS)
def small(request, tmp_path_factory):
    """(folder with safetensors, the same model as a GGUF file, what transformers generates with it)."""
    model_class, config = MODELS[request.param]
    torch.manual_seed(sum(request.param.encode()))
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, which start as zeros and ones
            parameter.add_(torch.randn_like(parameter) * 0.15)
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    gguf = write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", open_checkpoint(folder))
    prompts = [torch.randint(1, 199, (length,)).tolist() for length in (1, 2, 15, 16, 17, 40, 90, 200)]
    return folder, gguf, Reference(model).generate(prompts)


@pytest.mark.parametrize("format_", ["safetensors", "gguf"])
def test_small_random_models_equal_transformers(room, kernels, small, format_):
    folder, gguf, references = small
    assert_equal(room(folder if format_ == "safetensors" else gguf, kernels), references, stop=[])


@pytest.mark.parametrize("ranks", ["2 ranks", "3 ranks"])
def test_small_random_models_on_several_ranks_equal_transformers(room, small, ranks):
    folder, _, references = small
    assert_equal(room(folder, ranks), references, stop=[])
