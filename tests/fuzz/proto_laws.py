"""What holds for any bytes given to a native Protobuf message."""

from __future__ import annotations

from codec.errors import ProtocolError
from tests.codec.test_proto_plan import Holder, Old, Outer

CLASSES = (Outer, Old, Holder)


def law(data: bytes) -> None:
    """A message, which written and read again is the same bytes, or ProtocolError and nothing else."""
    for cls in CLASSES:
        plan = cls.__plan__
        try:
            message = plan.loads(data)
        except ProtocolError:
            continue
        again = plan.dumps(message)
        assert plan.dumps(plan.loads(again)) == again
