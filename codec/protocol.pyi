from typing import Any

from codec.buffer import ReadBuffer

class Protocol:
    """Sans-IO: bytes in, messages out."""

    # Any: a list of Requests or of Replies, which the subclasses say.
    def feed(self, data: ReadBuffer) -> Any: ...
