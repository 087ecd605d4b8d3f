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

pytestmark = pytest.mark.model

MARGIN = 1e-3
NEW_TOKENS = 24
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
]
TEXTS = [
    "Once upon a time",
    "The quick brown fox",
    "def fibonacci(n):",
    "1, 2, 3, 4,",
    "In the beginning",
    "Kubernetes is",
    "A",
    " ".join(f"Item {number} costs {number * 7} coins." for number in range(40)),
]


class Reference:
    """What transformers generates, with the distance of the two best logits at each token."""

    def __init__(self, model):
        self.model = model

    def generate(self, prompt):
        run = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(run.logits)[:, 0].float().topk(2, dim=-1).values
        return {
            "prompt": prompt,
            "tokens": run.sequences[0, len(prompt) :].tolist(),
            "margins": (best[:, 0] - best[:, 1]).tolist(),
        }


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
    """Batched together, batched while others come and go, and alone."""
    together, _ = room.answer(requests(references, stop))
    late = requests(references, stop)
    arriving, _ = room.answer(late[:3], after={2 * step: [request] for step, request in enumerate(late[3:])})
    total = 0
    for request, reference in zip(requests(references, stop), references, strict=True):
        alone = room.alone(request)
        for answer in (together[request.id], arriving[request.id], alone):
            count = compared(reference, answer.tokens)
        total += count
    assert total >= 0.9 * sum(len(reference["tokens"]) for reference in references)


@pytest.fixture(scope="module")
def smollm2_references(request, smollm2_path):
    """24 prompts; kept in pytest's cache, because the reference takes 20 s to load and a minute to generate."""
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
    reference = Reference(model.eval())
    return [reference.generate(prompt) for prompt in prompts]


def test_smollm2_equals_transformers_batched_and_alone(smollm2, smollm2_references):
    assert len(smollm2_references) >= 20
    assert_equal(smollm2, smollm2_references, stop=list(smollm2.model.config.eos_token_ids))


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


@pytest.mark.parametrize("name", MODELS)
def test_small_random_models_equal_transformers(room, tmp_path, name):
    model_class, config = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, which start as zeros and ones
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(tmp_path)
    reference = Reference(model)
    prompts = [torch.randint(1, 199, (length,)).tolist() for length in (1, 2, 15, 16, 17, 40, 90, 200)]
    assert_equal(room(tmp_path), [reference.generate(prompt) for prompt in prompts], stop=[])
