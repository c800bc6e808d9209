import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from hellods import HelloError, __version__
from hellods.format.archive import Archive
from hellods_cli import COMMANDS, main


def raising(error: BaseException) -> object:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(command: str) -> None:
    status, out, _ = run(command, "--help")
    assert (status, out.splitlines()[0].split()[:3]) == (0, ["Usage:", "hellods", command])


def test_help_lists_the_commands() -> None:
    assert all(command in run("--help")[1] for command in COMMANDS)


def test_version_is_said() -> None:
    assert run("--version")[1].split()[-1] == __version__


def test_unknown_command_is_a_usage_error() -> None:
    status, _, err = run("unpack")
    assert status == 2
    assert "No such command 'unpack'" in err


def test_error_is_one_line_and_status_1() -> None:
    assert run("inspect", "missing.hello") == (1, "", "Error: missing.hello: no such file\n")


def test_error_spells_out_control_characters() -> None:
    assert run("inspect", "a\x1b[2J\nb.hello")[2] == "Error: a\\x1b[2J\\nb.hello: no such file\n"


@pytest.mark.parametrize("error", [HelloError("disk full"), OSError("disk full")], ids=["library", "system"])
def test_error_from_below_is_told_without_a_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "open", raising(error))
    assert run("inspect", "x.hello") == (1, "", "Error: disk full\n")


def test_full_gpu_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "open", raising(torch.OutOfMemoryError("CUDA out of memory")))
    status, _, err = run("inspect", "x.hello")
    assert (status, err.count("\n")) == (1, 1)
    assert "--fit-batch-size" in err


def test_control_c_is_one_line_and_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "open", raising(KeyboardInterrupt()))
    assert run("inspect", "x.hello") == (130, "", "Interrupted.\n")


def test_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "open", raising(AssertionError("bug")))
    assert isinstance(CliRunner().invoke(main, ["inspect", "x.hello"]).exception, AssertionError)


def test_reader_that_stops_early_is_no_error(archive_file: Path) -> None:
    code = f"from hellods_cli import main; main(['inspect', {str(archive_file)!r}] )"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_names_that_the_terminal_has_no_letters_for_are_spelled_out(tmp_path: Path) -> None:
    code = "from hellods_cli import main; main(['inspect', '林檎'])"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert process.stderr.strip() == rb"Error: \u6797\u6a8e: no such file"


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["inspect", "ARCHIVE"]], ids=" ".join)
def test_light_commands_import_no_heavy_package(arguments: list[str], archive_file: Path) -> None:
    given = [str(archive_file) if argument == "ARCHIVE" else argument for argument in arguments]
    code = f"""if True:
        import sys
        from hellods_cli import main
        try:
            main({given})
        finally:
            print(*sorted({{"torch", "numpy", "PIL", "rich", "zstandard"}} & set(sys.modules)), file=sys.stderr)"""
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stderr.strip() == ""
