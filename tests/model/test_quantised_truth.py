"""How far the shipped types are from float32 of the same weights: distributions of the next token in real answers.

The quantised model multiplies activations of 8 bits, as llama.cpp does. On these very prompts (40, up to 24 tokens of
each answer) llama.cpp's distributions from the same file are 0.0033 to 0.0034 off (mean KL divergence), and their most
likely token is float32's at 96.6 to 97.1 % of the positions. The bound on the divergence is below that.
"""

from array import array

import numpy as np
import pytest

from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.kernels.library import Session, SessionOptions, StepInput
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.weights import pack
from moorage_runtime.server.model_card import load_card

pytestmark = pytest.mark.model

MOST = 128
"""Tokens of a prompt and its answer."""
ANSWER = 24
QUESTIONS = """What is the capital of France?
What is the capital of Japan?
Name three primary colours.
How many legs does a spider have?
Write a haiku about the sea.
Explain photosynthesis in one sentence.
What is 12 times 7?
Who wrote Romeo and Juliet?
Translate "good morning" into Spanish.
List four seasons of the year.
What does DNA stand for?
Why is the sky blue?
Give me a recipe for pancakes.
What is the largest planet in the solar system?
How do I sort a list in Python?
What is the opposite of hot?
Tell me a joke about cats.
Who was the first person on the moon?
Describe an apple to someone who has never seen one.
What is the boiling point of water?
Summarise the plot of Cinderella.
What is a prime number?
Name a mammal that can fly.
How far is the moon from the earth?
What are the benefits of exercise?
Write a short poem about autumn.
What is the square root of 81?
Who painted the Mona Lisa?
What language is spoken in Brazil?
How does a bicycle stay upright?
What is the chemical symbol for gold?
Give two synonyms of happy.
What is the fastest land animal?
Which ocean is the largest?
Explain gravity to a child.
What day comes after Tuesday?
How many continents are there?
What is machine learning?
Write an email asking for a day off.
What is the freezing point of water in Fahrenheit?""".splitlines()


@pytest.fixture(scope="module")
def prompts(smollm2_path):
    tokenizer = load_card(smollm2_path).tokenizer
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    chat = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [tokenizer.encode(chat.format(system, text), add_special_tokens=False).ids for text in QUESTIONS]


@pytest.fixture(scope="module")
def chats(room, smollm2_path, prompts):
    """Prompts, and greedy answers to them in float32."""
    asked = [Submit(str(i), ids, ANSWER, SamplingParams(temperature=0.0), [2]) for i, ids in enumerate(prompts)]
    given, _ = room(smollm2_path, "native", "float32").answer(asked)
    return [(prompt, given[str(index)].tokens) for index, prompt in enumerate(prompts)]


class Distributions:
    """Log-probabilities of the token at each position of an answer: (positions, vocabulary)."""

    def __init__(self, path, dtype):
        checkpoint = open_checkpoint(path)
        options = SessionOptions(
            threads=1,
            rows=MOST,
            samples=MOST,
            blocks=blocks_for(MOST),
            layers=checkpoint.config.layers,
            spin_ns=0,
            kernels=b"",
            bf16_cache=dtype != "float32",
        )
        self._session = Session(pack(checkpoint, dtype, 1, lambda _done: None), options)

    def of(self, prompt, answer):
        tokens = array("i", prompt + answer[:-1])
        count, zero = array("i", [len(tokens)]), array("i", [0])
        table = array("i", range(blocks_for(len(tokens))))
        samples = array("i", range(len(prompt) - 1, len(tokens)))
        best = array("i", bytes(4 * len(samples)))
        drawn = array("B", [1] * len(samples))
        arrays = (tokens, zero, count, zero, table, samples, drawn, best)
        self._session.step(StepInput(1, len(tokens), len(samples), *(each.buffer_info()[0] for each in arrays)))
        logits = self._session.logits[: len(samples)].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("dtype", "divergence", "agreement", "margin"),
    [(None, 0.0028, 0.96, 0.6), ("bfloat16", 0.0004, 0.98, 0.2)],
    ids=["Q4_1", "bfloat16"],
)
def test_distributions_are_near_those_of_float32(smollm2_path, chats, dtype, divergence, agreement, margin):  # noqa: PLR0917 - three bounds
    """Mean divergence, share of equal choices, and no other choice where float32's first two are `margin` apart.

    Seen with attention by AMX and by AVX-512: divergences of 0.0024 and 0.0023 (Q4_1), 0.0002 both (bfloat16); equal
    choices 97.4 and 97.1 %, 98.8 and 99.8 %; margins of up to 0.34 and 0.08. The last two bounds were set after these
    were seen: few positions are near ties, so a share of equal choices varies more than a divergence does.
    """
    exact, ours = Distributions(smollm2_path, "float32"), Distributions(smollm2_path, dtype)
    divergences, same, margins = [], [], []
    for prompt, answer in chats:
        p, q = exact.of(prompt, answer), ours.of(prompt, answer)
        best = np.sort(p, axis=1)
        divergences += (np.exp(p) * (p - q)).sum(axis=1).tolist()
        same += (p.argmax(axis=1) == q.argmax(axis=1)).tolist()
        margins += (best[:, -1] - best[:, -2]).tolist()
    assert len(same) > 20 * len(chats)
    assert np.mean(divergences) < divergence
    assert np.mean(same) > agreement
    assert np.all(same, where=np.array(margins) > margin)
