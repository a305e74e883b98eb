# The stubs are made when the test runs.
# mypy: ignore-errors
"""ThriftTest, the service that Apache Thrift's languages test each other with, implemented with weego: app.py of the server under test."""

from __future__ import annotations

import time

from gen.ThriftTest import Insanity, Numberz, ThriftTest, Xception, Xception2, Xtruct, Xtruct2


class Refusal(Exception):
    """Not declared in the IDL."""


class Service(ThriftTest):
    def test_void(self) -> None:
        pass

    def test_string(self, thing: str) -> str:
        return thing

    def test_bool(self, thing: bool) -> bool:
        return thing

    def test_byte(self, thing: int) -> int:
        return thing

    def test_i32(self, thing: int) -> int:
        return thing

    def test_i64(self, thing: int) -> int:
        return thing

    def test_double(self, thing: float) -> float:
        return thing

    def test_binary(self, thing: bytes) -> bytes:
        return thing

    def test_struct(self, thing: Xtruct) -> Xtruct:
        return thing

    def test_nest(self, thing: Xtruct2) -> Xtruct2:
        return thing

    def test_map(self, thing: dict[int, int]) -> dict[int, int]:
        return thing

    def test_string_map(self, thing: dict[str, str]) -> dict[str, str]:
        return thing

    def test_set(self, thing: set[int]) -> set[int]:
        return thing

    def test_list(self, thing: list[int]) -> list[int]:
        return thing

    def test_enum(self, thing: Numberz) -> Numberz:
        return thing

    def test_typedef(self, thing: int) -> int:
        return thing

    def test_map_map(self, hello: int) -> dict[int, dict[int, int]]:
        return {sign * 4: {sign * number: sign * number for number in range(1, 5)} for sign in (-1, 1)}

    def test_insanity(self, argument: Insanity) -> dict[int, dict[Numberz, Insanity]]:
        return {1: {Numberz.TWO: argument, Numberz.THREE: argument}, 2: {Numberz.SIX: Insanity()}}

    def test_multi(self, arg0: int, arg1: int, arg2: int, arg3: dict[int, str], arg4: Numberz, arg5: int) -> Xtruct:
        return Xtruct(string_thing="Hello2", byte_thing=arg0, i32_thing=arg1, i64_thing=arg2)

    def test_exception(self, arg: str) -> None:
        if arg == "Xception":
            raise Xception(errorCode=1001, message=arg)
        if arg == "TException":
            raise Refusal("this is not in the IDL")

    def test_multi_exception(self, arg0: str, arg1: str) -> Xtruct:
        if arg0 == "Xception":
            raise Xception(errorCode=1001, message="This is an Xception")
        if arg0 == "Xception2":
            raise Xception2(errorCode=2002, struct_thing=Xtruct(string_thing="This is an Xception2"))
        return Xtruct(string_thing=arg1)

    def test_oneway(self, secondsToSleep: int) -> None:
        time.sleep(secondsToSleep / 10)
