"""Becoming somebody with fewer rights, in a child, for it cannot be undone."""

import glob
import os
import pwd
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import psutil
import pytest

from prefork.application import LoadError
from prefork.identity import Identity, become, resolve
from tests.prefork.harness import Server, until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def in_child(work):
    """Run it in a fork; its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_names_and_numbers():
    nobody = pwd.getpwnam("nobody")
    assert resolve(None, None) is None
    assert resolve("nobody", None) == Identity(nobody.pw_uid, nobody.pw_gid, "nobody")
    assert resolve(str(nobody.pw_uid), None) == resolve("nobody", None)
    assert resolve("nobody", "12345") == Identity(nobody.pw_uid, 12345, "nobody")
    assert resolve("54321", "12345") == Identity(54321, 12345, None)
    assert resolve(None, "12345").uid == os.geteuid()


@pytest.mark.parametrize(
    ("user", "group", "line"),
    [
        ("no such user", None, 'user: there is no user "no such user"'),
        ("-1", None, 'user: there is no user "-1"'),
        (str(2**32 - 1), None, "user: there is no user"),
        ("\0", None, "user: there is no user"),
        ("54321", None, "name its group as well"),
        ("nobody", "no such group", 'group: there is no group "no such group"'),
    ],
)
def test_who_is_not_there(user, group, line):
    with pytest.raises(LoadError) as caught:
        resolve(user, group)
    assert line in str(caught.value)


@as_root
def test_the_way_back_is_closed(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: True)  # this Python may be root's alone

    def work():
        become(resolve("nobody", None))
        nobody = pwd.getpwnam("nobody")
        assert os.getresuid() == (nobody.pw_uid,) * 3
        assert os.getresgid() == (nobody.pw_gid,) * 3
        assert 0 not in os.getgroups()
        with pytest.raises(PermissionError):
            os.setuid(0)
        become(resolve("nobody", None))  # it is so already
        with pytest.raises(LoadError, match="only root can become somebody else"):
            become(Identity(54321, 54321, None))
        return 0

    assert in_child(work) == 0


@as_root
def test_root_keeps_its_user_and_takes_a_group():
    def work():
        become(resolve(None, "12345"))
        assert os.getresuid() == (0, 0, 0)
        assert os.getresgid() == (12345,) * 3
        return 0

    assert in_child(work) == 0


def pythons():
    """Interpreters that anybody may run, for one in root's home is of no use to nobody; plain prefork needs no packages."""
    for program in (os.path.realpath(sys.executable), *glob.glob("/usr/bin/python3.1[1-9]")):
        script = "import os; os.setgid(65534); os.setuid(65534); import sysconfig"
        if subprocess.run([program, "-c", script], capture_output=True, check=False).returncode == 0:
            yield program


@as_root
@pytest.mark.e2e
@pytest.mark.parametrize("user", ["nobody", "0"])
def test_a_family_of_a_root_master(tmp_path, monkeypatch, user):
    uid = pwd.getpwnam("nobody").pw_uid if user == "nobody" else 0
    if user == "nobody":
        program = next(pythons(), None)
        if program is None:
            pytest.skip("no Python that nobody may run")
        monkeypatch.setattr(sys, "executable", program)
    path, control = tmp_path / "sock", tmp_path / "control"
    conf = {"listen": ["tcp://127.0.0.1:0", f"unix://{path}"], "control": str(control), "user": user, "group": "12345"}
    with Server(tmp_path, umask=0o007, hang_timeout=1.0, **conf) as s, s.connect() as client:
        for pid in s.children():
            assert set(psutil.Process(pid).uids()) == {uid}
            assert set(psutil.Process(pid).gids()) == {12345}
            assert "Umask:\t0007" in (Path("/proc") / str(pid) / "status").read_text()
            (limit,) = [line.split() for line in (Path("/proc") / str(pid) / "limits").read_text().splitlines() if "open files" in line]
            assert limit[3] == limit[4]
        assert psutil.Process(s.process.pid).uids().real == 0
        assert psutil.Process(s.process.pid).gids().real != 12345
        made = path.stat()
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (uid, 12345, 0o770)
        assert control.stat().st_uid == 0
        assert control.stat().st_gid != 12345
        who, _ = client.who()
        client.send(b"sleep 3600")  # the master's signals and looks reach them all the same
        until(lambda: who not in s.children(), "the hung worker to be gone")
        s.wait_log("was killed by SIGABRT")
        s.configure(user="no such user")
        s.reload()
        assert 'user: there is no user "no such user"' in s.errors[-1]
        s.configure(user="", group="", umask=0o022)
        s.reload()
        with s.connect() as other:
            assert psutil.Process(other.who()[0]).gids().real != 12345


@as_root
@pytest.mark.e2e
def test_a_user_who_may_not_read_python(tmp_path):
    if os.path.realpath(sys.executable) in pythons():
        pytest.skip("this Python is for everybody")
    s = Server(tmp_path, user="nobody").start()
    assert s.wait_exit() == 78
    assert "may not read Python's library" in s.errors[-1]
    s.__exit__()


def test_becoming_nobody_in_particular_takes_no_rights(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: True)

    def work():
        if os.geteuid() == 0:
            become(resolve("nobody", None))
        become(Identity(os.getuid(), os.getgid(), None))
        return 0

    assert in_child(work) == 0
