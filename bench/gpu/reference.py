"""What transformers generates from the same weights in float32, and how far it agrees."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

MARGIN = 1e-3
"""Where the reference's two best logits are closer, the order of additions may decide: the comparison ends there."""
TEXTS = [
    "Once upon a time",
    "The quick brown fox",
    "def fibonacci(n):",
    "1, 2, 3, 4,",
    "Kubernetes is",
    "The opposite of hot is",
    "SELECT name FROM",
    "Dear Sir or Madam,",
    "The largest animal is",
    "What is the capital of France? The capital is",
    '{"name": "Ada", "age":',
    " ".join(f"Item {number} costs {number * 7} coins." for number in range(40)),
]


@dataclass(frozen=True, slots=True)
class Expected:
    """A prompt and the reference's greedy answer to it."""

    prompt: list[int]
    tokens: list[int]
    margins: list[float]
    """At each token, by how much the best logit exceeds the second."""


def expected(path: Path, device: str, new_tokens: int) -> list[Expected]:
    """The reference's answers to `TEXTS`."""
    with contextlib.redirect_stdout(sys.stderr):
        tokenizer, model = _gguf(path) if path.is_file() else _folder(path)
    model = model.eval().to(device)
    return [_answer(model, list(tokenizer(text)["input_ids"]), device, new_tokens) for text in TEXTS]


def agreement(reference: list[Expected], answers: list[list[int]]) -> tuple[int, list[str]]:
    """How many tokens agree, and what is wrong: differences that rounding does not explain."""
    compared, wrong = 0, []
    for each, tokens in zip(reference, answers, strict=True):
        for index, (token, margin) in enumerate(zip(each.tokens, each.margins, strict=True)):
            if index >= len(tokens) or tokens[index] != token:
                if margin > MARGIN:
                    wrong.append(f"token {index} of {tokens} is not that of {each.tokens} (margin {margin:.4f})")
                break
            compared += 1
    return compared, wrong


def _answer(model: Any, prompt: list[int], device: str, new_tokens: int) -> Expected:
    run = model.generate(
        torch.tensor([prompt], device=device),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=device),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(run.logits, 1)[0].float().topk(2, dim=-1).values
    return Expected(prompt, run.sequences[0, len(prompt) :].tolist(), (best[:, 0] - best[:, 1]).tolist())


def _folder(path: Path) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def _gguf(path: Path) -> tuple[Any, Any]:
    # `from_pretrained` of a GGUF wants accelerate only to place the layers; this is what it calls besides.
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call] # transformers leaves it untyped
    read: Any = load_gguf_checkpoint  # untyped
    tensors = read(str(path), return_tensors=True, model_to_load=model)["tensors"]
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name), model
