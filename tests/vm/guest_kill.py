"""Runs a command in the guest and ends it at a given moment. Standard library only; sent into the machine by a test.

    python3 guest_kill.py MODE MARK DELAY_S COMMAND ...

MARK is the name of a program that has to run first somewhere below the command, or "-". DELAY_S later
- "tree" stops every process below the command, and then kills them all, so that none sees another's end;
- "alone" kills only the command itself;
- "report" prints "now" and lets it go on.
The last line of the output is JSON: whether the command had ended before, and which programs were killed.
"""

import json
import os
import signal
import subprocess
import sys
import time


def processes():
    """{pid: (parent, name)} of all."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    text = file.read()
            except OSError:
                continue
            name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
            found[int(entry)] = (int(rest.split()[1]), name)
    return found


def below(top):
    """{pid: name} of a process and all its descendants that are there now."""
    every = processes()
    found = {top: every[top][1]} if top in every else {}
    while True:
        more = {pid: name for pid, (parent, name) in every.items() if parent in found and pid not in found}
        if not more:
            return found
        found.update(more)


def stop_all(top):
    """Stop the tree until nobody new appears; what is in it."""
    stopped = {}
    while True:
        fresh = {pid: name for pid, name in below(top).items() if pid not in stopped}
        if not fresh:
            return stopped
        for pid in fresh:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        stopped.update(fresh)


def main(mode, mark, delay_s, *command):
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    while mark != "-" and child.poll() is None and mark not in below(child.pid).values():
        time.sleep(0.002)
    time.sleep(float(delay_s))
    ended, killed = child.poll() is not None, {}
    if mode == "report":
        print("now", flush=True)
    else:
        killed = stop_all(child.pid) if mode == "tree" else {child.pid: "keyfit"}
        for pid in killed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    child.wait()
    print(json.dumps({"ended": ended, "code": child.returncode, "killed": sorted(set(killed.values()))}))


main(*sys.argv[1:])
