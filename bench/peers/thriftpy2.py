"""thriftpy2, its transport and protocol in Cython, in a gevent ``StreamServer``: a greenlet per connection."""

from __future__ import annotations

import socket
from typing import Any, cast

from gevent.server import StreamServer
from thriftpy2.protocol.cybin.cybin import TCyBinaryProtocol
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TTransportException
from thriftpy2.transport.framed.cyframed import TCyFramedTransport
from thriftpy2.transport.socket import TSocket

from bench.codecs import thriftpy2 as codec
from bench.peers.serving import BACKLOG, Echo, announce, options


def main() -> None:
    port = options().port
    processor = TProcessor(codec.module().Bench, Echo(codec.types()))

    def serve(connection: Any, _address: object) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trans: Any = cast("Any", TSocket)()  # its types are not written down
        trans.set_handle(connection)
        protocol = TCyBinaryProtocol(TCyFramedTransport(trans))
        try:
            while True:
                processor.process(protocol, protocol)
        except TTransportException:
            pass  # the client has closed
        finally:
            trans.close()

    server = StreamServer(("127.0.0.1", port), serve, backlog=BACKLOG)
    server.start()
    announce(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
