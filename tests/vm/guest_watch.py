"""Writes down what keyfit-helper and the programs that it runs are like while they run: once for each process and program.

    python3 guest_watch.py OUT      ends when OUT.stop appears; OUT is JSON, a list.

Standard library only; sent into the machine by a test.
"""

import json
import os
import sys
import time


def text(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def below(helper, parents):
    """Is it the helper, or does it descend from one?"""
    def is_helper(pid):
        return link(f"/proc/{pid}/exe") == helper

    return lambda pid: any(is_helper(p) for p in ancestry(pid, parents))


def ancestry(pid, parents):
    while pid in parents:
        yield pid
        pid = parents[pid]


def look(pid):
    status = dict(line.split(":", 1) for line in text(f"/proc/{pid}/status").splitlines() if ":" in line)
    folder = f"/proc/{pid}/fd"
    try:
        files = {number: link(f"{folder}/{number}") for number in os.listdir(folder)}
    except OSError:
        files = {}
    maps = {line.split(None, 5)[5] for line in text(f"/proc/{pid}/maps").splitlines() if len(line.split(None, 5)) == 6}
    interfaces = [line.split(":")[0].strip() for line in text(f"/proc/{pid}/net/dev").splitlines()[2:]]
    return {"pid": pid, "exe": link(f"/proc/{pid}/exe"), "command": text(f"/proc/{pid}/cmdline").split("\0")[:-1],
            "environ": sorted(filter(None, text(f"/proc/{pid}/environ").split("\0"))), "cwd": link(f"/proc/{pid}/cwd"),
            "umask": status.get("Umask", "").strip(), "uid": status.get("Uid", "").split(), "files": files,
            "libraries": sorted(m for m in maps if m.startswith("/")), "interfaces": interfaces,
            "routes": text(f"/proc/{pid}/net/route").count("\n") - 1, "net": link(f"/proc/{pid}/ns/net"),
            "own_net": link("/proc/self/ns/net")}


def main(out):
    seen = {}
    while not os.path.exists(out + ".stop"):
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                stat = text(f"/proc/{entry}/stat")
                if stat:
                    parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
        wanted = below("/opt/keyfit/keyfit-helper", parents)
        for pid in filter(wanted, parents):
            now = look(pid)
            if now["exe"]:
                seen[f"{pid} {now['exe']} {now['net']}"] = now  # the last look at each
        time.sleep(0.01)
    with open(out, "w") as file:
        json.dump(list(seen.values()), file)


main(*sys.argv[1:])
