"""Which protocol a client speaks: the table of channels, by the name given as `framing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from codec.errors import UsageError
from codec.spec import ServiceSpec
from codec.thrift import FRAMINGS
from weego.thrift_channel import ThriftChannel
from weego.transport import Channel, PoolLimits

__all__ = ["ChannelOptions", "choose"]


@dataclass(frozen=True)
class ChannelOptions:
    """What a client tells its channel."""

    spec: ServiceSpec
    framing: str
    limits: PoolLimits
    caller: str
    service_name: str
    checksum: bool = False
    shared: int = 0
    compression: str = ""
    payload: str = ""
    wait_for_ready: bool = False
    keepalive_time: float = 0.0
    keepalive_timeout: float = 20.0
    authority: str | None = None


Maker = Callable[[ChannelOptions], Channel]


def _thrift(options: ChannelOptions) -> Channel:
    return ThriftChannel(
        options.spec,
        framing=options.framing,
        limits=options.limits,
        caller=options.caller,
        service_name=options.service_name,
        checksum=options.checksum,
        shared=options.shared,
        compression=options.compression,
        payload=options.payload,
    )


def _kitex_protobuf(options: ChannelOptions) -> Channel:
    return _thrift(replace(options, framing=f"{options.framing}-protobuf"))


def _grpc(options: ChannelOptions) -> Channel:
    from weego.grpc_channel import GrpcChannel  # who calls no gRPC needs no HTTP/2

    return GrpcChannel(
        options.spec,
        limits=options.limits,
        authority=options.authority,
        compression=options.compression,
        wait_for_ready=options.wait_for_ready,
        keepalive_time=options.keepalive_time,
        keepalive_timeout=options.keepalive_timeout,
        caller=options.caller,
    )


def streams_of(options: ChannelOptions) -> Channel:
    """The channel of a Thrift service's streams, whatever the framing of its calls."""
    from weego.stream_channel import StreamChannel  # most clients of Thrift stream nothing

    return StreamChannel(options.spec, limits=options.limits, caller=options.caller, service_name=options.service_name)


# By the kind of IDL the service comes from: the ways to call it, and the one that is meant when none is named (Kitex's own).
_CHANNELS: Final[dict[str, dict[str, Maker]]] = {
    "thrift": {name: _thrift for name in FRAMINGS if not name.endswith("-protobuf")},
    "protobuf": {"grpc": _grpc, "ttheader-framed": _kitex_protobuf, "framed": _kitex_protobuf},
}
# Behind a framing's name: its messages are in the compact protocol.
_COMPACT: Final = "-compact"
_USUAL: Final = {"thrift": "framed", "protobuf": "grpc"}
# Those that carry streams beside calls. (Streams of Thrift services go their own way: `streams_of`.)
STREAMING: Final = frozenset(("grpc",))


def choose(spec: ServiceSpec, framing: str | None, protocol: str = "binary", payload: str = "") -> tuple[str, Maker]:
    """The name and the maker of the channel for `framing`, or of the usual one for this kind of service; UsageError when there is none.

    `protocol` is Thrift's: binary or compact. `payload` names a payload codec, which is at home in a TTHeader.
    """
    kind = getattr(spec, "kind", "thrift")
    if payload and kind != "thrift":
        raise UsageError(f"payload={payload!r} is for services of Thrift files; {spec.name} is one of kind {kind}")
    if payload and framing is None:
        framing = "ttheader"
    channels = _CHANNELS[kind]
    name = _USUAL[kind] if framing is None else framing
    if name not in channels:
        choices = ", ".join(each for each in channels if not each.endswith(_COMPACT))
        raise UsageError(f"unknown framing {name!r}; choose one of {choices}")
    if protocol == "compact":
        if not name.endswith(_COMPACT):
            name += _COMPACT
        if name not in channels:
            raise UsageError(f"protocol=\"compact\" is for Thrift messages; framing={framing!r} and services of kind {kind} have none")
    elif protocol != "binary":
        raise UsageError(f"unknown protocol {protocol!r}; choose binary or compact")
    return name, channels[name]
