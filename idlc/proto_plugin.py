"""protoc's plugin protocol: a CodeGeneratorRequest on stdin, a CodeGeneratorResponse on stdout.

`protoc --weego_out=gen --weego_opt=names=idl x.proto` writes what `weego gen x.proto -o gen --names idl` writes, but that protoc reads the
files and puts the output where it belongs; files that are there are overwritten, for protoc asks nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from idlc.compile import Output
from idlc.errors import IdlError, Report, TooManyErrors
from idlc.names import MethodStyle
from idlc.proto_compile import Messages, emit_protos
from idlc.proto_files import read_files

__all__ = ["answer"]

_OPTIONS: Final[dict[str, tuple[str, ...]]] = {"names": get_args(MethodStyle), "messages": get_args(Messages)}


def answer(request: bytes, version: str) -> bytes:
    """The serialized response to a serialized request. Mistakes are in its `error`, as protoc wants them."""
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=Edition.EDITION_PROTO2,
        maximum_edition=Edition.EDITION_2024,
    )
    try:
        asked = CodeGeneratorRequest.FromString(request)
        options = _options(asked.parameter)
        for name, text in _files(asked, options, version):
            response.file.add(name=name, content=text)
    except (IdlError, ValueError) as error:
        response.error = str(error)
    data: bytes = response.SerializeToString()
    return data


def _options(parameter: str) -> dict[str, str]:
    """`names=idl,messages=upb` as a dict. ValueError for what is not known."""
    options: dict[str, str] = {}
    for each in filter(None, parameter.split(",")):
        key, _, value = each.partition("=")
        if key not in _OPTIONS:
            raise ValueError(f"protoc-gen-weego knows no option {key!r}; it knows {', '.join(_OPTIONS)}")
        if value not in _OPTIONS[key]:
            raise ValueError(f"protoc-gen-weego: {key} is one of {', '.join(_OPTIONS[key])}, not {value!r}")
        options[key] = value
    return options


def _files(request: CodeGeneratorRequest, options: dict[str, str], version: str) -> list[tuple[str, str]]:
    report = Report()
    files, types = read_files(list(request.proto_file), {})
    output = Output(Path(), report, is_memory=True)
    try:
        emit_protos(
            files,
            types,
            set(request.file_to_generate),
            output,
            "idl" if options.get("names") == "idl" else "pep8",
            messages=_messages(options),
            version=version,
        )
    except TooManyErrors:
        pass
    report.raise_errors()
    return output.texts()


def _messages(options: dict[str, str]) -> Messages:
    return next((each for each in get_args(Messages) if each == options.get("messages")), "upb")
