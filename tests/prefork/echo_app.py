"""A server for the tests: echoes frames of a 4-byte length and a body, over plain sockets, in one epoll loop.

    python echo_app.py FOLDER

FOLDER/conf.json holds Settings and the ways to misbehave (below); FOLDER/ready.json is written when all are ready. It is
what a real body has to do, in small: wait for Serve, keep to the gate, hand connections over between two frames.
"""

import contextlib
import json
import logging
import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import time
import traceback

from prefork import identity
from prefork.application import Listen, LoadError, NotWarm, Settings
from prefork.master import Master

FRAME = struct.Struct("!I")


class EchoApp:
    def __init__(self, folder):
        self.folder = folder
        self.conf = {}

    def share(self, fd):
        os.ftruncate(fd, 4096)
        self.shared = mmap.mmap(fd, 4096)
        self.shared[0] += 1  # loaders so far

    def load(self):
        with open(f"{self.folder}/conf.json") as file:
            try:
                conf = self.conf = json.load(file)
            except ValueError as error:
                raise LoadError(f"{file.name}:1: {error}") from None
        owner = None
        if "umask" in conf:
            os.umask(conf["umask"])
        if conf.get("user"):
            wanted = identity.resolve(conf["user"], conf.get("group"))
            identity.become(wanted)
            owner = wanted.uid, wanted.gid
        if conf.get("not_warm") and getattr(self, "is_warm", False):
            raise NotWarm
        if conf.get("gevent"):
            from gevent import monkey

            monkey.patch_all()
        if "warm" in conf:
            __import__(conf["warm"])
        if "sleep_load" in conf:
            time.sleep(conf["sleep_load"])
        if "code" in conf:
            sys.path.insert(0, self.folder)
            __import__(conf["code"])
        if conf.get("thread"):
            import threading

            threading.Thread(target=time.sleep, args=(60,), daemon=True, name="stray").start()
        if conf.get("die"):
            os._exit(3)
        listen = tuple(Listen(**each) if isinstance(each, dict) else Listen(each) for each in conf["listen"])
        names = ("graceful_timeout", "boot_timeout", "hang_timeout", "stop_grace", "max_requests", "max_lifetime", "max_memory", "umask", "pidfile", "control", "extra", "config", "ways", "rebalance", "kill_memory", "files")
        return Settings(
            owner=owner,
            admin=Listen(conf["admin"]) if conf.get("admin") else None,
            name=conf.get("name", "echo"),
            workers=conf.get("workers", 2),
            listen=listen,
            # what it does wrong is a change like any other, and not one that workers can follow
            **{"config": {"app": {name: conf[name] for name in conf if name not in (*names, "admin", "name", "workers", "listen")}}}
            | {name: conf[name] for name in names if name in conf},
        )

    def obstacle(self):
        with contextlib.suppress(FileNotFoundError), open(f"{self.folder}/obstacle") as file:
            return file.read()

    def after_fork(self):
        if self.conf.get("gevent"):
            import gevent

            gevent.reinit()

    def run(self, worker):
        conf = self.conf
        if "sleep_boot" in conf:
            time.sleep(conf["sleep_boot"])
        if conf.get("boot") == "raise":
            raise RuntimeError("boot went wrong")
        if conf.get("boot") == "load_error":
            raise LoadError("conf.json: the database is not there")
        if conf.get("boot") == "exit":
            os._exit(5)
        if conf.get("boot") == "hang":
            time.sleep(3600)
        if worker.slot in conf.get("boot_fails_slots", ()):
            os._exit(6)
        Body(worker, conf, self.shared).run()


class WarmApp(EchoApp):
    """Imports ``conf["warm"]``, from FOLDER/library, once for all generations."""

    is_warm = False

    def warm_up(self, settings):
        self.is_warm = True
        conf = settings.config["app"]
        if conf.get("slow_base"):
            time.sleep(conf["slow_base"])
        __import__(conf["warm"])


class Body:
    """One worker."""

    def __init__(self, worker, conf, shared):
        self.worker = worker
        self.shared = shared
        self.conf = conf
        self.poll = None
        self.listeners = {listener.fileno(): listener for listener in worker.listeners}
        self.registered = False
        self.connections = {}  # fd → [socket, bytes read]
        self.leaving = {}  # token → fd
        self.deadline = None
        self.hands_over = False
        self.done = False
        self.lame = False
        self.followed = conf.get("config", {})

    def run(self):
        worker = self.worker
        if self.conf.get("gevent"):
            from gevent import select as gselect

            poll = self.poll = gselect.poll()
            read = gselect.POLLIN
            wait = lambda: poll.poll(50)
        else:
            poll = self.poll = select.epoll()
            read = select.EPOLLIN
            wait = lambda: poll.poll(0.05)
        self.read = read
        poll.register(worker.fileno(), read)
        worker.ready()
        if self.conf.get("crash_after_ready"):
            os._exit(7)
        while not self.done:
            worker.beat()
            self.keep_gate()
            for fd, _ in wait():
                if fd == worker.fileno():
                    for order in worker.receive():
                        self.obey(order)
                elif fd in self.listeners:
                    self.accept(self.listeners[fd])
                elif fd in self.connections:
                    self.serve(fd)
            if self.deadline is not None:
                self.drain()

    def keep_gate(self):
        wanted = self.deadline is None and self.worker.may_accept()
        if wanted != self.registered:
            for fd in self.listeners:
                (self.poll.register(fd, self.read) if wanted else self.poll.unregister(fd))
            self.registered = wanted

    def accept(self, listener, *, until_empty=False):
        while until_empty or self.worker.may_accept():  # another generation may serve since the gate was looked at
            try:
                fd = listener._accept()[0]
            except OSError:
                return
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self.worker.row[18] += 1
            self.add(sock, b"")

    def add(self, sock, data):
        self.connections[sock.fileno()] = [sock, data]
        self.poll.register(sock.fileno(), self.read)
        self.worker.row[6] += 1
        if data:
            self.answer(sock.fileno())

    def drop(self, fd):
        self.poll.unregister(fd)
        self.connections.pop(fd)[0].close()
        self.worker.row[6] -= 1

    def serve(self, fd):
        sock = self.connections[fd][0]
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(fd)
            return
        self.connections[fd][1] += data
        self.answer(fd)

    def answer(self, fd):
        entry = self.connections[fd]
        while len(entry[1]) >= 4:
            (size,) = FRAME.unpack_from(entry[1])
            if len(entry[1]) < 4 + size:
                return
            body, entry[1] = entry[1][4 : 4 + size], entry[1][4 + size :]
            if body == b"config":
                body = json.dumps(self.followed, sort_keys=True).encode()
            elif body == b"lame":
                body = b"%d" % self.lame
            elif body == b"pid":
                body = b"%d %d" % (os.getpid(), self.worker.generation)
            elif body == b"boom":
                os._exit(9)
            elif body == b"warm":
                module = sys.modules[self.conf["warm"]]
                body = b"%s %d %d" % (module.WORD.encode(), module.PID, self.worker.generation)
            elif body == b"loaders":
                body = b"%d" % self.shared[0]
            elif body.startswith(b"sleep "):
                time.sleep(float(body[6:]))
            elif body == b"hog":  # who uses all it gets of this worker's CPU, in the same session and so of the same scheduling group
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
                hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
                body = b"%d" % hog.pid
            elif body.startswith(b"eat "):
                self.eaten = None
                self.eaten = bytearray(os.urandom(1 << 20)) * int(body[4:])
            elif body == b"spin":
                while True:
                    pass
            self.worker.row[16] += 1
            entry[0].setblocking(True)
            with contextlib.suppress(OSError):
                entry[0].sendall(FRAME.pack(len(body)) + body)
            entry[0].setblocking(False)

    def obey(self, order):
        match type(order).__name__:
            case "Drain":
                self.stop_accepting(order.deadline, order.closing)
                self.hands_over = True
            case "Stop" | "MasterGone":
                self.stop_accepting(order.deadline, range(len(self.worker.listeners)))
                self.hands_over = False
                self.done = getattr(order, "fast", False)
            case "Adopt":
                self.add(socket.socket(fileno=order.fd), order.data)
                self.connections[order.fd][0].setblocking(False)
            case "Adopted":
                fd = self.leaving.pop(order.token)
                self.connections.pop(fd)[0].close()
                self.worker.row[6] -= 1
            case "Refused":
                fd = self.leaving.pop(order.token)
                self.poll.register(fd, self.read)
            case "Hot":
                error = order.settings.config.get("cannot_follow")
                self.followed = order.settings.config
                if error != "silently":
                    self.worker.followed(error)
            case "LogLevel":
                logging.getLogger("weego").setLevel(order.level.upper())
            case "Lame":
                self.lame = order.on
            case "Stacks":
                self.worker.tell_stacks("".join("".join(traceback.format_stack(frame)) for frame in sys._current_frames().values()))
            case "View":
                if not self.conf.get("tells_nothing"):
                    self.worker.tell_view(order.number, self.conf.get("view", "seen"))
            case "Share":
                given = 0
                for fd, (_, data) in list(self.connections.items()):
                    if given < order.count and fd not in self.leaving.values() and not self.conf.get("gives_nothing"):
                        self.poll.unregister(fd)
                        token = self.worker.hand_over(fd, data, row=order.row)
                        if token is None:
                            self.poll.register(fd, self.read)
                        else:
                            self.leaving[token] = fd
                            given += 1
                self.worker.shared(order.row, given)

    def stop_accepting(self, deadline, take_queued):
        if self.deadline is None:
            if self.registered:
                for fd in self.listeners:
                    self.poll.unregister(fd)
            self.registered = False
            for index in take_queued:
                self.accept(self.worker.listeners[index], until_empty=True)
            for listener in self.worker.listeners:
                listener.close()
            self.listeners = {}
        self.deadline = min(deadline, self.deadline or deadline)

    def drain(self):
        if self.conf.get("never_drains"):
            self.done = time.monotonic() > self.deadline + 60
            return
        if self.hands_over:
            for fd, (_, data) in list(self.connections.items()):
                if fd in self.leaving.values():
                    continue
                self.poll.unregister(fd)
                token = self.worker.hand_over(fd, data)
                if token is None:
                    self.poll.register(fd, self.read)
                else:
                    self.leaving[token] = fd
        elif not self.conf.get("keeps_connections"):
            for fd, (_, data) in list(self.connections.items()):
                if not data and fd not in self.leaving.values():  # nothing half read: between two frames
                    self.serve(fd)
                    if fd in self.connections:
                        self.drop(fd)
        if not self.connections or time.monotonic() > self.deadline:
            self.done = True


def main():
    folder = sys.argv[1]
    logging.basicConfig(
        level="DEBUG", format="%(asctime)s %(levelname)s %(process)d %(name)s %(message)s", stream=sys.stderr
    )

    def on_ready(info):
        with open(f"{folder}/ready.tmp", "w") as file:
            json.dump(info._asdict(), file)
        os.rename(f"{folder}/ready.tmp", f"{folder}/ready.json")

    app = EchoApp(folder)
    if "--warm" in sys.argv:
        app = WarmApp(folder)
        sys.dont_write_bytecode = True  # it would be one more change of the folder
        sys.path.append(f"{folder}/library")
    master = Master(app, version="test", on_ready=on_ready)
    sys.exit(master.check() if "--check" in sys.argv else master.run())


if __name__ == "__main__":
    main()
