"""Which device computes, what fits a GPU, and what a GPU's start tells, on machines that may have none."""

import pytest
import torch

from moorage_runtime.engine.errors import StartError
from moorage_runtime.group.links import Links
from moorage_runtime.model import device, division
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.device import device_of
from moorage_runtime.model.division import Division
from moorage_runtime.model.errors import InsufficientMemoryError
from moorage_runtime.model.settings import Settings
from moorage_runtime.model.torch_path import gpu
from moorage_runtime.model.torch_path.load import Part, load, paged_kernel

MIB = 2**20


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Say what this machine has: a GPU's device file, and a torch that finds it."""

    def have(*, gpu_file, torch_finds_it):
        file = tmp_path / "nvidiactl"
        if gpu_file:
            file.touch()
        monkeypatch.setattr(device, "GPU_FILES", (file,))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_finds_it)

    return have


@pytest.mark.parametrize(
    ("asked", "gpu_file", "torch_finds_it", "expected"),
    [
        (None, True, True, "cuda"),
        (None, True, False, "cpu"),  # a build of torch for processors on a node with GPUs
        (None, False, False, "cpu"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, True, "cuda"),
    ],
)
def test_a_gpu_computes_where_there_is_one(machine, asked, gpu_file, torch_finds_it, expected):
    machine(gpu_file=gpu_file, torch_finds_it=torch_finds_it)
    assert device_of(asked) == expected


@pytest.mark.parametrize(
    ("cuda", "reason"), [(None, "is built without CUDA"), ("13.0", "no GPU is visible to this process")]
)
def test_a_gpu_that_is_asked_for_and_not_there_is_refused_with_the_reason(machine, monkeypatch, cuda, reason):
    machine(gpu_file=False, torch_finds_it=False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(StartError, match=f"--device cuda: .*{reason}"):
        device_of("cuda")


def test_the_cache_takes_what_is_free_and_leaves_a_tenth():
    budget = gpu.GpuBudget(total=1000 * MIB, free=100 * MIB, block=MIB)
    assert budget.kv_blocks(context_length=160, max_running=64) == 89  # one block is for padded rows
    assert budget.kv_blocks(context_length=160, max_running=2) == 20


def test_a_context_that_does_not_fit_is_refused_with_what_does():
    budget = gpu.GpuBudget(total=1000 * MIB, free=10 * MIB, block=MIB)
    with pytest.raises(InsufficientMemoryError, match=r"20Mi of KV.* contextLength 320, and 128 tokens fit.* 10Mi"):
        budget.kv_blocks(context_length=320, max_running=4)


def test_weights_larger_than_what_is_free_are_refused_before_they_are_loaded(small_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (1000, 2 * MIB))
    monkeypatch.setattr(gpu, "default_dtype", lambda: torch.bfloat16)
    with pytest.raises(InsufficientMemoryError, match="of the GPU's 2Mi, 1Mi are free; use a larger GPU"):
        load(open_checkpoint(small_model), "cuda", None, lambda _done: pytest.fail("weights are loaded"))


@pytest.mark.parametrize(
    ("head_dim", "dtype", "capability", "installed"),
    [
        (64, torch.bfloat16, (9, 0), {"triton"}),
        (64, torch.bfloat16, (9, 0), {"gcc"}),
        (256, torch.float16, (7, 5), {"gcc", "triton"}),
        (256, torch.float32, (9, 0), {"gcc", "triton"}),
    ],
    ids=["no compiler", "no Triton", "wide heads before Ampere", "wide heads in float32"],
)
def test_keys_are_gathered_where_the_kernel_cannot_be_compiled(monkeypatch, head_dim, dtype, capability, installed):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: name if name in installed else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert paged_kernel(torch.device("cuda"), head_dim, dtype) is None


def test_what_computes_is_told(small_model):
    plain = load(open_checkpoint(small_model), "cpu", "float32", lambda _done: None)
    assert plain.kernels.startswith("torch-cpu ")
    assert plain.dtype == "float32"
    rounded = load(open_checkpoint(small_model, "Int8"), "cpu", "bfloat16", lambda _done: None)
    assert rounded.kernels.endswith(", Q8_0 as bfloat16")
    assert rounded.weight_bytes * 2 == plain.weight_bytes


def test_a_pod_with_fewer_gpus_than_ranks_is_refused_before_the_ranks_meet(small_model, monkeypatch):
    monkeypatch.setattr(division, "device_of", lambda _asked: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(StartError, match="2 ranks of this pod need a GPU each, and it has 1"):
        Division.open(Settings(small_model, 4), ranks=2, local_ranks=2)
    assert Division.open(Settings(small_model, 4), ranks=2, local_ranks=1).backend == "torch-cuda"


def test_each_rank_of_a_pod_has_a_gpu_which_all_of_torch_takes(small_model, monkeypatch):
    """Streams, graphs and Triton go to the current device, whatever device the tensors are on."""
    chosen = []

    def memory(where):
        assert chosen == [where]
        return 1000, 2 * MIB

    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    monkeypatch.setattr(gpu, "default_dtype", lambda: torch.bfloat16)
    third = Part(Links(rank=3, ranks=4, local_ranks=2, controls=(-1,) * 4), ())
    with pytest.raises(InsufficientMemoryError):
        load(open_checkpoint(small_model), "cuda", None, lambda _done: None, third)
    assert chosen == [torch.device("cuda", 1)]


def test_why_a_group_computes_with_torch_is_told_to_the_others(small_model):
    divided = Division.open(Settings(small_model, 4, dtype="float16", device="cpu"), ranks=2)
    hello = divided.hello(1)
    assert (hello.computing, hello.because) == (
        "torch-cpu, float16, no quantisation",
        "float16 is computed on a GPU only",
    )
    by_kernels = Division.open(Settings(small_model, 4, dtype="float32", device="cpu"), ranks=2).hello(1)
    assert (by_kernels.computing, by_kernels.because) == ("native, float32, no quantisation", "")
