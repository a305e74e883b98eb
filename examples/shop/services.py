"""Three services: the gateway asks item, item asks stock. Each finds the next through the registry in its configuration.

`python examples/shop/run.py` makes the stubs, starts all of them and shows what they do in trouble.
"""

from __future__ import annotations

import threading
import time

from weego import RpcError

from .gen.shop import Gateway, Item, ItemClient, Stock, StockClient, Thing

# What a stock server can do at one time: its database, so to speak, has so many connections, and a query takes so long (seconds).
CONNECTIONS = 4
QUERY = 0.03


class StockService(Stock):
    def __init__(self) -> None:
        self.database = threading.Semaphore(CONNECTIONS)
        self.late = 0.0
        self.fails = False

    def left(self, id: str) -> int:
        if self.fails:
            raise RuntimeError("the database says no")
        with self.database:
            time.sleep(QUERY)
        time.sleep(self.late)
        return len(id)

    def trouble(self, seconds: float, fail: bool) -> None:
        self.late = seconds
        self.fails = fail


class ItemService(Item):
    def __init__(self) -> None:
        self.stock = StockClient("service://stock")

    def get(self, id: str) -> Thing:
        try:
            return Thing(id=id, title=f"thing {id}", left=self.stock.left(id))
        except RpcError:  # an item without its number is better than none
            return Thing(id=id, title=f"thing {id}", sure=False)


class GatewayService(Gateway):
    def __init__(self) -> None:
        self.item = ItemClient("service://item")

    def show(self, id: str) -> str:
        thing = self.item.get(id)
        return f"{thing.title}: {thing.left if thing.sure else '?'} left"
