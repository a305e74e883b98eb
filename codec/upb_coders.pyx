# cython: language_level=3
"""protobuf's own message classes, which upb makes, as codec.protobuf wants them: native, for what lies around upb's work is done for each message."""

from codec.errors import EncodeError, ProtocolError


def upb_coders(cls, str full_name not None):
    """``(encode, decode)`` of one class, for its MessageType."""
    from google.protobuf.message import DecodeError
    from google.protobuf.message import EncodeError as UpbEncodeError

    serialize = cls.SerializeToString
    parse = cls.FromString

    def encode(message):
        if type(message) is not cls:
            raise EncodeError(f"expected a {full_name}, got {type(message).__name__}")
        try:
            return serialize(message)
        except UpbEncodeError as error:  # a required field is missing, or the message is larger than 2 GiB
            raise EncodeError(str(error), full_name) from error

    def decode(data):
        try:
            return parse(data)
        except DecodeError as error:
            raise ProtocolError(f"{full_name}: these {len(data)} bytes are no such message ({error})") from error

    return encode, decode
