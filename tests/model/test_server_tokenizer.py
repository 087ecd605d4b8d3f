"""Tokenizer and chat template as the server builds them from GGUF metadata, against transformers'."""

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Tokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from moorage_runtime.formats.gguf import GgufError, read_metadata
from moorage_runtime.server.model_card import ModelCardError, load_card
from moorage_runtime.server.tokenizer import TokenizerError, gguf_tokenizer

pytestmark = pytest.mark.model

TEXTS = [
    "Hello, world! It's 12345 o'clock; they'll've WE'RE i'm.",
    "  leading and   many    spaces\t\ttabs\n\n\nlines\r\n\r\nend  ",
    "def f(x):\n    return x ** 2  # 3.14159e-10\n\n\nclass A:\n\tpass\n",
    "Grüße aus Köln: äöüß ÆØÅ, naïve café — “quotes” … §±µ",
    "日本語のテキスト。中文文本、混合 mixed 한국어 텍스트",
    "Emoji 🎉👩‍👩‍👧‍👦🇩🇪 e\u0301 combining, zero\u200bwidth, \u00a0nbsp",
    "عربى हिन्दी ไทย",
    "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n",
    "a" * 300 + " " + "1" * 50 + "!" * 50,
    "",
    " ",
    "\n",
]
MESSAGES = [
    [{"role": "user", "content": "What is a harbour?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": "Hi 🎉"},
        {"role": "assistant", "content": " Hello\n"},
        {"role": "user", "content": "<b>&amp;</b>"},
    ],
]


@pytest.fixture(scope="module")
def metadata(smollm2_path):
    return read_metadata(smollm2_path)


@pytest.fixture(scope="module")
def reference(smollm2_path):
    return AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)


def vocabulary(metadata):
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    return {token: index for index, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in merges]


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_is_split_as_transformers_splits_it(smollm2_path, reference, text):
    tokenizer = load_card(smollm2_path).tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == reference(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_smollm2_never_joins_two_numerals(smollm2_path, metadata):
    """transformers' GGUF loader ignores this part of the split; the reference is llama.cpp's rule: each alone."""
    reference = Tokenizer(models.BPE(*vocabulary(metadata)))
    numerals = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")
    reference.pre_tokenizer = pre_tokenizers.Sequence([numerals, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer = load_card(smollm2_path).tokenizer
    for text in ("عربى ١٢٣ हिन्दी १२३ ½ ² Ⅷ 12٣45", "x1y22 333 4.5e6"):
        assert tokenizer.encode(text).ids == reference.encode(text).ids


@pytest.mark.parametrize("messages", MESSAGES)
def test_a_conversation_is_rendered_as_transformers_renders_it(smollm2_path, reference, messages):
    card = load_card(smollm2_path)
    expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert card.template.render(messages) == expected
    assert card.eos_token_ids == {2}
    assert card.bos_token_id is None


def gpt2(vocabulary, merges):
    return GPT2Tokenizer(vocab=vocabulary, merges=merges)._tokenizer


def qwen2(vocabulary, merges):
    return Qwen2Tokenizer(vocab=vocabulary, merges=merges)._tokenizer


def llama3(vocabulary, merges):
    # Llama 3 has no class of its own: its tokenizer.json was made by this converter.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(TikTokenConverter().pattern), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize(("name", "build"), [("gpt-2", gpt2), ("qwen2", qwen2), ("llama-bpe", llama3)])
def test_the_other_splits_are_those_of_transformers(metadata, name, build):
    ours = gguf_tokenizer(metadata | {"tokenizer.ggml.pre": name, "tokenizer.ggml.token_type": []})
    theirs = build(*vocabulary(metadata))
    for text in TEXTS:
        if "<|" not in text:  # control tokens are not part of what is compared
            assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False).ids


def test_an_unknown_split_is_refused(metadata):
    with pytest.raises(TokenizerError, match="pre-tokenizer 'tekken' is not one of gpt-2, llama-bpe, qwen2, smollm"):
        gguf_tokenizer(metadata | {"tokenizer.ggml.pre": "tekken"})
    with pytest.raises(TokenizerError, match="of type 'llama'"):
        gguf_tokenizer(metadata | {"tokenizer.ggml.model": "llama"})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"GGML" + bytes(40), "does not start with 'GGUF'"), (None, "run over the end")],
)
def test_a_damaged_file_is_said_to_be_damaged(tmp_path, smollm2_path, content, message):
    file = tmp_path / "model.gguf"
    if content is None:
        with smollm2_path.open("rb") as whole:
            content = whole.read(100_000)
    file.write_bytes(content)
    with pytest.raises(GgufError, match=message):
        read_metadata(file)
    with pytest.raises(ModelCardError):
        load_card(tmp_path)
