"""The benchmark harness: options, arithmetic, tables, errors, and a short run of two rows beside PyTorch."""

from __future__ import annotations

import json
import mmap
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import funcnn as fn
from benchmarks import cold, kernels, report, rows, soak, worker

LIMITS = {"flops": 100e9, "memory": 10e9, "cache": 40e9, "cache_bytes": 1e9}


def found(ours: Any = None, theirs: Any = None, **does: float) -> dict[str, Any]:
    """What ``measure`` gives for a row with only a forward pass; a string is an error."""
    sides = {}
    for library, times in (("funcnn", ours), ("torch", theirs)):
        sides[library] = {"forward": [], "train": [], "does": {"forward": {"flops": 0, "bytes": 0, **does}}}
        sides[library] |= {"error": times} if isinstance(times, str) else {"forward": times or []}
    return sides


def test_rows_are_found_by_pattern() -> None:
    assert kernels.parse([]).names == list(rows.ROWS) and not rows.MAIN.keys() & rows.EXTRA.keys()
    assert kernels.parse(["--rows", "^linear"]).names == ["linear 64x1024 -> 1024", "linear 512x4096 -> 1024"]
    assert kernels.parse(["--quick"]).rounds == 2 and kernels.parse(["--quick", "--rounds", "7"]).rounds == 7


@pytest.mark.parametrize(
    "given, told", [(["--rows", "nowhere"], "finds none of"), (["--rows", "gelu", "--write"], "leave --rows out")]
)
def test_wrong_options_are_told(given: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        kernels.parse(given)
    assert told in capsys.readouterr().err


def test_ratio_and_mean() -> None:
    assert report.ratio(2.0, 3.0) == 1.5 and report.ratio(None, 3.0) is None and report.ratio(2.0, None) is None
    assert report.mean_ratio([2.0, None, 8.0]) == pytest.approx(4.0) and report.mean_ratio([None]) is None


def test_a_row_takes_medians_and_the_limit_that_binds() -> None:
    row = kernels.summary(found([1.0, 9.0, 2.0], [3.0, 3.0, 9.0], flops=50e9, bytes=2e9), LIMITS)["forward"]
    assert (row["ours"], row["torch"], row["ratio"]) == (2.0, 3.0, 1.5)
    assert (row["gflops"], row["gbs"], row["limit"]) == (25.0, 1.0, 25.0)  # half a second of flops in two
    assert kernels.summary(found([1.0], [1.0], bytes=8e9), LIMITS)["forward"]["limit"] == 80.0
    assert kernels.summary(found([1.0], [1.0], bytes=1e9), LIMITS)["forward"]["limit"] == 2.5  # from the cache


def test_cells() -> None:
    row = kernels.summary(found([2e-3], [3e-3], flops=1e8, bytes=2e6), LIMITS)
    assert kernels.cells("x", row) == ["x", "2.000", "3.000", "1.50", "-", "-", "-", "50", "1.0", "50", "-"]
    wrong = kernels.cells("x", kernels.summary(found("ValueError: a|b", [3e-3]), LIMITS))
    assert wrong[1:4] == ["error: ValueError: a|b", "3.000", "-"]
    assert report.table(["row", "ms"], [wrong[:2]]).splitlines()[-1] == "| x | error: ValueError: a/b |"


def test_the_document_counts_and_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels.NOTES, "gelu 16M", "a reason")
    times = {"gelu 16M": ([2.0], [1.0]), "tanh 16M": ([1.0], [8.0]), "dropout 4M": ([1.0], [0.9])}
    measured = {name: kernels.summary(found(*pair), LIMITS) for name, pair in times.items()}
    text = kernels.document(measured, LIMITS, kernels.parse([]), 0.0, ["tanh 16M"])
    assert "5 times at most; not so: tanh 16M." in text
    assert "- forward: geometric mean 2.00, 1 of 2 at 1.0 or better" in text  # over the rows only
    assert "- gelu 16M (0.50 forward): a reason" in text
    assert "- dropout 4M (0.90 forward): no reason noted yet" in text
    assert text.index("| tanh 16M |") < text.index("### More rows") < text.index("| dropout 4M |")


def test_a_row_is_measured_again_until_the_cpus_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Paced:
        def __init__(self, *paces: float) -> None:
            self.paces = list(paces)

        def ask(self, do: str, dtype: str) -> float:
            assert (do, dtype) == ("pace", "float32")
            return self.paces.pop(0)

    waits: list[float] = []
    monkeypatch.setattr(kernels, "sleep", waits.append)
    monkeypatch.setattr(kernels, "measure", lambda workers, *args: {"left": len(workers["funcnn"].paces)})
    run = lambda *paces: kernels.steadily({"funcnn": Paced(*paces)}, "row", "float32", 1, 0.0, 100.0)
    assert run(95, 99) == ({"left": 1}, True) and not waits
    assert run(50, 96, 60, 97, 98) == ({"left": 1}, True) and len(waits) == 1  # waits, then again, for it ended slowly
    assert run(*[95, 50] * kernels.TRIES) == ({"left": 1}, False)


def test_text_goes_between_its_markers() -> None:
    once = report.put_between("# Results\n\nkept\n", "a", "one")
    assert once == "# Results\n\nkept\n\n<!-- a -->\none\n<!-- /a -->\n"
    both = report.put_between(once + "\nalso kept\n", "b", "two")
    again = report.put_between(both, "a", "three\n")
    assert again == both.replace("one", "three") and "also kept" in again
    with pytest.raises(ValueError, match="has no <!-- /a --> after it"):
        report.put_between("<!-- a -->", "a", "x")


def test_both_passes_are_counted() -> None:
    case = rows.conv((2, 3, 6, 6), 4, 3, padding=1)(fn)
    inputs, outputs = 4 * (2 * 3 * 36 + 4 * 27 + 4), 4 * 2 * 4 * 36
    assert case.forward is not None and case.train is not None
    assert case.forward.flops == 2 * 2 * 4 * 36 * 27 and case.train.flops == 3 * case.forward.flops
    assert case.forward.bytes == inputs + outputs and case.train.bytes == 3 * inputs + 2 * outputs
    transposed = rows.conv((2, 3, 6, 6), 4, 3, True, stride=2)(fn)
    assert transposed.forward is not None and transposed.forward.flops == 2 * 2 * 3 * 36 * 4 * 9


def test_an_error_stays_in_its_row() -> None:
    one = worker.Worker("funcnn", 1)
    try:
        with pytest.raises(RuntimeError, match="KeyError: 'nowhere'"):
            one.ask(do="prepare", row="nowhere", dtype="float32")
        with pytest.raises(RuntimeError, match="AttributeError"):
            one.ask(do="nothing")
        assert one.process is not None
        one.process.kill()
        one.process.wait()
        assert (
            one.ask(do="prepare", row="adaptive_avg_pool2d 16x512x7x7 -> 1", dtype="float64")["forward"]["flops"] == 0
        )
    finally:
        one.end()


def test_two_rows_beside_torch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("torch")
    kept = tmp_path / "rows.json"
    kernels.main(
        ["--quick", "--rounds", "1", "--threads", "1", "--rows", "^linear 64|^conv2d 32x6", "--json", str(kept)]
    )
    text = capsys.readouterr().out
    cell = r"[\d.]+ \| "
    for name in ("linear 64x1024 -> 1024", "conv2d 32x6x14x14 -> 16 k5"):
        assert re.search(rf"\| {name} \| {cell * 6}\d+ / \d+ \| [\d.]+ / [\d.]+ \| \d+ / \d+ \|", text), text
    raw = json.loads(kept.read_text())
    assert set(raw["limits"]) == set(LIMITS)
    assert len(raw["rounds"]["linear 64x1024 -> 1024"]["torch"]["train"]) == 1


def test_resident_memory_is_plausible() -> None:
    before = soak.resident()
    block = mmap.mmap(-1, 64 << 20)  # memory that nobody had before
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    assert 10 < before < 100_000 and (sys.platform == "darwin" or soak.resident() - before > 50)


def test_a_fresh_process_tells_its_last_line_and_its_compiles(tmp_path: Path) -> None:
    told = "import sys; print('funcnn: compiling f()', file=sys.stderr); print('first'); print(0.5)"
    assert cold.run(str(tmp_path), "-c", told) == ("0.5", 1)
    with pytest.raises(RuntimeError, match="ValueError: no"):
        cold.run(str(tmp_path), "-c", "raise ValueError('no')")

    def failing() -> list[list[str]]:
        raise RuntimeError("no")

    assert cold.attempt(failing) == [["failing", "error: no", "-", "-"]]


def test_the_share_of_others_leaves_out_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    others = report.Bystanders()
    monkeypatch.setattr(report.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(others, "start", (0.0, 10.0, 1.0))
    monkeypatch.setattr(others, "now", lambda: (10.0, 25.0, 11.0))  # 15 s busy, 10 of them ours, in 10 s of 2 CPUs
    assert others.share() == pytest.approx(25.0)


def test_results_are_written_between_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    report.RESULTS.write_text("# Measured results\n\n<!-- cold -->\nold\n<!-- /cold -->\n")
    report.write("cold", "new")
    assert report.RESULTS.read_text() == "# Measured results\n\n<!-- cold -->\nnew\n<!-- /cold -->\n"
