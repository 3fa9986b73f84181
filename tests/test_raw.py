"""Raw files: read, written, and read by ngspice and spicelib."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs_ngspice

import circuitsim as cs
from circuitsim import cli
from circuitsim.errors import SettingsError
from circuitsim.io.raw import NgspiceError, Plot, read_raw, write_raw
from circuitsim.spice.ngspice import run_ngspice, tight_options

ODD = "odd names\nV1 net-1.a 0 3\nR1 net-1.a n[3] 1k\nR2 n[3] 2n 1k\nR3 2n n_1/x+y 1k\nR4 n_1/x+y a#b 1k\nR5 a#b 0 1k\n"
NUMBERS = np.array([[0.1 + 0.2, -1e-300, 1 / 3], [5e-324, 1.7976931348623157e308, -0.0]])
SWEPT = Plot(
    "DC transfer characteristic", (("v(v-sweep)", "voltage"), ("v(out)", "voltage"), ("i(v1)", "current")), NUMBERS
)
POINT = Plot("Operating Point", (("v(a)", "voltage"), ("@r1[p]", "power")), np.array([[2.5, 2 / 3]]))


def header(name: str, variables: list[tuple[str, str]], points: int, flags: str = "real") -> bytes:
    """The header of a plot as ngspice-39 writes it."""
    lines = ["Title: a deck", "Date: Tue Nov 24 05:36:49  2026", f"Plotname: {name}", f"Flags: {flags}"]
    lines += [f"No. Variables: {len(variables)}", f"No. Points: {points}       ", "Variables:"]
    lines += [f"\t{i}\t{variable}\t{unit}" for i, (variable, unit) in enumerate(variables)]
    return ("\n".join(lines) + "\n").encode()


OP = header("Operating Point", [("v(a)", "voltage"), ("i(v1)", "current")], 1)
SWEEP = header("DC transfer characteristic", [("v(v-sweep)", "voltage"), ("v(a)", "voltage")], 3)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_binary_plots() -> None:
    sweep = SWEEP + b"Binary:\n" + struct.pack("<6d", 0, 0.5, 1, 1.5, 2, 2.5)
    first, second = read_raw(sweep + OP + b"Binary:\n" + struct.pack("<2d", 3.0, -1e-3))
    assert first.name == "DC transfer characteristic"
    assert first.variables == (("v(v-sweep)", "voltage"), ("v(a)", "voltage"))
    np.testing.assert_array_equal(first.values, [[0, 0.5], [1, 1.5], [2, 2.5]])
    assert second.name == "Operating Point"
    np.testing.assert_array_equal(second.values, [[3.0, -1e-3]])


def test_a_number_that_looks_like_a_line_end_does_not_end_a_binary_plot() -> None:
    tricky = struct.unpack("<d", b"\nTitle:\n")[0]
    first, second = read_raw(2 * (OP + b"Binary:\n" + struct.pack("<2d", tricky, 1.0)))
    assert first.values.tolist() == second.values.tolist() == [[tricky, 1.0]]


def test_ascii_plots() -> None:
    sweep = SWEEP + b"Values:\n0\t\t0.0e+00\n\t5.0e-01\n\n1\t\t1.0e+00\n\t1.5e+00\n2\t\t2.0e+00\n\t-2.5e+00\n"
    first, second = read_raw(sweep + OP + b"Values:\n0\t\t3.0\n\t-1e-3\n")
    np.testing.assert_array_equal(first.values, [[0, 0.5], [1, 1.5], [2, -2.5]])
    np.testing.assert_array_equal(second.values, [[3.0, -1e-3]])


def test_an_analysis_that_failed_has_no_points() -> None:
    failed = SWEEP.replace(b"Points: 3", b"Points: 0").split(b"\t0\t")[0]
    [plot] = read_raw(failed)
    assert plot.values.shape == (0, 2)
    assert [p.values.shape for p in read_raw(failed + OP + b"Binary:\n" + bytes(16))] == [(0, 2), (1, 2)]
    assert read_raw(b"") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("AC Analysis", [("frequency", "frequency")], 1, "complex") + b"Binary:\n" + bytes(16), "'AC Analysis'"),
        (SWEEP + b"Binary:\n" + struct.pack("<5d", 1, 2, 3, 4, 5), "ends after 5 of 6 numbers"),
        (SWEEP + b"Binary:\n" + struct.pack("<5d", 1, 2, 3, 4, 5) + b"1234", "ends after 5 of 6 numbers"),
        (SWEEP + b"Values:\n0\t\t0.0\n\t0.5\n1\t\t1.0\n", "ends after 3 of 6 numbers"),
        (OP.replace(b"Variables: 2", b"Variables: 3") + b"Binary:\n" + bytes(24), "names 2 of its 3 variables"),
        (b"Circuit: something else\n", "not a raw file"),
        (OP.replace(b"Points: 1", b"Points: -1"), "not a raw file"),
        (OP.replace(b"Points: 1", b"Points: 0").replace(b"Variables: 2", b"Variables: " + 30 * b"9"), "not a raw file"),
        (OP.replace(b"\tvoltage", b"") + b"Binary:\n" + bytes(16), "a variable has no name"),
        (OP + b"Values:\n0\t1.0\n\t0.5e\n", "not a value: .*0.5e"),
    ],
)
def test_bad_raw_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(NgspiceError, match=message):
        read_raw(data)


def test_columns_by_name() -> None:
    [plot] = read_raw(SWEEP + b"Binary:\n" + struct.pack("<6d", 0, 0.5, 1, 1.5, 2, 2.5))
    assert plot.column("v(a)").tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(NgspiceError, match=r"no variable 'v\(b\)' in the plot 'DC transfer .*v\(v-sweep\), v\(a\)"):
        plot.column("v(b)")


# -- writing -----------------------------------------------------------------------------------------------------------


def assert_same_plots(found: list[Plot], wanted: list[Plot]) -> None:
    assert [(plot.name, plot.variables) for plot in found] == [(plot.name, plot.variables) for plot in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.values.shape == other.values.shape
        assert one.values.tobytes() == other.values.tobytes()


@pytest.mark.parametrize("ascii", [False, True])
def test_written_plots_come_back_to_the_bit(tmp_path: Path, ascii: bool) -> None:
    path = tmp_path / "out.raw"
    write_raw(path, [SWEPT, POINT, SWEPT], title="two\nlines", ascii=ascii)
    assert_same_plots(read_raw(path.read_bytes()), [SWEPT, POINT, SWEPT])
    assert [p.name for p in tmp_path.iterdir()] == ["out.raw"]


def test_the_header_is_ngspice_s(tmp_path: Path) -> None:
    write_raw(str(tmp_path / "out.raw"), [POINT], title="a deck")
    lines = (tmp_path / "out.raw").read_bytes().split(b"Binary:\n")[0].decode().splitlines()
    assert [line.split(":")[0] for line in lines[:8]] == [
        "Title", "Date", "Plotname", "Flags", "No. Variables", "No. Points", "Command", "Variables",
    ]  # fmt: skip
    assert lines[0] == "Title: a deck"
    assert lines[3:7] == [
        "Flags: real", "No. Variables: 2", "No. Points: 1",
        f"Command: version ngspice raw file by circuitsim {cs.__version__}",
    ]  # fmt: skip
    assert lines[8:] == ["\t0\tv(a)\tvoltage", "\t1\t@r1[p]\tpower"]


def test_long_ascii_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.io.raw._NUMBERS", 4)
    long = Plot("DC transfer characteristic", SWEPT.variables, np.arange(21.0).reshape(7, 3))
    write_raw(tmp_path / "out.raw", [long, POINT], ascii=True)
    assert_same_plots(read_raw((tmp_path / "out.raw").read_bytes()), [long, POINT])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        write_raw(tmp_path / "none" / "out.raw", [POINT])


# -- what others read --------------------------------------------------------------------------------------------------


def loaded_by_ngspice(path: Path) -> list[Plot]:
    """What ngspice holds after `load`: it writes each plot again, last first."""
    count = len(read_raw(path.read_bytes()))
    again = "".join(f"write again{k}.raw all\ndestroy\n" for k in range(count))
    (path.parent / "load.cir").write_text(f"load\n.control\nload {path.name}\n{again}quit 0\n.endc\n.end\n")
    done = subprocess.run(["ngspice", "-n", "-b", "load.cir"], cwd=path.parent, capture_output=True, text=True)
    assert "rror" not in done.stdout + done.stderr
    plots = [read_raw((path.parent / f"again{k}.raw").read_bytes()) for k in range(count)]
    return [plot for [plot] in reversed(plots)]


def by_name(plot: Plot) -> dict[str, list[float]]:
    """Columns by name; ngspice writes the variables of a plot in an order of its own."""
    return {name: plot.column(name).tolist() for name, _ in plot.variables}


def by_spicelib(path: Path) -> list[dict[str, list[float]]]:
    """Columns by name of each plot, as spicelib reads them without a word about who wrote the file."""
    from spicelib import RawRead

    plots = RawRead(str(path)).plots
    return [{name: plot.get_wave(name).tolist() for name in plot.get_trace_names()} for plot in plots]


def solve_cli(*arguments: str) -> str:
    result = CliRunner().invoke(cli.main, ["solve", *arguments])
    assert result.exit_code == 0, result.output
    return result.stderr


@needs_ngspice
@pytest.mark.parametrize("form", [[], ["--ascii"]])
def test_ngspice_loads_an_operating_point_and_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.cir").write_text(ODD)
    np.save("x.npy", [1.0, 2.0, 7.0])
    for arguments in ([], ["--input", "V1=@x.npy"]):
        solve_cli("odd.cir", "--raw", "out.raw", "--save", "all,@r1[i]", *form, *arguments)
        [wanted] = read_raw(Path("out.raw").read_bytes())
        [found] = loaded_by_ngspice(tmp_path / "out.raw")
        assert found.name == wanted.name
        assert dict(found.variables) == dict(wanted.variables)
        assert by_name(found) == by_name(wanted)
        names = [name for name, _ in wanted.variables]
        assert {"v(net-1.a)", "v(n[3])", "v(2n)", "v(n_1/x+y)", "v(a#b)", "i(v1)", "i(r1)", "@r5[p]", "i(@r1[i])"} < {
            *names
        }
        assert len(set(names)) == len(names)
    assert wanted.name == "Operating points of a batch"
    assert wanted.variables[0] == ("row", "notype")
    assert wanted.column("row").tolist() == [0.0, 1.0, 2.0]
    np.testing.assert_allclose(wanted.column("v(n[3])"), [0.8, 1.6, 5.6], rtol=1e-7)
    np.testing.assert_allclose(wanted.column("@r5[p]"), np.array([1.0, 4.0, 49.0]) / 25e3, rtol=1e-7)


@needs_ngspice
def test_ngspice_prints_what_it_loaded(tmp_path: Path) -> None:
    write_raw(tmp_path / "out.raw", [POINT])
    (tmp_path / "load.cir").write_text("load\n.control\nload out.raw\nprint v(a)\nwrdata out.txt @r1[p]\n.endc\n.end\n")
    command = ["ngspice", "-n", "-b", "load.cir"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "v(a) = 2.500000e+00" in done.stdout
    assert float((tmp_path / "out.txt").read_text().split()[-1]) == pytest.approx(2 / 3, rel=1e-7)


@needs_ngspice
@pytest.mark.parametrize("ascii", [False, True])
def test_ngspice_loads_several_plots(tmp_path: Path, ascii: bool) -> None:
    sweep = Plot(SWEPT.name, SWEPT.variables, np.array([[0.0, 0.1, -1e-3], [1.0, 1 / 3, -2e-3]]))
    write_raw(tmp_path / "out.raw", [sweep, POINT], title="t", ascii=ascii)
    found = loaded_by_ngspice(tmp_path / "out.raw")
    assert [(plot.name, by_name(plot)) for plot in found] == [(p.name, by_name(p)) for p in (sweep, POINT)]


@pytest.mark.parametrize("form", [[], ["--ascii"]])
def test_spicelib_reads_an_operating_point_and_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.cir").write_text(ODD)
    np.save("x.npy", [1.0, 2.0, 7.0])
    for arguments in ([], ["--input", "V1=@x.npy"]):
        solve_cli("odd.cir", "--raw", "out.raw", "--save", "all", *form, *arguments)
        [wanted] = read_raw(Path("out.raw").read_bytes())
        assert by_spicelib(Path("out.raw")) == [by_name(wanted)]


@pytest.mark.parametrize("ascii", [False, True])
def test_spicelib_reads_several_plots(tmp_path: Path, ascii: bool) -> None:
    write_raw(tmp_path / "out.raw", [SWEPT, POINT], ascii=ascii)
    assert by_spicelib(tmp_path / "out.raw") == [by_name(SWEPT), by_name(POINT)]


# -- the command -------------------------------------------------------------------------------------------------------


@needs_ngspice
def test_the_raw_file_of_a_solve_is_that_of_ngspice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same names and types for all that both give, and the same values."""
    monkeypatch.chdir(tmp_path)
    deck = (
        "both\nV1 In 0 5\nR1 In b 1k\nD1 b 0 dd area=2\nX1 b c cell\nL1 c e 1m\nR9 e 0 2k\nI1 0 b 1m\n"
        ".model dd D(rs=3)\n.subckt cell p q\nR1 p q 1k\nVs q z 0\nR2 z 0 3k\n.ends\n"
        ".save all @r1[i] @r1[p] @d1[id] @d1[vd] @r.x1.r1[i] @r.x1.r1[p] @r1[r] @i1[c] @v1[p]\n.op\n.end\n"
    )
    Path("deck.cir").write_text(deck)
    solve_cli("deck.cir", "--raw", "out.raw", "--tol", "1e-12")
    [own] = read_raw(Path("out.raw").read_bytes())
    [peer] = run_ngspice(deck, options=tight_options()).plots
    assert own.name == peer.name
    types = dict(own.variables)
    for name, what in peer.variables:
        assert types[name] == what
        np.testing.assert_allclose(own.column(name), peer.column(name), rtol=1e-6, atol=1e-15, err_msg=name)


def test_ascii_needs_a_raw_file(tmp_path: Path) -> None:
    deck = tmp_path / "deck.cir"
    deck.write_text(ODD)
    result = CliRunner().invoke(cli.main, ["solve", str(deck), "--ascii"])
    assert result.exit_code == 2
    assert "--ascii applies to the raw file; add --raw OUT.raw" in result.stderr
    result = CliRunner().invoke(cli.main, ["solve", str(deck), "--raw", str(tmp_path)])
    assert result.exit_code == 2
    assert "not a regular file" in result.stderr


def test_a_warning_names_what_a_raw_file_cannot_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop.cir").write_text("loop\nV1 a 0 5\nV2 a 0 5\nR1 a 0 1k\n")
    assert solve_cli("loop.cir", "--raw", "out.raw", "--save", "@v1[p]") == (
        "warning: currents that are not unique: V1, V2\nwarning: saved values that are not unique: @v1[p]\n"
    )
