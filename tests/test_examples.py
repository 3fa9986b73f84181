"""The examples that come with circuitsim, and completion by the shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from circuitsim import SettingsError, cli
from circuitsim.io.examples import FOLDER, find_example, names

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def succeed(*arguments: str) -> list[str]:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def files(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def fail(*arguments: str) -> str:
    """The message of a command that must refuse, and write nothing."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return result.stderr


# -- examples ----------------------------------------------------------------------------------------------------------


def test_the_list_names_every_example_with_its_title() -> None:
    assert FOLDER == ROOT / "netlists"
    listed = dict(line.split(maxsplit=1) for line in succeed("examples"))
    assert listed == {path.stem: path.read_text().splitlines()[0] for path in (ROOT / "netlists").glob("*.cir")}
    assert list(listed) == names() and all(listed.values())


def test_examples_are_copied_with_the_files_that_they_name() -> None:
    assert succeed("examples", "divider", "crossbar_4x4.cir") == ["divider.cir", "crossbar_4x4.cir", "crossbar_4x4.npy"]
    assert Path("divider.cir").read_bytes() == (FOLDER / "divider.cir").read_bytes()
    assert files() == ["crossbar_4x4.cir", "crossbar_4x4.npy", "divider.cir"]
    succeed("solve", "crossbar_4x4.cir", "--quiet")
    places = succeed("examples", "drn_xs", "drn_1h", "--to", "a/b")  # they share a file
    assert places == ["a/b/drn_xs.cir", "a/b/digit.npz", "a/b/drn_1h.cir"] and all(
        Path(place).is_file() for place in places
    )
    assert len(succeed("examples", "--all", "--to", "all")) == len(files("all"))
    for name in names():
        assert all(Path("all", path.name).is_file() for path in find_example(name).files)


def test_nothing_is_overwritten_without_force() -> None:
    Path("divider.cir").write_text("mine\n")
    assert fail("examples", "zener", "divider") == (
        "error: . has divider.cir already, with other contents; choose another folder with --to, or overwrite with "
        "--force\n"
    )
    succeed("examples", "divider", "--force")
    assert Path("divider.cir").read_bytes() == (FOLDER / "divider.cir").read_bytes()
    written = Path("divider.cir").stat().st_mtime_ns
    assert succeed("examples", "divider") == ["divider.cir"]  # the same contents are no obstacle, and stay
    assert Path("divider.cir").stat().st_mtime_ns == written
    Path("zener.cir").symlink_to("nowhere")
    assert "zener.cir already" in fail("examples", "zener")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dividr", "no example 'dividr'; did you mean divider?"),
        ("../divider", "no example '../divider'; did you mean divider?"),
        ("qqqq", "no example 'qqqq'; circuitsim examples lists all"),
        ("divider --to file", "cannot make the folder file: File exists"),
        ("zener --force", "cannot write zener.cir: it exists and is not a regular file"),
        ("divider --all", "--all and names exclude each other"),
        ("--to somewhere", "--to and --force are for copying"),
    ],
)
def test_what_cannot_be_copied(arguments: str, message: str) -> None:
    Path("file").write_text("")
    Path("zener.cir").mkdir()
    assert message in fail("examples", *arguments.split())


def test_an_error_on_the_way_leaves_no_half_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert fail("examples", "divider") == "error: cannot write divider.cir: No space left on device\n"
    assert files() == []
    with pytest.raises(SettingsError, match="no example 'none'"):
        find_example("none")


def test_examples_that_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("circuitsim.io.examples.FOLDER", folder / "none")
    assert "the example netlists are missing from " in fail("examples")


# -- completion --------------------------------------------------------------------------------------------------------


def completed(shell: str, *words: str) -> list[str]:
    """What the program proposes for the last word, as the script of a shell asks for it."""
    last = {"bash": str(len(words) - 1), "zsh": str(len(words) - 1), "fish": words[-1]}[shell]
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": last, "_CIRCUITSIM_COMPLETE": f"{shell}_complete"}
    command = [sys.executable, "-m", "circuitsim"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_shell_gets_commands_options_and_examples() -> None:
    assert completed("bash", "circuitsim", "sw") == ["plain,sweep"]
    assert completed("bash", "circuitsim", "solve", "--bac") == ["plain,--backend"]
    assert completed("bash", "circuitsim", "examples", "wheat") == ["plain,wheatstone"]
    assert completed("zsh", "circuitsim", "examples", "wheat") == ["plain", "wheatstone", "_"]
    assert completed("fish", "circuitsim", "examples", "wheat")[0].endswith("wheatstone")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_the_shells_own(shell: str) -> None:
    script = "\n".join(succeed("completion", shell))
    assert f"_CIRCUITSIM_COMPLETE={shell}_complete" in script and "circuitsim" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_bash_completes(folder: Path) -> None:
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash")
    program = folder / "circuitsim"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m circuitsim "$@"\n')
    program.chmod(0o755)
    ask = (
        'eval "$(circuitsim completion bash)"; COMP_WORDS=(circuitsim examples zen); COMP_CWORD=2; '
        "_circuitsim_completion circuitsim zen examples; printf '%s\\n' \"${COMPREPLY[@]}\"; complete -p circuitsim"
    )
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([bash, "-c", ask], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "zener" and "_circuitsim_completion" in done.stdout


def test_another_shell_is_refused() -> None:
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in fail("completion", "csh")
