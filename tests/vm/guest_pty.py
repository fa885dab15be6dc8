"""Runs a command in the guest on a terminal of its own, and types. Standard library only; sent into the machine by a test.

    python3 guest_pty.py DIALOG OUT COMMAND ...

DIALOG is JSON: a list of [text to wait for, text to type, file to wait for before typing or ""]. OUT is the file that gets the
command's standard output; all else that appears on the terminal is printed here, and "exit CODE" as the last line.
"""

import json
import os
import pty
import sys
import time


def main(dialog, out, *command):
    dialog = json.loads(dialog)
    pid, terminal = pty.fork()
    if pid == 0:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.execv(command[0], command)
    seen = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # EIO: the last one who had it open has closed it
            break
        if not data:
            break
        seen += data
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if dialog and dialog[0][0].encode() in seen:
            _, answer, signal = dialog.pop(0)
            while signal and not os.path.exists(signal):
                time.sleep(0.02)
            seen = b""
            time.sleep(0.2)  # whoever asks for a password throws away what was typed before
            os.write(terminal, answer.encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(f"\nexit {code}", flush=True)


main(*sys.argv[1:])
