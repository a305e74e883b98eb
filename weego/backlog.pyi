from governance.shedder import Shedder
from weego.dispatch import Dispatcher, Queue

class Backlog(Queue):
    """Calls that wait for their turn in a server that sheds load."""

    shedder: Shedder
    @property
    def dispatcher(self) -> Dispatcher: ...
    def __init__(self, dispatcher: Dispatcher, shedder: Shedder) -> None: ...
    def __len__(self) -> int: ...
