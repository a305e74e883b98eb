"""What can go wrong on an HTTP/2 connection."""

from __future__ import annotations

import enum

from codec.errors import ProtocolError

__all__ = ["ErrorCode", "H2Error"]


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class H2Error(ProtocolError):
    """The peer broke the rules so that the connection must end; GOAWAY with `h2_code` has been written.

    `abuse` names the budget that the peer overdrew (a counter has it as a label), or is empty.
    """

    def __init__(self, message: str, h2_code: int = ErrorCode.PROTOCOL_ERROR, abuse: str = "") -> None:
        super().__init__(message)
        self.h2_code = ErrorCode(h2_code)
        self.abuse = abuse
