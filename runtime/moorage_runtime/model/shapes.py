"""The shape that each tensor of a model must have: files that contradict their config are refused, not computed."""

from moorage_runtime.model.config import ModelConfig

ROPE_FACTORS = "rope_freqs"
"""Name of the tensor that holds divisors of the rotary frequencies."""


def shape_of(config: ModelConfig, name: str) -> tuple[int, int]:
    """Rows and columns of the tensor of that Hugging Face name; vectors have one row.

    Raises:
        KeyError: no model of the family has such a tensor.
    """
    if name == ROPE_FACTORS:
        return 1, config.head_dim // 2
    module, _, kind = name.rpartition(".")
    part = module.split(".", 3)[3] if module.startswith("model.layers.") else module
    if part.endswith("norm"):
        return 1, config.head_dim if part in ("self_attn.q_norm", "self_attn.k_norm") else config.hidden_size
    rows, columns = _matrix(config, part)
    return (1, rows) if kind == "bias" else (rows, columns)


def _matrix(config: ModelConfig, part: str) -> tuple[int, int]:
    hidden, mlp = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "model.embed_tokens": (config.vocab_size, hidden),
        "lm_head": (config.vocab_size, hidden),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }[part]
