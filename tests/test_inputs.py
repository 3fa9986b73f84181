"""Files that hold inputs, and files that are written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.io.files import check_target, remove_torn, replacing
from circuitsim.io.inputs import apply_inputs, input_files, read_array

ARRAY = "array\nVx[0:2] x[0:2] 0 1\nR1[0:2] x[0:2] y[0:2] 1k\nR2[0:2] y[0:2] 0 1k\n.output y[0:2]\n"


# -- Inputs ------------------------------------------------------------------------------------------------------------


def test_inputs_by_number_and_file(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([1, 2, 3], np.int8))
    np.savez(tmp_path / "data.npz", x=np.arange(6.0).reshape(2, 3), i=np.array([0.5, 0.25], np.float32))
    circuit = cs.parse(ARRAY + "I1 0 y[0] 0\n")
    assert apply_inputs(circuit, ["vx=2.5k"]).ties.e.tolist() == [[2500.0] * 3]
    assert apply_inputs(circuit, [f"Vx=@{tmp_path}/one.npy"]).ties.e.tolist() == [[1.0, 2.0, 3.0]]
    assert apply_inputs(circuit, [f"Vx[1]=@{tmp_path}/data.npz:i"]).ties.e.tolist() == [[1, 0.5, 1], [1, 0.25, 1]]
    both = apply_inputs(circuit, [f"Vx=@{tmp_path}/data.npz:x", f"I1=@{tmp_path}/data.npz:i"])
    assert both.ties.e.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert both.current_sources.i.tolist() == [[0.5], [0.25]]


def test_an_input_is_the_value_of_the_card_which_m_multiplies() -> None:
    deck = "t\n.subckt s b\nI1 0 b 1 m=3\nI2[0:1] 0 b 1\nR1 b 0 1\n.ends\nX1 b s m=2\nI3 0 b 1\n"
    circuit = cs.parse(deck)
    before = cs.solve(circuit).voltage("b")
    assert before == pytest.approx((6 + 4 + 1) / 2)
    same = apply_inputs(circuit, ["I.X1.I1=1", "I.X1.I2=1", "i3=1"])
    assert cs.solve(same).voltage("b") == before
    assert apply_inputs(circuit, ["I.X1.I1=2"]).current_sources.i.sum() == pytest.approx(12 + 4 + 1)


TWO = "t\nV1 a 0 1\nR1 a b 1\nR2 b 0 1\nI1 b 0 1 m=2\nV[0:1] c[0:1] 0 1\nR[0:1] c[0:1] 0 1\n"


@pytest.mark.parametrize(
    ("text", "volts", "amps"),
    [
        ("I1,10m\nv1, 2\n", [[2.0]], [[0.02]]),
        ("name,value\n\nI1,10m\n", [[1.0]], [[0.02]]),
        (",0,1\nI1,1,2\nV1,3,4", [[3.0], [4.0]], [[2.0], [4.0]]),  # as a data frame is written
        ("source, first, second\nV1,3,4k", [[3.0], [4000.0]], [[2.0]]),
    ],
)
def test_inputs_by_table(text: str, volts: list[list[float]], amps: list[list[float]], tmp_path: Path) -> None:
    (tmp_path / "loads.csv").write_text(text)
    found = apply_inputs(cs.parse(TWO), [f"@{tmp_path}/loads.csv", "V=5"])
    assert found.ties.e.tolist() == [[*row, 5.0, 5.0] for row in volts]
    assert found.current_sources.i.tolist() == amps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I1,1..2\n", "loads.csv:1: I1: '1..2' is not a number"),
        ("a,b\nI1,x\n", "loads.csv:2: I1: 'x' is not a number; write digits"),
        ("I1,1\nV1,2,3\n", "loads.csv:2: write NAME,VALUE, or NAME,VALUE,VALUE,... with as many values in each line"),
        ("I1,1\nV1\n", "loads.csv:2: write NAME,VALUE, or"),
        ("I1,1\n,2\n", "loads.csv:2: write NAME,VALUE, or"),
        ("I1,1\nV1,2\ni1,2\n", "loads.csv:3: i1 is given in line 1 already"),
        ("name,value\n", "loads.csv has no line NAME,VALUE"),
        ("I1,abc\nV1,1\n", "loads.csv:1: I1: 'abc' is not a number"),
        ("I1,inf\nV1,1\n", "loads.csv:1: I1: 'inf' is not a finite number"),
        ("V1;5\nI1,1\n", "loads.csv:1: write NAME,VALUE"),
        ("I1,1,\n", "loads.csv:1: I1: a value is missing, or there is a comma too many"),
        ("", "loads.csv has no line NAME,VALUE"),
        ("I1,{2*3}\nV1,1", "loads.csv:1: I1: an expression is not allowed here"),
        ("I1,1\nI2,1\n", "input: no element 'I2' in netlist"),
        ("I2,1\nI1,1\n", "input: no element 'I2' in netlist"),
        ("R1,1\n", "input: R1 is not a voltage or current source"),
        ("V,1,2,3\n", "V: new values have shape (3,)"),
        ("V[1],1\n", "input: V[1] is given twice"),
    ],
)
def test_wrong_tables(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "loads.csv").write_text(text)
    with pytest.raises(cs.SettingsError) as caught:
        apply_inputs(cs.parse(TWO), ["V[1]=5", f"@{tmp_path}/loads.csv"])
    assert message in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in (("none.csv", "No such file"), ("x.csv", "is not a CSV file"), ("", "Is a directory")):
        with pytest.raises(cs.SettingsError, match=message):
            apply_inputs(cs.parse(TWO), [f"@{tmp_path / name}"])
    assert input_files(["V1=2", "@loads.csv", "V1=@x.npz:a"]) == [Path("loads.csv"), Path("x.npz")]


def test_inputs_by_ranges(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0], [3.0, 4.0]]))
    circuit = cs.parse(ARRAY)
    assert apply_inputs(circuit, ["Vx[0:1]=0.3"]).ties.e.tolist() == [[0.3, 0.3, 1.0]]
    assert apply_inputs(circuit, [f"vx[2:1]=@{tmp_path}/x.npy"]).ties.e.tolist() == [[1.0, 2.0, 1.0], [1.0, 4.0, 3.0]]
    deck = "t\n.subckt s b\nI1 0 b 1 m=3\nR1 b 0 1\n.ends\nX1[0:2] b[0:2] s m=2\nI3[0:2] 0 b[0:2] 1 m=5\n"
    sources = cs.parse(deck)
    found = apply_inputs(sources, ["I.X1[0:1].I1=2", "I3[1:2]=3"]).current_sources.i
    one_by_one = ["I.X1[0].I1=2", "I.X1[1].I1=2", "I3[1]=3", "I3[2]=3"]
    assert found.tolist() == apply_inputs(sources, one_by_one).current_sources.i.tolist()
    assert sorted(found[0].tolist()) == [5.0, 6.0, 12.0, 12.0, 15.0, 15.0]


def test_an_input_file_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a:b.npy", np.ones(2))
    np.savez(tmp_path / "c:d.npz", k=np.ones(3))
    assert read_array(f"{tmp_path}/a:b.npy").shape == (2,)
    assert read_array(f"{tmp_path}/c:d.npz:k").shape == (3,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Vx", "input Vx: write NAME=VALUE, NAME=@file.npy or NAME=@file.npz:key"),
        ("=3", "input =3: write NAME=VALUE"),
        ("Vx=", "input Vx=: write NAME=VALUE"),
        ("Vx=4k7", "input Vx=4k7: '4k7': ngspice would read it as 4k; write 4.7k"),
        (
            "Vx=x.npy",
            "'x.npy' is not a number; write digits with an optional suffix, such as 4.7k; to read a file write @x.npy",
        ),
        ("Vx[0:9]=1", "input Vx[0:9]=1: 'Vx[0:9]': the array's indices run from 0 to 2"),
        ("Vx=nan", "input Vx=nan: 'nan' is not a finite number"),
        ("Vx=1e999", "beyond the largest double"),
        ("Vq=1", "input Vq=1: no element 'Vq' in netlist"),
        ("R1=1", "R1 is not a voltage or current source; give other values in the netlist"),
        ("Vx=@none.npy", "input Vx=@none.npy: no such file: none.npy"),
        ("Vx=@good.npy:key", "good.npy is a .npy file and has no 'key'; write @good.npy"),
        ("Vx=@good.npz", "good.npz holds x, text; write @good.npz:KEY with one of them as KEY"),
        ("Vx={2*3}", "input Vx={2*3}: an expression is not allowed here: write its value"),
        ("Vx=@text.csv", "of a text file np.save('x.npy', np.loadtxt('text.csv', delimiter=',')) makes one"),
        ("Vx=@good.npz:y", "no array 'y' in good.npz; write @good.npz:KEY with KEY one of x, text"),
        ("Vx=@good.npz:text", "'@good.npz:text' holds <U1, not real numbers; save an array of floats"),
        ("Vx=@tables.npz:x.csv", "'x.csv' in tables.npz is not an array; save it with numpy.savez"),
        ("Vx=@shape.npy", "input Vx=@shape.npy: Vx: new values have shape (2, 4); needs (3,) or (batch, 3)"),
        ("Vx=@norows.npy", "new values have shape (0, 3): a batch of no rows; give one at least"),
        ("Vx=@nan.npy", "'@nan.npy' has nan at [1,1]; every value must be finite"),
        ("Vx=@huge.npy", "'@huge.npy' has inf at [0]; every value must be finite"),
        ("Vx=@truncated.npy", "truncated.npy is damaged or cut short; save it again"),
        ("Vx=@truncated.npz:x", "truncated.npz is damaged or cut short; save it again"),
        ("Vx=@header.npy", "header.npy is damaged or cut short; save it again"),
        ("Vx=@empty.npy", "empty.npy is neither a .npy nor a .npz file; save it with numpy.save or numpy.savez"),
        ("Vx=@pickle.npy", "pickle.npy holds Python objects, which are never loaded; save real numbers"),
        ("Vx=@nul\0.npy", "cannot read nul\0.npy: embedded null byte; it must be a .npy or .npz file"),
        ("Vx=@", "'@' without the name of a file; write @file.npy or @file.npz:KEY, without quotes or blanks"),
        ("Vx=@.", "cannot read .: Is a directory; it must be a .npy or .npz file"),
    ],
)
def test_bad_inputs_name_the_file_and_the_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", np.ones(3))
    np.savez("good.npz", x=np.ones(3), text=np.array(["a"]))
    np.save("shape.npy", np.ones((2, 4)))
    Path("text.csv").write_text("1,2,3")
    with zipfile.ZipFile("tables.npz", "w") as archive:
        archive.write("text.csv", "x.csv")
    np.save("norows.npy", np.ones((0, 3)))
    np.save("nan.npy", np.array([[1, 2, 3], [4, np.nan, np.nan]]))
    np.save("huge.npy", np.full(3, np.longdouble("1e400")))
    Path("truncated.npy").write_bytes(Path("good.npy").read_bytes()[:-1])
    Path("truncated.npz").write_bytes(Path("good.npz").read_bytes()[:-30])
    Path("header.npy").write_bytes(Path("good.npy").read_bytes().replace(b"{", b"(", 1))  # trips Python's tokenizer
    Path("empty.npy").write_bytes(b"")
    np.save("pickle.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(cs.SettingsError) as caught:
        apply_inputs(cs.parse(ARRAY), [text])
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"input {text}: ")


def test_inputs_that_contradict_each_other(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.ones(2))
    np.save(tmp_path / "five.npy", np.ones(5))
    circuit = cs.parse("two\nV1 a 0 1\nV2 b 0 1\nR1 a b 1\n")
    with pytest.raises(cs.SettingsError, match="input v1=2: v1 is given twice"):
        apply_inputs(circuit, ["V1=1", "v1=2"])
    with pytest.raises(cs.SettingsError, match=r"input V2=@.*five\.npy: V2: batch of 5 does not fit the batch of 2"):
        apply_inputs(circuit, [f"V1=@{tmp_path}/two.npy", f"V2=@{tmp_path}/five.npy"])


# -- Files that are written whole or not at all ------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_interrupted_file_stays_as_it_was(tmp_path: Path, interruption: type[BaseException]) -> None:
    path = tmp_path / "out.txt"
    path.write_text("before")
    with pytest.raises(interruption), replacing(path, "w") as out:
        out.write("half")
        out.flush()
        raise interruption
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with replacing(path, "w") as out:
        out.write("µ\n")
        assert not path.exists()
    assert path.read_bytes() == "µ\n".encode()


def test_a_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "out.txt", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda fd: kept.append((os.fstat(fd).st_size, path.exists())))
    with replacing(path, "w") as out:
        out.write("whole")
    assert kept == [(5, False)]


def test_files_are_in_utf_8_whatever_the_locale_is(tmp_path: Path) -> None:
    code = "import pathlib, circuitsim.io.files as f\nwith f.replacing(pathlib.Path('x'), 'w') as x: x.write('\\xb5')"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=plain, check=True)
    assert (tmp_path / "x").read_bytes() == "µ".encode()


def test_two_threads_that_write_one_file_leave_one_whole_text(tmp_path: Path) -> None:
    path, both = tmp_path / "out.txt", threading.Barrier(2)

    def write(letter: str) -> None:
        with replacing(path, "w") as out:
            both.wait(10)
            out.write(letter * 100_000)
            both.wait(10)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("before")
    link.symlink_to(real)
    with replacing(link, "w") as out:
        out.write("after")
    assert link.is_symlink()
    assert real.read_text() == "after"


def test_targets_that_cannot_be_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere/x.npz")
    for name, folder in (("nowhere/x.npz", "nowhere"), ("file/x.npz", "file"), ("link", "nowhere")):
        with pytest.raises(cs.SettingsError) as caught:
            check_target(tmp_path / name)
        assert str(caught.value) == (
            f"cannot write {tmp_path / name}: there is no folder {tmp_path / folder}; make it first"
        )
    with pytest.raises(cs.SettingsError, match="exists and is not a regular file"):
        check_target(tmp_path)
    with pytest.raises(cs.SettingsError, match="exists and is not a regular file"):
        check_target(Path(os.devnull))


def test_links_that_lead_nowhere_are_no_targets(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    for name, why in (("one", "Too many levels of symbolic links"), ("one/x.npz", "there is no folder")):
        with pytest.raises(cs.SettingsError, match=rf"cannot write .*/{name}: {why}"):
            check_target(tmp_path / name)


def test_folders_that_are_not_writable_are_no_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a file, and of one that a link names; not that of the link."""
    (tmp_path / "locked").mkdir()
    (tmp_path / "inward").symlink_to("locked/x")
    (tmp_path / "locked" / "outward").symlink_to("../x")
    locked = tmp_path.resolve() / "locked"
    monkeypatch.setattr(os, "access", lambda folder, how: not (how & os.W_OK and Path(folder).resolve() == locked))
    for name in ("locked/x", "inward"):
        with pytest.raises(cs.SettingsError, match=f"cannot write .*{name}: its folder is not writable"):
            check_target(tmp_path / name)
    for name in ("x", "locked/outward"):
        check_target(tmp_path / name)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "folder/link"])
@pytest.mark.parametrize("mode", ["ab", "wb"])
def test_what_the_shell_is_writing_is_not_replaced(tmp_path: Path, name: str, mode: str) -> None:
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to("/dev/stdout")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("../second")
    deck, log = tmp_path / "a.cir", tmp_path / "log"
    deck.write_text("a\nV1 a 0 1\nR1 a 0 1\n")
    with log.open(mode) as out:
        out.write(b"before\n")
        out.flush()
        command = [sys.executable, "-m", "circuitsim", "flatten", str(deck), "-o", name]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, cwd=tmp_path, text=True, check=False)
        out.write(b"after\n")
    assert log.read_text() == "before\nafter\n"
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"cannot write {name}: it is what a program has open" in done.stderr
    assert "redirect it" in done.stderr


def test_names_of_what_is_open_and_names_of_files(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with (tmp_path / "gone").open("w") as gone:
        (tmp_path / "gone").unlink()
        names = [f"/dev/fd/{writing}", f"/proc/{os.getpid()}/fd/{gone.fileno()}", "/proc/uptime"]
        for name in (*names, "/dev/fd/987654", "/dev/stderr"):
            with pytest.raises(cs.SettingsError, match=rf"cannot write {name}: it is what a program has open"):
                check_target(Path(name))
            with pytest.raises(cs.SettingsError, match="choose the name of a file"), replacing(Path(name), "w"):
                pass
    os.close(reading)
    os.close(writing)
    assert list(tmp_path.iterdir()) == []
    folder = Path("/proc/self/cwd")  # a link to a folder: what is in it is a file
    check_target(folder / "x.npz")
    (tmp_path / "proc").mkdir()
    check_target(tmp_path / "proc" / "x.npz")
    if Path("/dev/shm").is_dir():
        with tempfile.TemporaryDirectory(dir="/dev/shm") as shared, replacing(Path(shared, "x"), "w") as out:
            out.write("x")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("No space left on device")])
def test_a_full_disk_is_an_error_with_the_name(tmp_path: Path, error: OSError) -> None:
    path = tmp_path / "out.txt"
    with pytest.raises(cs.SettingsError, match=r"cannot write .*out\.txt: No space left on device"):  # noqa: SIM117
        with replacing(path, "w"):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other names, names in other folders, folders, and what processes of other users write stay."""
    code = (
        "import os, pathlib, signal, circuitsim.io.files as f\n"
        "with f.replacing(pathlib.Path('out'), 'w'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    assert killed.wait(60) == -signal.SIGKILL
    [torn] = tmp_path.iterdir()
    remove_torn(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    (tmp_path / torn.name).mkdir()
    others = (torn.name[1:], f"{torn.stem}.txt", f"folder/{torn.name}", ".out.².tmp", ".out.tmp")
    for name in others:
        (tmp_path / name).write_text("mine")
    remove_torn(tmp_path)
    assert all((tmp_path / name).exists() for name in (*others, torn.name))

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    (tmp_path / ".out.0a.123.tmp").write_text("of another user")
    remove_torn(tmp_path)
    assert (tmp_path / ".out.0a.123.tmp").exists()
