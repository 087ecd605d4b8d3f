"""The hub: SmolLM2 in safetensors, in bfloat16 as its publisher has it or in float32, made from a GGUF file.

python serve.py REPOSITORY BF16|F32 GGUF_FILE
"""

import json
import struct
import sys
import threading
from pathlib import Path

import numpy as np
from hub_server import Hub

from moorage_runtime.formats.gguf import read_metadata
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.weights import floats_of
from moorage_runtime.server.model_card import load_card

ATTENTION = [f"self_attn.{name}_proj.weight" for name in "qkvo"]
MLP = [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
LAYER = ["input_layernorm.weight", "post_attention_layernorm.weight", *ATTENTION, *MLP]


def tensors(checkpoint, kind):
    """(name, numbers of that type in their shape); those of bfloat16 as their bits."""
    layers = [f"model.layers.{layer}.{part}" for layer in range(checkpoint.config.layers) for part in LAYER]
    for name in ("model.embed_tokens.weight", "model.norm.weight", *layers):
        numbers = floats_of(checkpoint.stored(name))
        if kind == "F32":
            yield name, numbers
        else:
            bits = numbers.view(np.uint32)
            yield name, ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def safetensors(checkpoint, kind):
    """The weights as one file."""
    header, parts, at = {}, [], 0
    for name, values in tensors(checkpoint, kind):
        end = at + values.nbytes
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, end]}
        parts.append(values.tobytes())
        at = end
    head = json.dumps(header).encode()
    return b"".join([struct.pack("<Q", len(head)), head, *parts])


def config(checkpoint):
    """What transformers would have written."""
    shape = checkpoint.config
    return {
        "model_type": shape.architecture,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rms_norm_eps": shape.rms_eps,
        "rope_theta": shape.rope.theta,
        "max_position_embeddings": shape.context_length,
        "tie_word_embeddings": shape.tied_embeddings,
        "eos_token_id": list(shape.eos_token_ids),
    }


def model(gguf, kind):
    """The files of the repository."""
    checkpoint = open_checkpoint(gguf)
    return {
        "config.json": json.dumps(config(checkpoint)).encode(),
        "tokenizer.json": load_card(gguf).tokenizer.to_str().encode(),
        "chat_template.jinja": read_metadata(gguf)["tokenizer.chat_template"].encode(),
        "model.safetensors": safetensors(checkpoint, kind),
    }


if __name__ == "__main__":
    _, repository, kind, gguf = sys.argv
    Hub(("0.0.0.0", 8000)).repositories[repository] = model(Path(gguf), kind)
    threading.Event().wait()
