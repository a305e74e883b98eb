// What a browser does with weego: gRPC-Web's clients of Connect and of Google call the TestService, each case says how it went, and the whole is
// posted to the page's own server. The page's address tells whom to call: ?target=…&refusing=…
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import grpcWeb from "grpc-web";

const asked = new URLSearchParams(location.search);
const target = asked.get("target");
const cases = {};

function expect(found, wanted) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${a}, not ${b}`);
}

async function fails(code, action) {
  try {
    await action();
  } catch (error) {
    const found = ConnectError.from(error);
    expect(Code[found.code], Code[code]);
    return found;
  }
  throw new Error("no error");
}

async function connect() {
  const bytes = new Uint8Array(await (await fetch("/descriptors")).arrayBuffer());
  const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes)).getService("grpc.testing.TestService");
  const client = createClient(service, createGrpcWebTransport({ baseUrl: target }));
  const sizes = [31415, 9, 2653, 58979];

  cases.connect_empty_unary = async () => expect((await client.emptyCall({})).$typeName, "grpc.testing.Empty");
  cases.connect_large_unary = async () => {
    const reply = await client.unaryCall({ responseSize: 314159, payload: { body: new Uint8Array(271828) } });
    expect(reply.payload.body.length, 314159);
  };
  cases.connect_server_streaming = async () => {
    const found = [];
    for await (const reply of client.streamingOutputCall({ responseParameters: sizes.map((size) => ({ size })) })) {
      found.push(reply.payload.body.length);
    }
    expect(found, sizes);
  };
  cases.connect_streams_as_it_goes = async () => {
    // The first message must be seen before the last one is made.
    const started = performance.now();
    let first = 0;
    for await (const _ of client.streamingOutputCall({ responseParameters: [{ size: 1 }, { size: 1, intervalUs: 500000 }] })) {
      first ||= performance.now() - started;
    }
    if (first > performance.now() - started - 250) throw new Error(`the first came after ${first} ms`);
  };
  cases.connect_metadata = async () => {
    let head, trailer;
    await client.unaryCall({ responseSize: 1 }, {
      headers: { "x-grpc-test-echo-initial": "test_initial_metadata_value", "x-grpc-test-echo-trailing-bin": "q6ur" },
      onHeader: (found) => { head = found.get("x-grpc-test-echo-initial"); },
      onTrailer: (found) => { trailer = found.get("x-grpc-test-echo-trailing-bin"); },
    });
    expect([head, trailer], ["test_initial_metadata_value", "q6ur"]);
  };
  cases.connect_error_in_trailers = async () => {
    const status = { code: 2, message: "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n" };
    const error = await fails(Code.Unknown, () => client.unaryCall({ responseStatus: status }));
    expect(error.rawMessage, status.message);
  };
  cases.connect_error_after_messages = async () => {
    const found = [];
    const request = { responseParameters: [{ size: 5 }, { size: 7 }], responseStatus: { code: 5, message: "gone" } };
    const error = await fails(Code.NotFound, async () => {
      for await (const reply of client.streamingOutputCall(request)) found.push(reply.payload.body.length);
    });
    expect([found, error.rawMessage], [[5, 7], "gone"]);
  };
  cases.connect_unimplemented = () => fails(Code.Unimplemented, () => client.unimplementedCall({}));
  cases.connect_deadline = () => fails(Code.DeadlineExceeded, async () => {
    const slow = { responseParameters: [{ size: 1, intervalUs: 5000000 }] };
    for await (const _ of client.streamingOutputCall(slow, { timeoutMs: 200 }));
  });
  cases.connect_cancel = async () => {
    const stop = new AbortController();
    const slow = { responseParameters: [{ size: 1 }, { size: 1, intervalUs: 20000000 }] };
    await fails(Code.Canceled, async () => {
      for await (const _ of client.streamingOutputCall(slow, { signal: stop.signal })) stop.abort();
    });
  };
  cases.connect_concurrent = async () => {
    const replies = await Promise.all(Array.from({ length: 30 }, (_, size) => client.unaryCall({ responseSize: size })));
    expect(replies.map((reply) => reply.payload.body.length), Array.from({ length: 30 }, (_, size) => size));
  };
  cases.connect_refused_origin = async () => {
    const strict = createClient(service, createGrpcWebTransport({ baseUrl: asked.get("refusing") }));
    const error = await fails(Code.Unknown, () => strict.emptyCall({}));
    expect(error.rawMessage, "Failed to fetch");  // CORS: the browser does not even tell why
  };
}

// Google's client wants classes with serializeBinary and deserializeBinary. Messages are bytes here: SimpleRequest is response_size = 2, its answer
// payload = 1 { body = 2 }.
function google(format) {
  const base = new grpcWeb.GrpcWebClientBase({ format });
  const method = (name, kind) =>
    new grpcWeb.MethodDescriptor(`/grpc.testing.TestService/${name}`, kind, Object, Object, (message) => message.bytes, (bytes) => ({ bytes }));
  const unary = method("UnaryCall", grpcWeb.MethodType.UNARY);
  const streaming = method("StreamingOutputCall", grpcWeb.MethodType.SERVER_STREAMING);
  const url = (name) => `${target}/grpc.testing.TestService/${name}`;
  const request = (...bytes) => ({ bytes: new Uint8Array(bytes) });
  const call = (message) => new Promise((done, failed) => {
    base.rpcCall(url("UnaryCall"), message, {}, unary, (error, reply) => (error ? failed(error) : done(reply)));
  });

  cases[`google_${format}_unary`] = async () => expect((await call(request(0x10, 100))).bytes.length, 104);
  cases[`google_${format}_error`] = async () => {
    const status = request(0x3a, 8, 0x08, 9, 0x12, 4, ...new TextEncoder().encode("lazy"));
    const error = await call(status).then(() => null, (found) => found);
    expect([error.code, error.message], [9, "lazy"]);
  };
  if (format === "text") {
    // Messages as they come are what the text format is for; the binary one has them at the end.
    cases.google_text_server_streaming = () => new Promise((done, failed) => {
      const found = [];
      const stream = base.serverStreaming(url("StreamingOutputCall"), request(0x12, 2, 0x08, 9, 0x12, 2, 0x08, 50), {}, streaming);
      stream.on("data", (message) => found.push(message.bytes.length));
      stream.on("error", failed);
      stream.on("end", () => {
        try { expect(found, [13, 54]); done(); } catch (error) { failed(error); }
      });
    });
  }
}

async function main() {
  const results = {};
  try {
    await connect();
    google("text");
    google("binary");
    for (const [name, run] of Object.entries(cases)) {
      try {
        await run();
        results[name] = "passed";
      } catch (error) {
        results[name] = String(error?.message ?? error);
      }
    }
  } catch (error) {
    results.page = String(error?.stack ?? error);
  }
  await fetch("/results", { method: "POST", body: JSON.stringify(results) });
}

main();
