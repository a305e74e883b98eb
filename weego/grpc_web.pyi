from weego.dispatch import Dispatcher
from weego.grpc_server import GrpcFront

class WebFront(GrpcFront):
    """gRPC-Web on HTTP/1.1, for the methods of a GrpcFront."""

    def __init__(self, dispatcher: Dispatcher, grpc: GrpcFront) -> None: ...
