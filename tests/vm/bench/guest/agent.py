"""Runs commands inside the guest for the bench. Standard library only; started by bench-agent.service.

Both directions of the virtio-serial port carry frames: one line of JSON, then as many raw bytes as its "size" says.
Every request has an "id", repeated in each frame that answers it:

    {"op": "start", "argv", "env", "cwd", "timeout_s", "user", "interactive"} + standard input
        -> {"started": pid}, {"stream": "stdout" | "stderr"} + bytes ..., {"exit": code, "seconds", "timed_out"}
    {"op": "write", "process": id} + bytes for its standard input; none closes it
    {"op": "signal", "process": id, "number"}
    {"op": "put", "path", "mode"} + content          {"op": "get", "path"} -> content
    {"op": "snapshot", "paths"} -> JSON list of [path, kind, mode, owner, content]
    {"op": "clock", "now"}                            {"op": "ping"}
"""

import hashlib
import json
import os
import pwd
import select
import signal
import stat
import subprocess
import threading
import time

PORT_NAME = "bench"
CHUNK = 1 << 16


def find_port():
    folder = "/sys/class/virtio-ports"
    while True:
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            with open(f"{folder}/{name}/name") as file:
                if file.read().strip() == PORT_NAME and os.path.exists(f"/dev/{name}"):
                    return f"/dev/{name}"
        time.sleep(0.05)


class Port:
    """The frames of the serial port."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR)
        self.buffer = bytearray()
        self.lock = threading.Lock()

    def _fill(self):
        chunk = os.read(self.fd, CHUNK)
        if not chunk:  # no host is connected (the machine was frozen): the next one starts with a new frame
            self.buffer.clear()
            time.sleep(0.02)
            raise ConnectionResetError
        self.buffer += chunk

    def receive(self):
        while True:
            try:
                while b"\n" not in self.buffer:
                    self._fill()
                line, _, rest = bytes(self.buffer).partition(b"\n")
                self.buffer = bytearray(rest)
                header = json.loads(line)
                size = header.get("size", 0)
                while len(self.buffer) < size:
                    self._fill()
                payload = bytes(self.buffer[:size])
                del self.buffer[:size]
                return header, payload
            except (ConnectionResetError, ValueError):
                continue

    def send(self, header, payload=b""):
        frame = memoryview(json.dumps({**header, "size": len(payload)}).encode() + b"\n" + payload)
        with self.lock:
            while frame:
                frame = frame[os.write(self.fd, frame) :]


class Process:
    """One command: its output is sent as it comes, its end when it ends."""

    def __init__(self, port, request, payload):
        self.port, self.id = port, request["id"]
        self.timeout_s = request.get("timeout_s")
        self.began = time.monotonic()
        options = {}
        env = {**os.environ, **request.get("env", {})}
        if request.get("user"):
            entry = pwd.getpwnam(request["user"])
            groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
            options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
            env = {**env, "HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
            env.update(request.get("env", {}))
        stdin = subprocess.PIPE
        if not request.get("interactive"):
            stdin = os.memfd_create("stdin")
            os.write(stdin, payload)
            os.lseek(stdin, 0, os.SEEK_SET)
        try:
            self.popen = subprocess.Popen(
                request["argv"], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                cwd=request.get("cwd", "/"), env=env, start_new_session=True, **options,
            )  # fmt: skip
        finally:
            if stdin is not subprocess.PIPE:
                os.close(stdin)

    def signal(self, number):
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            pass

    def write(self, payload):
        try:
            if payload:
                self.popen.stdin.write(payload)
            else:
                self.popen.stdin.close()
        except BrokenPipeError:
            pass

    def follow(self):
        """Send the output until the process ends; then only keep its pipes empty, for a daemon it left behind."""
        streams = {self.popen.stdout.fileno(): "stdout", self.popen.stderr.fileno(): "stderr"}
        ended = os.pidfd_open(self.popen.pid)
        deadline = None if self.timeout_s is None else self.began + self.timeout_s
        timed_out = False
        while True:
            left = None if deadline is None or timed_out else max(0.0, deadline - time.monotonic())
            readable = select.select([*streams, ended], [], [], left)[0]
            if not readable and not timed_out:
                timed_out = True
                self.signal(signal.SIGKILL)
            self._pass_on(streams, [fd for fd in readable if fd != ended])
            if ended in readable:
                break
        self._pass_on(streams, select.select(list(streams), [], [], 0)[0], to_the_end=True)
        code = self.popen.wait()
        os.close(ended)
        seconds = time.monotonic() - self.began
        self.port.send({"id": self.id, "exit": code, "seconds": seconds, "timed_out": timed_out})
        while streams:
            self._pass_on(streams, select.select(list(streams), [], [])[0], discard=True)
        self.popen.stdout.close()
        self.popen.stderr.close()

    def _pass_on(self, streams, readable, to_the_end=False, discard=False):
        while readable:
            for fd in readable:
                data = os.read(fd, CHUNK)
                if not data:
                    del streams[fd]
                elif not discard:
                    self.port.send({"id": self.id, "stream": streams[fd]}, data)
            if not to_the_end:
                return
            readable = select.select(list(streams), [], [], 0)[0]


def describe(path):
    """[path, kind, mode, owner, content] of one file: content is a SHA-256, or where a link points to."""
    info = os.lstat(path)
    kind, content = "other", ""
    if stat.S_ISLNK(info.st_mode):
        kind, content = "link", os.readlink(path)
    elif stat.S_ISDIR(info.st_mode):
        kind = "folder"
    elif stat.S_ISREG(info.st_mode):
        kind = "file"
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    return [path, kind, stat.S_IMODE(info.st_mode), f"{info.st_uid}:{info.st_gid}", content]


def snapshot(paths):
    rows = []
    for top in paths:
        if not os.path.lexists(top):
            continue
        rows.append(describe(top))
        if os.path.isdir(top) and not os.path.islink(top):
            for folder, folders, files in os.walk(top):
                for name in folders + files:
                    try:
                        rows.append(describe(os.path.join(folder, name)))
                    except FileNotFoundError:  # gone since the folder was read
                        continue
    return rows


class Agent:
    def __init__(self, port):
        self.port = port
        self.processes = {}

    def op_start(self, request, payload):
        process = Process(self.port, request, payload)
        self.processes[request["id"]] = process
        self.port.send({"id": request["id"], "started": process.popen.pid})
        threading.Thread(target=process.follow, daemon=True).start()

    def op_write(self, request, payload):
        self.processes[request["process"]].write(payload)
        return {}, b""

    def op_signal(self, request, payload):
        self.processes[request["process"]].signal(request["number"])
        return {}, b""

    def op_put(self, request, payload):
        path = request["path"]
        os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
        with open(path, "wb") as file:
            file.write(payload)
        os.chmod(path, request["mode"])
        return {}, b""

    def op_get(self, request, payload):
        with open(request["path"], "rb") as file:
            return {}, file.read()

    def op_snapshot(self, request, payload):
        return {}, json.dumps(snapshot(request["paths"])).encode()

    def op_clock(self, request, payload):
        time.clock_settime(time.CLOCK_REALTIME, request["now"])
        return {}, b""

    def op_ping(self, request, payload):
        return {}, b""

    def serve(self):
        self.port.send({"id": 0, "hello": True})
        while True:
            request, payload = self.port.receive()
            try:
                answer = getattr(self, "op_" + request["op"])(request, payload)
                if answer is not None:
                    self.port.send({"id": request["id"], "done": True, **answer[0]}, answer[1])
            except Exception as problem:  # noqa: BLE001 - the host is told, whatever it was
                self.port.send({"id": request.get("id"), "error": f"{type(problem).__name__}: {problem}"})


if __name__ == "__main__":
    Agent(Port(find_port())).serve()
