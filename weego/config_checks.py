"""What types alone cannot say of a configuration: the checks across keys; and every path absolute."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import msgspec

from weego import tomlmap
from weego.config_reader import Reader, shown
from weego.registries.url import absolute

if TYPE_CHECKING:
    from weego.config import Client, Config, ConfigCenter, ListenTls, Program, Registry
    from weego.units import Duration

__all__ = ["check_governance", "check_hedges", "complete", "complete_program"]

# A worker says every 100 ms that its loop turns; ten times that is no hang yet, but what a large garbage collection may take.
LEAST_HANG_TIMEOUT: Final = 1.0
MAX_UNIX_PATH: Final = 107  # sockaddr_un.sun_path is 108 bytes with its closing zero (man 7 unix)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>\d+)")


def complete(config: Config, reader: Reader) -> Config:
    """The checks across keys; then every path absolute."""
    app_dir = os.path.abspath(os.path.expanduser(config.server.app_dir))
    if not os.path.isdir(app_dir):
        raise reader.error(("server", "app_dir"), f"no such folder: {app_dir}")
    if not config.server.name.strip() or not config.server.name.isprintable():
        raise reader.error(("server", "name"), f"{shown(config.server.name)} is not a name: printable text, not empty")
    if 0 < config.server.hang_timeout < LEAST_HANG_TIMEOUT:
        problem = f'"{config.server.hang_timeout}" is too short: calls may take as long; use "1s" or more, or 0 for never'
        raise reader.error(("server", "hang_timeout"), problem)
    server = msgspec.structs.replace(
        config.server,
        app_dir=app_dir,
        control=_socket_path(config.server.control, app_dir, reader, ("server", "control")),
        pidfile=_path(config.server.pidfile, app_dir, reader, ("server", "pidfile")),
    )
    taken: dict[str, str] = {}
    listen = tuple(
        msgspec.structs.replace(
            entry,
            address=_address(entry.address, app_dir, reader, ("listen", index, "address"), taken),
            tls=entry.tls and _tls(entry.tls, app_dir, reader, ("listen", index, "tls")),
        )
        for index, entry in enumerate(config.listen)
    )
    for index, entry in enumerate(listen):
        if entry.mode is not None and entry.address.startswith("tcp:"):
            raise reader.error(("listen", index, "mode"), "only a unix socket has permissions")
    admin = config.admin and msgspec.structs.replace(
        config.admin, address=_address(config.admin.address, app_dir, reader, ("admin", "address"), taken)
    )
    seen = set()
    for index, service in enumerate(config.service):
        path = ("service", index, "class")
        if not _CLASS.fullmatch(service.class_):
            raise reader.error(path, f'{shown(service.class_)} is not of the form "package.module:Class"')
        if service.class_ in seen:
            raise reader.error(path, f"{shown(service.class_)} is served twice")
        seen.add(service.class_)
        if service.fallback and any(other.fallback for other in config.service[:index]):
            raise reader.error(("service", index, "fallback"), "one service can be the fallback, and another one is already")
    log = msgspec.structs.replace(
        config.log,
        file=_path(config.log.file, app_dir, reader, ("log", "file")),
        access_file=_path(config.log.access_file, app_dir, reader, ("log", "access_file")),
    )
    check_governance(config, reader)
    return msgspec.structs.replace(
        config,
        server=server,
        listen=listen,
        admin=admin,
        log=log,
        registry=config.registry and _registry(config.registry, app_dir, reader),
        config_center=config.config_center and _config_center(config.config_center, app_dir, reader),
        client={name: _client(name, client, config, app_dir, reader) for name, client in config.client.items()},
    )


def complete_program(program: Program, folder: str, reader: Reader) -> Program:
    """Likewise, of a file without a server; its paths start from `folder`."""
    return msgspec.structs.replace(
        program,
        registry=program.registry and _registry(program.registry, folder, reader),
        config_center=program.config_center and _config_center(program.config_center, folder, reader),
        client={name: _client(name, client, program, folder, reader) for name, client in program.client.items()},
    )


def check_governance(config: Config, reader: Reader) -> None:
    """ConfigError for a limit that limits nothing or has another's name, and for times that do not go together."""
    governance = config.governance
    names = set()
    for index, limit in enumerate(governance.limit):
        path = ("governance", "limit", index, "name")
        if not limit.rate and not limit.concurrency:
            raise reader.error(path, f"{shown(limit.name)} limits nothing: give it a rate, a concurrency or both")
        if limit.name in names:
            raise reader.error(path, f"{shown(limit.name)} is the name of another limit")
        names.add(limit.name)
    if governance.shed_target > governance.shed_interval:
        raise reader.error(("governance", "shed_target"), "longer than shed_interval")


def _registry(registry: Registry, app_dir: str, reader: Reader) -> Registry:
    if not _SCHEME.match(registry.url):
        raise reader.error(("registry", "url"), f'{shown(registry.url)} is not of the form "file://folder" or "etcd://host:port"')
    if registry.announce is not None and not _TCP.fullmatch(registry.announce):
        raise reader.error(("registry", "announce"), f'{shown(registry.announce)} is not "tcp://host:port"')
    return msgspec.structs.replace(registry, url=_url(registry.url, app_dir))


def _config_center(center: ConfigCenter, app_dir: str, reader: Reader) -> ConfigCenter:
    if not _SCHEME.match(center.url):
        raise reader.error(("config_center", "url"), f'{shown(center.url)} is not of the form "etcd://host:port"')
    cache = _path(center.cache, app_dir, reader, ("config_center", "cache"))
    return msgspec.structs.replace(center, url=_url(center.url, app_dir), cache=cache)


def _client(name: str, client: Client, config: Config | Program, app_dir: str, reader: Reader) -> Client:
    if client.target is None and config.registry is None:
        raise reader.error(("client", name, "target"), "nobody says where it is: give a target here, or a [registry]")
    check_hedges(name, client, reader)
    return msgspec.structs.replace(client, target=client.target and _url(client.target, app_dir))


def check_hedges(name: str, client: Client, reader: Reader) -> None:
    """ConfigError for hedges of a client, or of a method of it, without a time."""
    unsure: list[tuple[tomlmap.Path, int, Duration]] = [(("client", name, "hedges"), client.hedges, client.hedge_after)]
    for key, method in client.method.items():
        unsure.append((("client", name, "method", key, "hedges"), method.hedges or 0, method.hedge_after or client.hedge_after))
    for path, hedges, after in unsure:
        if hedges and not after:
            raise reader.error(path, "hedges need hedge_after, the time after which an attempt counts as slow")


def _url(url: str, app_dir: str) -> str:
    """A URL with the paths in it absolute."""
    if not url.startswith("file://"):
        return absolute(url, app_dir)
    return "file://" + os.path.normpath(os.path.join(app_dir, os.path.expanduser(url.removeprefix("file://"))))


def _address(address: str, app_dir: str, reader: Reader, path: tomlmap.Path, taken: dict[str, str]) -> str:
    """A listening address, checked, with the path of a unix socket absolute."""
    if match := _TCP.fullmatch(address):
        if int(match["port"]) > 65535:
            raise reader.error(path, f"{shown(address)}: a port is a number from 0 to 65535")
    elif address.startswith("unix://"):
        address = f"unix://{_socket_path(address.removeprefix('unix://'), app_dir, reader, path)}"
    else:
        raise reader.error(path, f'{shown(address)} is not "tcp://host:port" or "unix:///path"')
    if address in taken and not address.endswith(":0"):
        raise reader.error(path, f"{shown(address)} is already used by {taken[address]}")
    taken[address] = reader.title(path)
    return address


def _path(value: str | None, app_dir: str, reader: Reader, path: tomlmap.Path) -> str | None:
    if value is None:
        return None
    if not value or "\0" in value:
        raise reader.error(path, f"{shown(value)} is not a path")
    return os.path.normpath(os.path.join(app_dir, os.path.expanduser(value)))


def _tls(tls: ListenTls, app_dir: str, reader: Reader, path: tomlmap.Path) -> ListenTls:
    """With the paths of its files absolute."""
    if tls.client_optional and tls.client_ca is None:
        raise reader.error((*path, "client_optional"), "means nothing without client_ca")
    files = {name: _path(getattr(tls, name), app_dir, reader, (*path, name)) for name in ("cert", "key", "client_ca")}
    names = []
    for index, entry in enumerate(tls.names):
        where = (*path, "names", index)
        pair = {name: _path(getattr(entry, name), app_dir, reader, (*where, name)) for name in ("cert", "key")}
        names.append(msgspec.structs.replace(entry, **pair))
    return msgspec.structs.replace(tls, **files, names=tuple(names))


def _socket_path(value: str | None, app_dir: str, reader: Reader, path: tomlmap.Path) -> str | None:
    found = _path(value, app_dir, reader, path)
    if found is not None and len(os.fsencode(found)) > MAX_UNIX_PATH:
        raise reader.error(path, f"{shown(found)} is longer than the {MAX_UNIX_PATH} bytes a unix socket may have")
    return found
