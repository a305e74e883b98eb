"""MessageType and ProtobufMethodSpec over protobuf's own classes."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.protobuf.struct_pb2 import Struct, Value

from codec.errors import EncodeError, ProtocolError
from codec.protobuf import ProtobufMethodSpec, message_type, protobuf_service
from codec.spec import MethodSpec, ServiceSpec


def test_a_message_goes_to_bytes_and_back() -> None:
    kind = message_type(Value)
    assert kind.cls is Value
    assert kind.full_name == "google.protobuf.Value"
    data = kind.encode(Value(string_value="hi"))
    assert data == b"\x1a\x02hi"
    for form in (data, bytearray(data), memoryview(data)):
        assert kind.decode(form) == Value(string_value="hi")


def test_types_compare_by_their_class() -> None:
    assert message_type(Value) == message_type(Value)
    assert len({message_type(Value), message_type(Value), message_type(Struct)}) == 2


def test_a_message_of_another_class_is_not_encoded() -> None:
    with pytest.raises(EncodeError, match=r"expected a google\.protobuf\.Value, got Struct"):
        message_type(Value).encode(Struct())


def test_a_message_that_lacks_a_required_field_is_not_encoded() -> None:
    incomplete = UninterpretedOption(name=[UninterpretedOption.NamePart()])
    with pytest.raises(EncodeError, match="name_part"):
        message_type(UninterpretedOption).encode(incomplete)


@pytest.mark.parametrize("data", [b"\xff", b"\x1a\x05hi", b"\x1a\x01\xff"], ids=["tag", "length", "utf-8"])
def test_bytes_that_are_no_message_are_the_peers_mistake(data: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"google\.protobuf\.Value"):
        message_type(Value).decode(data)


def test_other_classes_are_no_messages() -> None:
    with pytest.raises(TypeError, match="no Protobuf message class"):
        message_type(dict)


def test_specs_say_what_a_transport_needs() -> None:
    watch = ProtobufMethodSpec(
        "Watch", request=message_type(Struct), response=message_type(Value), server_streaming=True, py_name="watch"
    )
    service = protobuf_service("a.b.Watcher", (watch,))
    assert (service.name, service.full_name, service.kind) == ("Watcher", "a.b.Watcher", "protobuf")
    assert service.methods == {"Watch": watch}
    assert (watch.wire_name, watch.oneway, watch.client_streaming) == (b"Watch", False, False)
    assert "returns (stream google.protobuf.Value)" in repr(watch)


def test_a_service_has_methods_of_its_own_family() -> None:
    call = MethodSpec("Call", args=(), result=None)
    assert ServiceSpec("S", (call,)).full_name == "S"
    with pytest.raises(TypeError, match="of kind protobuf"):
        protobuf_service("a.S", (call,))  # type: ignore[arg-type]
