"""From windows to rows, ratios and goals; and runs that are taken up again."""

import pytest

from bench.runtime.answers import Sample
from bench.runtime.cells import CELLS
from bench.runtime.load import Timing
from bench.runtime.options import read
from bench.runtime.result import LLAMA, OURS, VLLM, goal, lowest, ratios, rows
from bench.runtime.state import Measured, State, latest, whole
from bench.runtime.table import table

BY_NAME = {cell.name: cell for cell in CELLS}
TIMING = Timing(warm_up=5.0, window=25.0)


def window(server: str, tok_s: float, round_: int = 0, cell: str = "16", class_name: str = "bf16") -> Measured:
    found = Sample(
        tok_s=tok_s,
        ttft_p50_ms=10.0,
        ttft_p95_ms=20.0,
        itl_p50_ms=5.0,
        itl_p95_ms=9.0,
        requests=12,
        cut_share=1.0,
        tokens_per_event=1.0,
        window_s=25.0,
    )
    return Measured(
        class_name=class_name,
        cell=cell,
        round=round_,
        server=server,
        sample=found,
        rss_mib=100.0 + round_,
        client_cpu=0.02,
        server_cpu=1.9,
    )


def test_a_ratio_is_the_median_of_those_within_a_round():
    # The machine was half as fast in the second round: the ratio of the medians would be wrong.
    measured = [window(OURS, 100, 0), window(VLLM, 50, 0), window(OURS, 50, 1), window(VLLM, 25, 1)]
    measured += [window(OURS, 90, 2), window(VLLM, 30, 2)]
    (found,) = ratios(measured)
    assert (found.class_name, found.cell, found.peer, found.value) == ("bf16", "16", VLLM, 2.0)
    assert found.met


def test_a_round_without_the_peer_makes_no_ratio():
    (found,) = ratios([window(OURS, 100, 0), window(OURS, 60, 1), window(VLLM, 60, 1)])
    assert found.value == 1.0
    assert not found.met


def test_the_lowest_ratio_of_each_peer():
    measured = [window(OURS, 100), window(VLLM, 50), window(OURS, 90, cell="1"), window(VLLM, 100, cell="1")]
    assert lowest(ratios(measured)) == {VLLM: 0.9}


def test_rows_are_medians_over_the_rounds():
    (row,) = rows([window(OURS, value, number) for number, value in enumerate((10, 30, 20))], BY_NAME)
    assert (row["tok_s"], row["rss_mib"], row["rounds"], row["clients"], row["prompt"]) == (20, 102, 3, 16, 30)
    assert row["tok_s_rounds"] == [10, 30, 20]


@pytest.mark.parametrize(
    ("peer", "cell", "wanted"),
    [(VLLM, "1", 1.2), (VLLM, "64", 1.2), (LLAMA, "1", 1.0), (LLAMA, "1-long", 1.0), (LLAMA, "16", 1.5)],
)
def test_goals(peer, cell, wanted):
    assert goal(peer, cell) == wanted


def test_the_table_names_a_goal_that_was_missed():
    measured = [window(OURS, 100), window(VLLM, 100)]
    text = table(rows(measured, BY_NAME), ratios(measured))
    assert "bf16, 16 (16 clients, 30 tokens in)" in text
    assert "1.00  (goal 1.2)" in text


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = State(tmp_path / "runs" / "1.jsonl")
    state.begin(TIMING)
    measured = [window(OURS, 100), window(VLLM, 50)]
    for one in measured:
        state.add(one)
    with state.path.open("a") as file:
        file.write('{"class_name": "bf1')  # killed while it wrote
    again = State(latest(tmp_path / "runs"))
    assert again.resume(TIMING) == measured
    again.add(window(OURS, 100, 1))
    assert again.resume(TIMING) == [*measured, window(OURS, 100, 1)]


def test_a_window_that_was_measured_again_counts_once(tmp_path):
    state = State(tmp_path / "1.jsonl")
    state.begin(TIMING)
    for one in (window(OURS, 1), window(OURS, 100), window(VLLM, 50)):
        state.add(one)
    assert state.resume(TIMING) == [window(OURS, 100), window(VLLM, 50)]


def test_a_state_of_other_windows_is_refused(tmp_path):
    state = State(tmp_path / "1.jsonl")
    state.begin(TIMING)
    with pytest.raises(SystemExit, match="resume with the same"):
        state.resume(Timing(warm_up=1.0, window=2.0))


def test_nothing_to_resume_is_told(tmp_path):
    with pytest.raises(SystemExit, match="nothing to resume"):
        latest(tmp_path)


def test_half_a_group_is_measured_again():
    measured = [window(OURS, 100, 0), window(VLLM, 50, 0), window(OURS, 100, 1)]
    assert whole(measured, [OURS, VLLM]) == measured[:2]


def test_variables_are_flags_in_capitals():
    options = read([], {"CLASS": "gguf", "CELLS": "64,1", "PEERS": LLAMA, "ROUNDS": "5", "WINDOW": "10"})
    assert options.classes == ("gguf",)
    assert [cell.name for cell in options.cells] == ["1", "64"]
    assert (options.peers, options.rounds, options.timing) == ((LLAMA,), 5, Timing(5.0, 10.0))


def test_a_flag_wins_over_its_variable():
    assert read(["--rounds", "1"], {"ROUNDS": "5"}).rounds == 1


@pytest.mark.parametrize("argv", [["--cells", "7"], ["--class", "fp8"], ["--peers", "moorage"], ["--rounds", "0"]])
def test_what_is_not_there_cannot_be_asked_for(argv, capsys):
    with pytest.raises(SystemExit):
        read(argv, {})
    assert argv[1] in capsys.readouterr().err


def test_a_quick_run_is_short():
    options = read([], {"QUICK": "1"})
    servers = 6
    seconds = options.timing.warm_up + options.timing.window
    assert servers * len(options.cells) * options.rounds * seconds < 480
