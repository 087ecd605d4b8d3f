"""A small model with random weights, written as a checkpoint, and engines over it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.plan import Limits
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.torch_path.cache import KVCache
from moorage_runtime.model.torch_path.llama import Llama
from moorage_runtime.model.torch_path.runner import ModelRunner

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCABULARY, LAYERS = 64, 4, 2, 16, 96, 211, 2
CONFIG = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}


def tensors(hidden=HIDDEN, mlp=MLP, head_dim=HEAD_DIM):
    """Weights large enough that the two best logits are far apart."""
    generator = torch.Generator().manual_seed(7)
    queries, kv = HEADS * head_dim, KV_HEADS * head_dim
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (queries, hidden),
            f"{prefix}.self_attn.k_proj.weight": (kv, hidden),
            f"{prefix}.self_attn.v_proj.weight": (kv, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, queries),
            f"{prefix}.mlp.gate_proj.weight": (mlp, hidden),
            f"{prefix}.mlp.up_proj.weight": (mlp, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, mlp),
        }
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny products are computed by one thread anyway; on a busy machine others only make it wait."""
    torch.set_num_threads(1)


@pytest.fixture
def write_model(tmp_path):
    """Write the small model, with changes to its `config.json`; returns its folder."""

    def write(*, wide=False, wide_heads=64, **config) -> Path:
        """`wide`: rows of whole blocks of 256, as the K-quants have them, and heads of so many numbers."""
        wider = {"hidden_size": 256, "intermediate_size": 512, "head_dim": wide_heads} if wide else {}
        (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **wider, **config}))
        save_file(tensors(256, 512, wide_heads) if wide else tensors(), tmp_path / "model.safetensors")
        return tmp_path

    return write


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def engine_of(small_model):
    """Engines over the small model in float32."""
    model = Llama(open_checkpoint(small_model), torch.float32, lambda _done: None)

    def build(**changed) -> Engine:
        limits = {
            "context_length": 256,
            "vocab_size": VOCABULARY,
            "total_blocks": 128,
            "max_running": 16,
            "token_budget": 128,
        }
        made = Limits(**{**limits, **changed})
        return Engine(ModelRunner(model, KVCache(model.config, made.total_blocks, model.dtype)), made)

    return build


@pytest.fixture(scope="session")
def paged_reference():
    """What every kernel of `moorage_runtime.model.torch_path.paged` is compared with."""
    return _paged_attention


def _paged_attention(queries, blocks, tables, tiles, *, tokens, out):
    """As its definition says it, row by row, in float64."""
    group = queries.shape[1] // blocks.shape[3]
    for sequence, first_row, first_position, rows in tiles.tolist():
        assert rows <= tokens
        for offset in range(rows):
            length = first_position + offset + 1
            used = tables[sequence, : blocks_for(length)].long()
            keys, values = (blocks[used, :, kind].flatten(0, 1)[:length].double() for kind in (0, 1))
            query = queries[first_row + offset].double()
            scores = torch.einsum("hd,lhd->hl", query, keys.repeat_interleave(group, 1)) * query.shape[-1] ** -0.5
            result = torch.einsum("hl,lhd->hd", scores.softmax(-1), values.repeat_interleave(group, 1))
            out[first_row + offset] = result.to(out.dtype)


class _OneDevice(TorchDispatchMode):
    """Fails, as a GPU would, when an operation is given tensors of two devices, other than to copy them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.ndim]
        devices = {tensor.device.type for tensor in given}
        assert len(devices) <= 1 or func.name() == "aten::copy_", f"{func} of {devices}"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def one_device():
    """For tensors of the device `meta`, which have no numbers: looking at one fails as well."""
    with _OneDevice():
        yield


@pytest.fixture(scope="session")
def engine_processes(load_module):
    """What tests of engines' processes share."""
    return load_module(Path(__file__).with_name("processes.py"))


@pytest.fixture
def spawn(tmp_path, engine_processes):
    """Start an engine's process; all are killed at the end."""
    with engine_processes.spawning(tmp_path) as start:
        yield start
