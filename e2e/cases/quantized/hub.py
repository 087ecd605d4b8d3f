"""The hub of this case: SmolLM2 as its publisher has it, in bfloat16, made from the GGUF file in the runtime's image.

python hub.py REPOSITORY GGUF_FILE
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


def tensors(checkpoint):
    """{name: bfloat16 numbers, as bytes of their shape}."""
    layers = [f"model.layers.{layer}.{part}" for layer in range(checkpoint.config.layers) for part in LAYER]
    for name in ("model.embed_tokens.weight", "model.norm.weight", *layers):
        bits = floats_of(checkpoint.stored(name)).view(np.uint32)
        yield name, ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def safetensors(checkpoint):
    """The weights as one file."""
    header, parts, at = {}, [], 0
    for name, values in tensors(checkpoint):
        end = at + values.nbytes
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, end]}
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


def model(gguf):
    """The files of the repository."""
    checkpoint = open_checkpoint(gguf)
    return {
        "config.json": json.dumps(config(checkpoint)).encode(),
        "tokenizer.json": load_card(gguf).tokenizer.to_str().encode(),
        "chat_template.jinja": read_metadata(gguf)["tokenizer.chat_template"].encode(),
        "model.safetensors": safetensors(checkpoint),
    }


if __name__ == "__main__":
    files = model(Path(sys.argv[2]))
    Hub(("0.0.0.0", 8000)).repositories[sys.argv[1]] = files
    threading.Event().wait()
