"""A program beside the sampler behaves as alone: output, input, status, signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from imagen_fast.profiling import run as module
from imagen_fast.profiling.run import CannotStart, Options, run

QUICK = Options(interval=0.05)
# A profiler in a process of its own, as the command line runs it; the child writes to its standard output.
PROFILER = """
import sys
from imagen_fast.profiling.run import Options, run
recording = run(sys.argv[1:], Options(interval=0.05))
print("recorded", len(recording.samples.time), recording.exit_code, flush=True)
sys.exit(recording.exit_code)
"""


def python(code):
    return [sys.executable, "-S", "-c", code]


def test_status_and_samples_of_a_program_that_fails():
    recording = run(python("import time, sys; time.sleep(0.3); sys.exit(7)"), QUICK)
    assert recording.exit_code == 7
    assert len(recording.samples.time) >= 3
    assert recording.samples.time[-1] <= recording.seconds
    assert recording.command[0] == sys.executable
    assert recording.machine["cores"] >= 1
    assert "steps" in recording.absent


def test_a_program_that_a_signal_kills_ends_as_in_a_shell():
    recording = run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), QUICK)
    assert recording.exit_code == 128 + signal.SIGKILL


def test_what_a_program_used_in_its_last_moment_is_counted():
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    recording = run(python(burn), Options(interval=60))
    samples = recording.samples
    assert len(samples.time) == 1
    assert samples.host["cpu"][0] * samples.time[0] >= 0.25


@pytest.mark.parametrize(
    ("made", "status", "said"),
    [
        (lambda folder: "no-such-command-here", 127, "was not found"),
        (lambda folder: str(folder / "missing"), 127, "was not found"),
        (lambda folder: str(folder), 126, "Permission denied"),
        (lambda folder: _file(folder, "text", 0o644), 126, "Permission denied"),
        (lambda folder: _file(folder, "text", 0o755), 126, "Exec format error"),
        (lambda folder: _file(folder, "#!/no/such/program\n", 0o755), 126, "No such file"),
    ],
)
def test_a_command_that_cannot_be_run_is_one_sentence(made, status, said, tmp_path):
    with pytest.raises(CannotStart, match=said) as error:
        run([made(tmp_path)], QUICK)
    assert error.value.status == status


def _file(folder, text, mode):
    path = folder / "program"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_handlers_of_signals_are_put_back():
    before = {name: signal.getsignal(getattr(signal, name)) for name in module._FORWARDED}
    run(python(""), QUICK)
    assert {name: signal.getsignal(getattr(signal, name)) for name in module._FORWARDED} == before


@pytest.fixture
def profiled():
    """Start a profiler with a program of Python; no terminal, unless one is given as standard streams."""
    begun = []

    def as_in_a_terminal():
        # A shell in whose background the tests run, or nohup, lets these be ignored by all that it starts.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    def start(code, **given):
        given = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "start_new_session": True,
            "preexec_fn": as_in_a_terminal,
        } | given
        child = subprocess.Popen([sys.executable, "-c", PROFILER, *python(code)], text=True, **given)
        begun.append(child)
        return child

    yield start
    for child in begun:
        if child.poll() is None:
            child.kill()
        child.wait()


def test_input_and_output_pass_through(profiled):
    child = profiled("import sys; print(sys.stdin.read().upper()); sys.exit(5)")
    out, _ = child.communicate("words")
    assert out.startswith("WORDS\n")
    assert child.returncode == 5


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT"])
def test_a_signal_to_the_profiler_reaches_the_program_and_the_recording_is_made(profiled, name):
    child = profiled(f"""
import signal, sys, time
def got(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(9)
signal.signal(signal.{name}, got)
print("ready", flush=True)
time.sleep(30)
""")
    assert child.stdout.readline() == "ready\n"
    child.send_signal(getattr(signal, name))
    out, _ = child.communicate(timeout=20)
    assert out.startswith(f"got {name}\nrecorded ")
    assert child.returncode == 9


def test_a_program_with_no_handler_dies_of_the_signal_and_the_profiler_does_not(profiled):
    child = profiled("import time; print('ready', flush=True); time.sleep(30)")
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=20)
    assert out.startswith("recorded ")
    assert child.returncode == 128 + signal.SIGTERM


def test_what_was_ignored_before_is_ignored_by_the_program_too(profiled):
    """As after nohup."""
    code = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    child = profiled(code, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert child.communicate()[0].startswith("True\n")


def test_ctrl_c_in_a_terminal_reaches_the_program_once(profiled):
    """The terminal sends it to both: the profiler passes it on to nobody, waits, and still records."""
    ours, theirs = pty.openpty()

    def take_terminal():
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": False}
    child = profiled(
        """
import signal, sys, time
count = 0
def got(number, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, got)
print("ready", sys.stdin.isatty(), flush=True)
until = time.monotonic() + 30
while not count and time.monotonic() < until: time.sleep(0.01)
time.sleep(0.3)
print("times", count, flush=True)
""",
        preexec_fn=take_terminal,
        **streams,
    )
    os.close(theirs)
    seen = _read_until(ours, b"ready True")
    os.write(ours, b"\x03")
    seen = _read_until(ours, b"recorded")
    assert b"times 1" in seen
    assert child.wait(20) == 0
    os.close(ours)


def test_a_stop_reaches_the_program_and_so_does_going_on(profiled):
    child = profiled("""
import signal, sys, time
signal.signal(signal.SIGTSTP, lambda *_: print("stop", flush=True))
signal.signal(signal.SIGCONT, lambda *_: (print("go", flush=True), sys.exit(0)))
print("ready", flush=True)
for _ in range(300): time.sleep(0.1)
""")
    child.stdout.readline()
    child.send_signal(signal.SIGTSTP)
    assert child.stdout.readline() == "stop\n"
    assert os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT).si_status == signal.SIGSTOP
    child.send_signal(signal.SIGCONT)
    assert child.stdout.readline() == "go\n"
    assert child.wait(20) == 0


def _read_until(terminal, words):
    seen, deadline = b"", time.monotonic() + 20
    while words not in seen and time.monotonic() < deadline:
        try:
            seen += os.read(terminal, 1000)
        except OSError:
            break
    return seen
