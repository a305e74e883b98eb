"""What docs/ offers to copy: units, an image, a manifest. Each is checked as far as it can be without systemd, Docker and a cluster."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support import need
from tests.support.need import ROOT
from tests.support.service import WEEGO, App, Server, run

DOCS = ROOT / "docs"


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = need.program("systemd-analyze", "apt-get install systemd")
    for unit in (DOCS / "systemd").iterdir():
        # The paths and the user of the example are not on this machine; everything else stays.
        text = unit.read_text().replace("/srv/echo/.venv/bin/", f"{ROOT}/bin/").replace("/srv/echo", str(ROOT))
        text = re.sub(r"^(User|Group)=echo$", r"\1=daemon", text, flags=re.MULTILINE)
        (tmp_path / unit.name.replace("weego", "echo")).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    found = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False, timeout=50)
    ours = [line for line in (found.stdout + found.stderr).splitlines() if "echo" in line]
    assert (found.returncode, ours) == (0, []), found.stderr


def test_the_unit_names_commands_that_there_are() -> None:
    text = (DOCS / "systemd/weego.service").read_text()
    commands = re.findall(r"^Exec\w+=/srv/echo/.venv/bin/(.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["weego-master", "weego"]
    code, output = run([WEEGO, *shlex.split(commands[1])[1:2], "--help"])
    assert code == 0
    assert "reload" in output


# ---------------------------------------------------------------- image


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: word and rest."""
    text = (DOCS / "docker/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def test_the_image_copies_what_there_is_and_starts_a_list() -> None:
    found = instructions()
    for word, rest in found:
        if word == "COPY" and "--from" not in rest:
            assert (ROOT / rest.split()[0]).exists(), rest
    last = dict(found)
    assert json.loads(last["ENTRYPOINT"]) == ["weego-master"]
    assert json.loads(last["CMD"]) == ["conf/server.toml"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert int(last["USER"]) > 0
    assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2])[0] == "weego"


def container_conf(tmp_path: Path) -> Path:
    """The image's configuration on free ports of this machine."""
    text = (DOCS / "docker/server.toml").read_text()
    text = re.sub(r"tcp://0\.0\.0\.0:\d+", "tcp://127.0.0.1:0", text).replace("/tmp/weego.sock", f"{tmp_path}/weego.sock")
    conf = tmp_path / "server.toml"
    conf.write_text(text.replace('workers = "auto"', "workers = 1"))
    return conf


def test_the_image_s_configuration_serves_and_its_health_check_says_so(tmp_path: Path, no_leaks: None) -> None:
    conf = container_conf(tmp_path)
    command = json.loads(dict(instructions())["HEALTHCHECK"].partition("CMD ")[2])
    check = [WEEGO, *command[1:]]
    check[check.index("--conf") + 1] = str(conf)
    assert run(check, cwd=str(ROOT))[0] == 69, "nobody is there yet"
    with Server(conf, cwd=str(ROOT)) as server:
        assert run(check, cwd=str(ROOT))[0] == 0
        assert server.addresses


# ---------------------------------------------------------------- Kubernetes


@pytest.fixture
def manifest() -> dict[str, Any]:
    """Objects by kind."""
    yaml = need.module("yaml")
    objects = list(yaml.safe_load_all((DOCS / "kubernetes/echo.yaml").read_text()))
    return {each["kind"]: each for each in objects}


def test_the_probes_are_answered(app: App, manifest: dict[str, Any]) -> None:
    (container,) = manifest["Deployment"]["spec"]["template"]["spec"]["containers"]
    with app.serve(more='[admin]\naddress = "tcp://127.0.0.1:0"') as server:
        admin = server.process.wait_for(r"^  admin on tcp://(.*)")[1]
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container[name]["httpGet"]
            assert probe["port"] == "admin"
            with urllib.request.urlopen(f"http://{admin}{probe['path']}", timeout=30) as answer:
                assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{admin}/nothing", timeout=30)


def test_the_manifest_fits_the_image_and_itself(manifest: dict[str, Any]) -> None:
    assert set(manifest) == {"Deployment", "Service", "PodDisruptionBudget"}
    pod = manifest["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    conf = (DOCS / "docker/server.toml").read_text()
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert f'"tcp://0.0.0.0:{ports["rpc"]}"' in conf
    assert f'"tcp://0.0.0.0:{ports["admin"]}"' in conf
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["admin"])
    labels = pod["metadata"]["labels"]
    for kind in ("Service",):
        assert manifest[kind]["spec"]["selector"] == labels
    assert manifest["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifest["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert pod["spec"]["securityContext"]["runAsUser"] == int(dict(instructions())["USER"])
    before_stop = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert run([WEEGO, "ctl", "drain", "--help"])[0] == 0
    assert before_stop.startswith("weego ctl --conf conf/server.toml drain; sleep ")
    delay = int(before_stop.split()[-1])
    graceful = re.search(r'graceful_timeout = "(\d+)s"', conf)
    assert graceful
    assert pod["spec"]["terminationGracePeriodSeconds"] >= int(graceful[1]) + delay + 5
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/tmp"}
