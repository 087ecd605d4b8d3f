"""Small models with random weights, the chunks of steps, and the instruction sets of this machine one by one."""

import json

import pytest
import torch
from safetensors.torch import save_file

from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.plan import Chunk, StepPlan
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.kernels import library

HIDDEN, HEADS, KV_HEADS, MLP, VOCABULARY, LAYERS = 64, 6, 2, 96, 211, 2
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ARCHITECTURES = {
    "llama": {"model_type": "llama", "head_dim": 16, "tie_word_embeddings": True},
    "llama-biased": {"model_type": "llama", "head_dim": 64, "rope_parameters": LLAMA3, "biases": ("q", "k", "v", "o")},
    "mistral": {"model_type": "mistral", "head_dim": 32, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "head_dim": 48, "biases": ("q", "k", "v")},
    "qwen3": {"model_type": "qwen3", "head_dim": 80},
    "multi-head": {"model_type": "llama", "head_dim": 16, "num_key_value_heads": HEADS},
    "multi-query": {"model_type": "llama", "head_dim": 128, "num_key_value_heads": 1},
}


def write_model(folder, name, dtype=torch.float32, spoil=lambda _tensors: None, hidden=HIDDEN):
    """A checkpoint of one of the architectures; `spoil` may change its tensors."""
    changed = {**ARCHITECTURES[name]}
    biases = changed.pop("biases", ())
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        **changed,
    }
    tensors = _tensors(config, biases)
    spoil(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.to(dtype) for key, value in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _tensors(config, biases):
    generator = torch.Generator().manual_seed(5)
    dim, kv_heads, hidden = config["head_dim"], config["num_key_value_heads"], config["hidden_size"]
    sizes = {"q": HEADS * dim, "k": kv_heads * dim, "v": kv_heads * dim}
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (VOCABULARY, hidden)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (size, hidden) for name, size in sizes.items()}
        shapes |= {f"{prefix}.self_attn.{name}_proj.bias": ({**sizes, "o": hidden}[name],) for name in biases}
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.o_proj.weight": (hidden, HEADS * dim),
            f"{prefix}.mlp.gate_proj.weight": (MLP, hidden),
            f"{prefix}.mlp.up_proj.weight": (MLP, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, MLP),
        }
        if config["model_type"] == "qwen3":
            shapes |= {f"{prefix}.self_attn.{name}_norm.weight": (dim,) for name in "qk"}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


class Feed:
    """Sequences of random tokens, each with blocks of its own, and the chunks that compute them."""

    def __init__(self, lengths, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.sequences, first = [], 0
        for index, length in enumerate(lengths):
            tokens = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
            blocks = list(range(first, first + -(-length // 16)))
            first += len(blocks)
            # Out of order, as after a while in a real cache.
            self.sequences.append(_sequence(str(index), tokens, blocks[::-1]))
        self.blocks = first

    def whole(self, index):
        return chunk(self.sequences[index], 0, self.sequences[index].length)


def _sequence(name, tokens, blocks):
    return Sequence(
        id=name,
        tokens=tokens,
        prompt_length=len(tokens),
        max_length=len(tokens) + 1,
        sampling=SamplingParams(temperature=0.0),
        stop_token_ids=frozenset(),
        order=(0, 0),
        blocks=blocks,
    )


def chunk(sequence, start, count):
    return Chunk(sequence, start, count, samples=start + count == sequence.length)


def logits_of(runner, chunks):
    """{sequence id: row of logits} of the chunks that sample, in one step."""
    runner.execute(StepPlan(tuple(chunks), ()))
    names = [each.sequence.id for each in chunks if each.samples]
    return {name: runner._session.logits[row].copy() for row, name in enumerate(names)}


@pytest.fixture(params=["amx", "avx512", "avxvnni", "avx2", "neon", "scalar"])
def instructions(request, monkeypatch):
    """One after the other; what this machine has not is skipped."""
    functions = library.library()
    best = functions["kernels_path"]()
    functions["kernels_select"](request.param.encode())
    found = functions["kernels_path"]().decode()
    if found != request.param:
        functions["kernels_select"](best)
        pytest.skip(f"this machine computes {found} instead of {request.param}")
    monkeypatch.setenv("MOORAGE_KERNELS", request.param)
    yield request.param
    functions["kernels_select"](best)


@pytest.fixture(scope="session")
def kit():
    """What the tests of this folder share."""

    class Kit:
        Feed = Feed
        architectures = tuple(ARCHITECTURES)
        vocabulary = VOCABULARY
        write_model = staticmethod(write_model)
        chunk = staticmethod(chunk)
        logits_of = staticmethod(logits_of)

    return Kit
