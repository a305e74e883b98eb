from codec.protocol import Protocol
from poller.connection import Connection, Limits, Receiver
from poller.loop import Loop
from poller.tls import Failures, PeerIdentity, Session

class SecureConnection(Connection):
    """A Connection with TLS in between."""

    @property
    def session(self) -> Session: ...
    def __init__(
        self,
        loop: Loop,
        fd: int,
        protocol: Protocol,
        receiver: Receiver,
        limits: Limits,
        session: Session,
        most_busy: int = 1,
        ends_with_peer: bool = False,
        *,
        shaken: bool = False,
        handshake_timeout: float = 0,
        failures: Failures | None = None,
    ) -> None: ...
    @property
    def identity(self) -> PeerIdentity | None: ...
