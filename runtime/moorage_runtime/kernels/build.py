"""Builds the library from `src/`: each file for the instruction set that its name ends with, linked into one.

    python -m moorage_runtime.kernels.build

Only the standard library is needed, because the wheel's build hook runs this, too. Objects are kept by the hash of all
that goes into them, so a build after which nothing changed takes milliseconds.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "libmoorage_kernels.so"
OBJECTS = FOLDER.parents[2] / "build" / "kernels"

_COMMON = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=off",  # products are fused where the source says so and nowhere else: that fixes their bits
    "-fno-math-errno",  # a square root is one instruction
    "-Wall",
    "-Wextra",
    # GCC's own headers of intrinsics trip these two (GCC bug 105593).
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
)
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, *(f"-mavx512{name}" for name in ("f", "bw", "vl", "dq", "vnni", "bf16")))
_SUFFIXES = {
    "avx2": ("x86_64", _AVX2),
    "avxvnni": ("x86_64", (*_AVX2, "-mavxvnni")),
    "avx512": ("x86_64", _AVX512),
    "amx": ("x86_64", (*_AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16")),
    "neon": ("aarch64", ("-march=armv8.2-a+dotprod",)),
}
"""What a file's name ends with: the machine that it is for, and the flags it is compiled with there."""
# The C++ runtime comes along, so that an image needs no package for it.
_LINK = ("-shared", "-pthread", "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL")


class NoCompilerError(Exception):
    """There is nothing to build with, or nothing to build: the runtime then computes with torch."""


class CompileError(Exception):
    """A file does not compile; the message is the compiler's."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A command, and what tells it from another."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Unit:
    """One file to compile."""

    source: Path
    flags: tuple[str, ...]


def build(library: Path = LIBRARY, objects: Path = OBJECTS) -> bool:
    """Bring the library up to date.

    Args:
        library: Where it goes.
        objects: A folder for what can be used again.

    Returns:
        Whether anything had to be done.

    Raises:
        NoCompilerError: neither $CXX nor g++, clang++ or c++ is there, or no sources are.
        CompileError: a file does not compile or the objects do not link.
    """
    compiler = _compiler()
    units = _units()
    objects.mkdir(parents=True, exist_ok=True)
    with _locked(objects):
        headers = _digest(path.read_bytes() for pattern in ("*.h", "*.inl") for path in sorted(_sources(pattern)))
        targets = [objects / f"{_key(unit, compiler, headers)}.o" for unit in units]
        stamp, key = objects / f"{library.stem}.linked", _digest([str(library).encode(), *(_name(t) for t in targets)])
        if library.exists() and stamp.exists() and stamp.read_text() == key:
            return False
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(lambda unit, target: _compile(compiler, unit, target), units, targets))
        _run([*compiler.command, *_LINK, *map(str, targets)], library)
        stamp.write_text(key)
        _forget(objects, targets)
    return True


def _compiler() -> Compiler:
    asked = os.environ.get("CXX")
    for command in [shlex.split(asked)] if asked else [["g++"], ["clang++"], ["c++"]]:
        if shutil.which(command[0]):
            said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - the compiler
            return Compiler(tuple(command), said.stdout)
    raise NoCompilerError(f"there is no C++ compiler: {asked or 'neither g++ nor clang++ nor c++'} is found")


def _units() -> list[Unit]:
    units = []
    for source in sorted(_sources("*.cpp")):
        machine, flags = _SUFFIXES.get(source.stem.rpartition("_")[2], (platform.machine(), ()))
        if machine == platform.machine():
            units.append(Unit(source, (*_COMMON, *flags)))
    if not units:
        raise NoCompilerError(f"there are no sources in {FOLDER / 'src'}")
    return units


def _sources(pattern: str) -> list[Path]:
    return list((FOLDER / "src").glob(pattern))


def _key(unit: Unit, compiler: Compiler, headers: str) -> str:
    told = (unit.source.name, unit.flags, compiler, headers)
    return f"{unit.source.stem}-{_digest([repr(told).encode(), unit.source.read_bytes()])}"


def _digest(parts: Iterator[bytes] | list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:24]


def _name(path: Path) -> bytes:
    return path.name.encode()


def _compile(compiler: Compiler, unit: Unit, target: Path) -> None:
    if not target.exists():
        _run([*compiler.command, *unit.flags, "-c", str(unit.source)], target)


def _run(command: list[str], target: Path) -> None:
    """Write `target` in one go: a process that has the old library mapped keeps it."""
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
    done = subprocess.run([*command, "-o", str(unfinished)], capture_output=True, text=True, check=False)  # noqa: S603 - the compiler
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise CompileError(f"{shlex.join(command)}\n{done.stderr}")
    unfinished.rename(target)


def _forget(objects: Path, current: list[Path]) -> None:
    for path in set(objects.glob("*.o")) - set(current):
        path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        flock(file, LOCK_EX)
        yield


def main() -> None:
    """Build in place, and say what was done."""
    try:
        done = build()
    except NoCompilerError as reason:
        print(f"kernels: {reason}; the runtime will compute with torch", file=sys.stderr)  # noqa: T201 - a command
    except CompileError as error:
        raise SystemExit(f"kernels: {error}") from None
    else:
        print(f"kernels: {LIBRARY.name} {'built' if done else 'is up to date'}")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
