"""Nothing that only some systems have is needed to run, check and report."""
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

# As on a system that is no POSIX one; worker processes import this file too, and lack the same.
BLOCKED = """
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, name in ((signal, "pthread_sigmask"), (os, "sched_getaffinity"), (os, "O_DIRECTORY")):
    if hasattr(module, name):
        delattr(module, name)
import lintransformer.cli
"""
COMMANDS = BLOCKED + """
if __name__ == "__main__":
    run = ["run", "fig2", "--preset", "smoke", "--settings", "S1", "--steps", "4", "--out", "out", "-j", "2"]
    for command in (run, ["check", "out"], ["report", "out", "-q"], run, ["check", "out"], ["info"]):
        code = lintransformer.cli.main(command)
        if code:
            sys.exit(f"{command} gave {code}")
"""
HOLD = BLOCKED + """
import time
from lintransformer.paper.store import Store
with Store("out").locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


def script(text):
    Path("script.py").write_text(text)
    return [sys.executable, "script.py"]


def test_run_check_and_report_without_posix():
    done = subprocess.run(script(COMMANDS), capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("4 cells: 4 run") and "4 cells: 0 run, 4 kept" in done.stdout
    assert done.stdout.count("all as written") == 2 and Path("out/report.html").exists()


@pytest.mark.parametrize("blocked", [False, True])
def test_the_lock_of_a_killed_process_is_free(blocked):
    hold = HOLD if blocked else HOLD.replace(BLOCKED, "")
    process = subprocess.Popen(script(hold), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    taken = [sys.executable, "-c", (BLOCKED if blocked else "import sys") + """
from lintransformer.paper.store import Store, StoreError
try:
    with Store("out").locked():
        print("free")
except StoreError as error:
    print(error)
"""]
    assert "in use by another run" in subprocess.run(taken, capture_output=True, text=True).stdout
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20                            # where a lock is a file, its owner is looked for
    while (told := subprocess.run(taken, capture_output=True, text=True).stdout) != "free\n":
        assert time.monotonic() < until, told
        time.sleep(0.1)
    assert set(os.listdir("out")) <= {".lock"}
