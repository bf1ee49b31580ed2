"""What every command line does alike: errors in one line, and flags that are misspelt."""

import errno
import os

import pytest

from vidmae.settings.command_line import Parser, answer, text_of


@pytest.mark.parametrize(("error", "text"), [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/source.mp4"),
     "the output, or the folder for temporary files: No space left on device"),  # it names a file that was only read
    (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the output, or the folder for temporary files: Disk quota exceeded"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "tables"), "tables: Permission denied"),
    (IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), "Is a directory"), (ValueError("seed is -1"), "seed is -1")])
def test_an_error_is_a_line_without_numbers_of_the_system(error, text, capsys):
    assert text_of(error) == text

    def work():
        raise error

    assert answer(work, interrupted="nothing was written") == 2 and capsys.readouterr().err == f"error: {text}\n"


def test_ctrl_c_says_what_is_left(capsys):
    def work():
        raise KeyboardInterrupt

    assert answer(work, interrupted="the same command goes on") == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command goes on\n"


def test_a_misspelt_flag_names_the_nearest_of_all_verbs(capsys):
    parser = Parser("words")
    parser.add_subparsers().add_parser("footage").add_argument("--short-side")
    for given, said in ((["--shortside=3"], "unknown argument '--shortside=3', did you mean --short-side? (--help lists the flags)"),
                        (["footage", "--short"], "unknown argument '--short', did you mean --short-side?")):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(given)
        assert ended.value.code == 2 and said in capsys.readouterr().err
