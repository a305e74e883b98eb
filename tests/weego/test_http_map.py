"""HTTP requests as Thrift calls, by the annotations of Kitex's own example and of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

import weego
from tests.idlc.test_corpus import corpus
from weego.dynamic import JsonError
from weego.generic import GenericClient, Idl
from weego.http_map import HttpRequest, NoRoute

IDL = """
enum Colour { RED = 1 }
struct Ask {
  1: i64 id (api.path = "id")
  2: optional string text (api.query = "q")
  3: optional list<i32> numbers (api.query = "n")
  4: optional bool deep
  5: optional Colour colour
  6: optional binary raw (api.raw_body = "")
  7: optional string secret (api.none = "")
  8: optional string either (api.header = "x-either", api.query = "either")
  9: optional i64 big (api.body = "big", api.js_conv = "")
  10: optional string inForm (api.form = "f")
}
struct Reply {
  1: Ask ask
  2: i32 status (api.http_code = "")
  3: string tag (api.header = "X-Tag")
  4: string crumb (api.cookie = "crumb")
  5: i64 big (api.js_conv = "")
  6: string hidden (api.none = "")
}
struct Raw { 1: binary data (api.raw_body = "") }
service S {
  Reply ask(1: Ask ask) (api.post = "/asks/:id", api.get = "/asks/:id")
  Raw raw(1: Ask ask) (api.put = "/raw/*rest")
  i32 plain(1: i32 a, 2: i32 b) (api.get = "/plain")
  Reply fixed(1: Ask ask) (api.any = "/asks/fixed")
}
"""


@pytest.fixture(scope="module")
def client() -> Iterator[GenericClient]:
    idl = Idl.from_text(IDL)
    module: Any = idl.module

    class Service(module.S):  # type: ignore[misc]
        def ask(self, ask):
            return module.Reply(ask=ask, status=201, tag="a\nb", crumb="c", big=2**60, hidden="x")

        def raw(self, ask):
            return module.Raw(data=ask.raw)

        def plain(self, a, b):
            return a + b

        def fixed(self, ask):
            return module.Reply(status=202)

    with weego.Server(Service(), listen="tcp://127.0.0.1:0") as server, GenericClient(server.addresses[0], idl, timeout=5.0) as client:
        yield client


def asked(client: GenericClient, *arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.call_http(HttpRequest(*arguments)).body)["ask"]
    return found


def test_where_values_come_from(client: GenericClient) -> None:
    assert asked(client, "GET", "/asks/7?q=a%20b&n=1&n=2&deep=true&colour=RED") == {
        "id": 7, "text": "a b", "numbers": [1, 2], "deep": True, "colour": "RED",
    }  # fmt: skip
    assert asked(client, "GET", "/asks/7?n=1,2&colour=1")["numbers"] == [1, 2]
    body = json.dumps({"deep": False, "colour": "RED", "big": str(2**60), "secret": "no", "id": 9}).encode()
    raw = base64.b64encode(body).decode()
    assert asked(client, "POST", "/asks/7", {}, body) == {"id": 7, "deep": False, "colour": "RED", "big": 2**60, "raw": raw}
    assert asked(client, "GET", "/asks/7?either=q", {"X-Either": "h"})["either"] == "q"  # the query before headers
    assert asked(client, "GET", "/asks/7", {"X-Either": "h"})["either"] == "h"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert asked(client, "POST", "/asks/7", form, b"f=x+y&deep=1")["inForm"] == "x y"


def test_what_goes_back(client: GenericClient) -> None:
    response = client.call_http(HttpRequest("GET", "/asks/7"))
    assert response.status == 201
    assert response.headers == {"content-type": "application/json", "x-tag": "a b", "set-cookie": "crumb=c"}
    body = json.loads(response.body)
    assert body["big"] == str(2**60)
    assert "hidden" not in body


def test_raw_bodies_and_plain_arguments(client: GenericClient) -> None:
    response = client.call_http(HttpRequest("PUT", "/raw/a/b", {"content-type": "application/octet-stream"}, b"\x00\xff"))
    assert (response.body, response.headers["content-type"]) == (b"\x00\xff", "application/octet-stream")
    assert client.call_http(HttpRequest("GET", "/plain?a=1&b=2")).body == b"3"


def test_routes(client: GenericClient) -> None:
    assert client.call_http(HttpRequest("DELETE", "/asks/fixed")).status == 202  # before /asks/:id
    with pytest.raises(NoRoute, match="/asks/7 takes POST, GET, not DELETE") as caught:
        client.call_http(HttpRequest("DELETE", "/asks/7"))
    assert caught.value.status == 405
    with pytest.raises(NoRoute, match="no method has the route GET /nothing") as caught:
        client.call_http(HttpRequest("GET", "/nothing"))
    assert caught.value.status == 404
    assert ("GET", "/plain", "S.plain") in list(client.idl.http.routes())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (HttpRequest("GET", "/asks/x"), "id: expected a number for i64, got 'x'"),
        (HttpRequest("GET", "/asks/1?deep=maybe"), "deep: expected bool, got 'maybe'"),
        (HttpRequest("POST", "/asks/1", {}, b"{"), "the body is not JSON"),
        (HttpRequest("POST", "/asks/1", {}, b'{"colour": "GREEN"}'), 'Colour has no member "GREEN"'),
    ],
)
def test_what_does_not_fit(client: GenericClient, request_: HttpRequest, message: str) -> None:
    with pytest.raises(JsonError) as caught:
        client.call_http(request_)
    assert message in str(caught.value)


def test_kitexs_own_example() -> None:
    idl = Idl(corpus() / "cloudwego_kitex/pkg/generic/http_test/idl/http_annotation.thrift")
    request = HttpRequest(
        "GET",
        "/life/client/11/3?v_int64=1&req_items=item1,item2&cids=1,2&vids=1",
        {"token": "5", "Cookie": "cookie=c1; other=x"},
        json.dumps({"text": "text", "some": {"id": 1, "text": "text"}, "req_items_map": {"1": {"id": 1, "text": "text"}}}).encode(),
    )
    (arg,) = idl.http.find(request).arguments(request)
    assert (arg.v_int64, arg.text, arg.token, arg.api_version, arg.uid, arg.cids, arg.cookie) == (1, "text", 5, 11, 3, [1, 2], "c1")
    assert (arg.some.id, arg.req_items_map[1].text, arg.req_items) == (1, "text", ["item1", "item2"])
    route = idl.http.find(request)
    module: Any = idl.module
    reply = module.BizResponse(v_enum=1, http_code=200, b=True, T="t", item_count=[1, 2], header_map={"m": 1}, rsp_items={1: module.RspItem(item_id=1)})
    response = route.response(reply)
    assert response.headers["b"] == "true"
    assert response.headers["item_count"] == "[1, 2]"
    assert json.loads(response.body) == {"rsp_items": [[1, {"item_id": 1}]]}


