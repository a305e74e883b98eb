from typing import Any

from governance.call import Call
from poller.address import Address
from weego.grpc_channel import GrpcChannel
from weego.invoker import Carrier

def checked_compression(name: str | None) -> str | None: ...

class GrpcCarrier(Carrier):
    """Repeats what was not looked at, and waits for a peer to be there if so wished."""

    _closed: bool
    _links: dict[str, list[Any]]
    _reused: int

    def __init__(self, channel: GrpcChannel, hub: Any = None) -> None: ...
    def call(self, call: Call, address: Address, args: tuple[Any, ...]) -> Any: ...
