"""A model that starts and then fails: its embeddings were damaged on the way, and became NaN wherever text has a token.

It is a Python package of some kilobytes. The engine's warm-up computes token 0 only, which is whole, so that a replica
becomes ready; every request that comes then ends with the engine's own error 500.
"""

import io
import json
import zipfile
from typing import Any, Final

import numpy as np
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAME: Final = "damaged-model"
VERSION: Final = "1"
SOURCE: Final = f"python://{NAME}=={VERSION}"
WHEEL: Final = f"damaged_model-{VERSION}-py3-none-any.whl"
ERROR: Final = "the model computed no finite number for this request"
"""What its engine says of every request."""

_BYTES: Final = 256
_HIDDEN: Final = 64
_KV: Final = 32
_CONFIG: Final = {
    "model_type": "llama",
    "vocab_size": _BYTES + 1,
    "hidden_size": _HIDDEN,
    "intermediate_size": 2 * _HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "eos_token_id": _BYTES,
}
_TEMPLATE: Final = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"


def wheel() -> bytes:
    """The package as `pip download` gets it."""
    files: dict[str, str | bytes] = {
        "damaged_model/config.json": json.dumps(_CONFIG),
        "damaged_model/tokenizer.json": _tokenizer().to_str(),
        "damaged_model/chat_template.jinja": _TEMPLATE,
        "damaged_model/model.safetensors": save(_tensors()),
        f"damaged_model-{VERSION}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"damaged_model-{VERSION}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"damaged_model-{VERSION}.dist-info/RECORD": "",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return archive.getvalue()


def _tokenizer() -> Tokenizer:
    """A token per byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", normalized=False)])
    return tokenizer


def _tensors() -> dict[str, Any]:
    chance = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> Any:
        return chance.normal(0, 0.1, (rows, columns)).astype(np.float32)

    embeddings = matrix(_BYTES + 1, _HIDDEN)
    embeddings[1:] = np.nan
    ones, layer = np.ones(_HIDDEN, np.float32), "model.layers.0"
    return {
        "model.embed_tokens.weight": embeddings,
        # All alike, so that the warm-up's second token is 0 again.
        "lm_head.weight": np.zeros((_BYTES + 1, _HIDDEN), np.float32),
        "model.norm.weight": ones,
        f"{layer}.input_layernorm.weight": ones,
        f"{layer}.post_attention_layernorm.weight": ones,
        f"{layer}.self_attn.q_proj.weight": matrix(_HIDDEN, _HIDDEN),
        f"{layer}.self_attn.k_proj.weight": matrix(_KV, _HIDDEN),
        f"{layer}.self_attn.v_proj.weight": matrix(_KV, _HIDDEN),
        f"{layer}.self_attn.o_proj.weight": matrix(_HIDDEN, _HIDDEN),
        f"{layer}.mlp.gate_proj.weight": matrix(2 * _HIDDEN, _HIDDEN),
        f"{layer}.mlp.up_proj.weight": matrix(2 * _HIDDEN, _HIDDEN),
        f"{layer}.mlp.down_proj.weight": matrix(_HIDDEN, 2 * _HIDDEN),
    }
