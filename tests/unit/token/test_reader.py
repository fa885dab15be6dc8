"""What the parent makes of children that answer, lie, flood, crash and hang. The children are one-line programs."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from keyfit.errors import HostError
from keyfit.model.certificate import Reader
from keyfit.token.protocol import MAX_ANSWER_BYTES
from keyfit.token.reader import HINTS, ChildTokenReader, child_environment

MODULE = "/usr/lib/acme.so"


def child(program: str, **options: float) -> ChildTokenReader:
    return ChildTokenReader(child_command=[sys.executable, "-c", program], **options)


def answering(text: str) -> ChildTokenReader:
    return child(f"print({text!r})")


def test_an_answer_is_taken() -> None:
    reader = answering('{"readers": [{"name": "Acme One 00 00", "atr": "3B00"}]}')
    assert reader.readers() == (Reader(name="Acme One 00 00", atr="3B00"),)
    report = answering('{"path": "/usr/lib/acme.so", "loaded": true, "description": "Acme 1.0"}').load_module(MODULE)
    assert report.loaded
    assert report.description == "Acme 1.0"


def test_h1_texts_are_made_safe_again_in_the_parent() -> None:
    reader = answering(r'{"readers": [{"name": "A\u001b[31m\u202eB", "atr": "$(x)"}]}')
    assert reader.readers() == (Reader(name="A[31mB", atr=""),)
    report = answering(r'{"path": "/elsewhere", "loaded": true, "description": "\u001b]0;x\u0007"}').load_module(MODULE)
    assert (report.path, report.description) == (MODULE, "]0;x")


@pytest.mark.parametrize("text", ["", "null", "{}", "[]", '{"path": 1, "loaded": true}', "[" * 50_000,
                                  '{"path": "/a", "loaded": "yes"}', '{"path": "/a", "loaded": true, "loaded": true}',
                                  '{"path": "/a", "loaded": true, "more": 1}', '{"path": "/a", "loaded": NaN}'])
def test_h4_an_answer_that_is_none_becomes_a_report(text: str) -> None:
    report = answering(text).load_module(MODULE)
    assert not report.loaded
    assert "no usable answer" in report.error


def test_h4_bytes_that_are_no_utf8_become_a_report() -> None:
    report = child("import os; os.write(1, b'\\xff\\n')").load_module(MODULE)
    assert not report.loaded
    assert "no usable answer" in report.error


def test_h2_a_flood_is_cut_off() -> None:
    report = child("import sys\nwhile True: sys.stdout.write('x' * 65536)", grace_s=5).load_module(MODULE)
    assert report.error == f"it answered with more than {MAX_ANSWER_BYTES} bytes"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_h2_a_crash_is_a_report_with_the_signals_name(name: str) -> None:
    report = child(f"import os, signal; os.kill(os.getpid(), signal.{name})").load_module(MODULE)
    assert report.error == f"it crashed ({name})"


def test_h2_an_end_without_an_answer_is_a_report() -> None:
    assert child("raise SystemExit(3)").load_module(MODULE).error == "it ended without an answer (exit code 3)"


def test_h2_a_program_that_cannot_be_started_is_a_report_and_an_error() -> None:
    reader = ChildTokenReader(child_command=["/nonexistent/keyfit"])
    assert "could not be started" in reader.load_module(MODULE).error
    with pytest.raises(HostError, match="could not be started"):
        reader.readers()


def test_h2_a_child_that_hangs_is_asked_to_end_and_not_killed(tmp_path: Path) -> None:
    """It may be talking to a card, so only the polite signal is sent; here the child notes it down and obeys."""
    note = tmp_path / "signals"
    program = ("import signal, sys\n"
               f"def stop(number, frame): open({str(note)!r}, 'a').write(signal.Signals(number).name); sys.exit()\n"
               "signal.signal(signal.SIGTERM, stop)\nsignal.pause()")
    report = child(program, timeout_s=1.0).load_module(MODULE)
    assert report.error == "it did not answer within 1 seconds"
    assert note.read_text() == "SIGTERM"


def test_h2_a_child_that_does_not_obey_is_left_alone(tmp_path: Path) -> None:
    """Killed in the middle of an exchange, it would leave PC/SC stuck until the token is unplugged."""
    fifo, number = tmp_path / "release", tmp_path / "pid"
    os.mkfifo(fifo)
    program = ("import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
               f"open({str(number)!r}, 'w').write(str(os.getpid()))\nopen({str(fifo)!r}).read()\n")
    report = child(program, timeout_s=1.0, grace_s=0.2).load_module(MODULE)
    assert report.error == "it did not answer within 1 seconds and was left alone"
    os.kill(int(number.read_text()), 0)  # raises if it is gone
    fifo.write_text("go on")


def test_h2_a_program_left_behind_by_the_module_does_not_hold_up_the_answer(tmp_path: Path) -> None:
    """Some modules start a helper that inherits the output and stays."""
    fifo = tmp_path / "release"
    os.mkfifo(fifo)
    program = (f"import os\nif os.fork() == 0:\n open({str(fifo)!r}).read()\n os._exit(0)\n"
               "print('{\"readers\": []}')")
    done = threading.Event()
    late = threading.Timer(20, done.set)
    late.start()
    assert child(program, timeout_s=15).readers() == ()
    assert not done.is_set()
    late.cancel()
    fifo.write_text("end")


def test_ctrl_c_in_the_terminal_does_not_reach_the_child() -> None:
    own = child("import os, sys; sys.exit(os.getsid(0) != os.getpid())").load_module(MODULE)
    assert own.error == "it ended without an answer (exit code 0)"


def test_c5_the_child_gets_no_variable_that_loads_code() -> None:
    caller = {"HOME": "/home/ada", "LANG": "de_DE.UTF-8", "LC_ALL": "C", "XDG_RUNTIME_DIR": "/run/user/1",
              "LD_PRELOAD": "/tmp/x.so", "LD_LIBRARY_PATH": "/tmp", "PYTHONPATH": "/tmp", "PATH": "/tmp",
              "DYLD_INSERT_LIBRARIES": "/tmp/x", "SOFTHSM2_CONF": "/tmp/conf", "PCSCLITE_CSOCK_NAME": "/tmp/s",
              "KEYFIT_ROOT": "/tmp", "_PYI_APPLICATION_HOME_DIR": "/tmp"}
    assert child_environment(caller, {}) == {"HOME": "/home/ada", "LANG": "de_DE.UTF-8", "LC_ALL": "C",
                                             "XDG_RUNTIME_DIR": "/run/user/1", "PATH": "/usr/bin:/bin"}
    assert child_environment(caller, {"SOFTHSM2_CONF": "/own"})["SOFTHSM2_CONF"] == "/own"


@pytest.mark.parametrize("path", ["acme.so", "-x", "", "/usr/lib/\0acme.so"])
def test_h1_only_an_absolute_path_reaches_the_child(path: str, tmp_path: Path) -> None:
    note = tmp_path / "started"
    report = child(f"open({str(note)!r}, 'w')").load_module(path)
    assert not report.loaded
    assert not note.exists()


@pytest.mark.parametrize("kind", ["no-library", "no-daemon", "no-access", "failed"])
def test_what_is_missing_of_pcsc_has_a_hint_of_its_own(kind: str) -> None:
    with pytest.raises(HostError) as caught:
        answering(f'{{"error": "{kind}", "detail": "x"}}').readers()
    assert caught.value.code == "pcsc-unavailable"
    assert caught.value.hint == HINTS[kind]
    assert len(set(HINTS.values())) == len(HINTS)


def test_listing_readers_that_crashes_is_an_error_with_a_hint() -> None:
    with pytest.raises(HostError, match=signal.SIGSEGV.name) as caught:
        child("import os; os.kill(os.getpid(), 11)").readers()
    assert caught.value.code == "pcsc-unavailable"
