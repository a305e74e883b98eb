from typing import Any, Final

from governance.call import Call
from governance.chain import Handler
from governance.instance import Balancer
from poller.address import Address
from weego.governed import Governed
from weego.transport import Transport

LONGEST_TIMEOUT: Final[float]

def checked_timeout(seconds: object) -> float | None: ...

class Carrier:
    """A transport that native code calls without a detour."""

class Invoker:
    """The part of a Client that each call goes through."""

    _is_closed: bool
    _service_name: str
    _timeout: float | None
    _governed: Governed | None
    _handler: Handler | None
    _balancer: Balancer
    _only: Address | None
    _addresses: dict[str, Address]
    _transports: dict[Any, Transport]
    _streams_apart: bool

    def _invoke(self, spec: Any, args: tuple[Any, ...], timeout: float | None) -> Any: ...
    def _attempts(self, call: Call, args: tuple[Any, ...]) -> Any: ...
    def _carry(self, call: Call, address: str, args: tuple[Any, ...]) -> Any: ...
    def _address(self, text: str) -> Address: ...
