"""What one HTTP/2 connection may cost us: every bound with its reason. `docs/grpc.md` tells users about them.

A *budget* is a bucket of tokens that an event of the peer takes from: it holds `burst` tokens, refills at `rate` tokens a second, and what real
work of the connection gives back is said at each. A peer that overdraws one is told GOAWAY ENHANCE_YOUR_CALM with the name of the budget,
and the connection ends. The numbers of other servers are in parentheses.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Budget(NamedTuple):
    """Tokens: how many there are at most, how many come back in a second."""

    burst: float
    rate: float


# ---- what we tell the peer in our SETTINGS -----------------------------------------------------------------------------

MAX_STREAMS: Final = 100
"""Calls at a time on one connection (RFC 9113 recommends no less; nginx 128, Envoy 100, h2o 100). One more is refused, not an error."""

STREAM_WINDOW: Final = 1 << 20
"""Bytes of one stream in flight to us: a 100 KB message arrives without waiting for us. It opens again as the messages are taken."""

CONNECTION_WINDOW: Final = 1 << 22
"""Bytes of all streams in flight. It opens as the bytes arrive, so one slow stream does not hold up the others …"""

CONNECTION_BUFFERED: Final = 1 << 23
"""… until this much waits for handlers that do not take it; then it stays shut until they do."""

MAX_FRAME: Final = 16384
"""The least that RFC 9113 allows (4.2), and what every peer sends unless told otherwise."""

# ---- bounds ------------------------------------------------------------------------------------------------------------

MAX_HEADER_BLOCK: Final = 65536
"""Bytes of one header block before decoding, over all its CONTINUATION frames."""

MAX_CONTINUATIONS: Final = 8
"""Frames that may continue one header block (VU#421644). Real blocks need none: 16 KiB fit into the first frame."""

HEADER_PATIENCE: Final = 5.0
"""Seconds for the connection preface, and for a header block that has begun."""

DATA_BACKLOG: Final = 1 << 18
"""Unsent bytes of the connection beyond which no more DATA is put behind them, so that acknowledgements need not wait long."""

MAX_IDS_KEPT: Final = 256
"""Ended streams whose end is remembered, to tell a late frame from a forbidden one."""

MAX_WINDOW: Final = 2**31 - 1
"""RFC 9113, 6.9.1."""

# ---- budgets -----------------------------------------------------------------------------------------------------------

RESETS: Final = Budget(200, 200)
"""Streams the peer resets (rapid reset, CVE-2023-44487). A stream that ends in order gives one back. (nginx: twice max_streams in a
read; Envoy: half of 500 a second; rust h2: 20 pending.)"""

OUR_RESETS: Final = Budget(200, 100)
"""Stream errors the peer provokes (MadeYouReset, CVE-2025-8671); streams we refuse because there are too many count too. (rust h2: 1024
in all.)"""

PINGS: Final = Budget(100, 10)
"""PINGs to answer. grpcio measures its bandwidth with one for each read, so each DATA frame that goes out or comes in gives one back.
(grpc-go: two too early and the connection ends.)"""

SETTINGS: Final = Budget(100, 1)
"""SETTINGS to acknowledge. (Envoy: 1000 queued; grpc-go: 100 queued stop the reading.)"""

PRIORITIES: Final = Budget(200, 10)
"""PRIORITY and unknown frames, which we ignore; each new stream gives two back. (nginx: max(100, max_streams).)"""

WINDOW_UPDATES: Final = Budget(1000, 100)
"""WINDOW_UPDATEs; each DATA frame that goes out gives ten back. (Envoy: ten for each DATA frame.)"""

EMPTY_FRAMES: Final = 100
"""DATA or CONTINUATION frames in a row that carry nothing and end nothing. (rust h2: 100; Envoy: 1.)"""

SMALL_FRAME: Final = 256
"""A DATA frame shorter than this is charged what it lacks …"""

SMALL_FRAMES: Final = 1 << 16
"""… to this many bytes for the connection; whoever makes sense of the data (a whole message, the end of a stream) clears the account."""

OVERHEAD_FACTOR: Final = 8
OVERHEAD_FREE: Final = 1 << 20
"""All bytes received may be this many times the header and DATA bytes in both directions and the free ones (nginx)."""

PING_GOODBYE: Final = b"weego:by"
"""What the PING between the two GOAWAYs of a graceful end carries: eight bytes that nobody else sends."""
