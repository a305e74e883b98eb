// What the benchmark's servers answer and its codecs encode.
//
// The shape follows the echo services RPC frameworks are usually compared with: a pair of strings, and a
// "complex" message of about 11 KB in which most bytes are a few long strings and most values are small structs.

namespace py weego_bench

struct EchoRequest {
    1: required string action
    2: required string msg
}

struct EchoResponse {
    1: required string action
    2: required string msg
}

struct Item {
    1: optional i64 id
    2: optional string value
}

struct Group {
    1: optional i64 id
    2: optional string value
    3: optional list<Item> items
}

struct ComplexRequest {
    1: required string action
    2: required string msg
    3: required map<string, Item> itemMap
    4: required list<Item> itemList
    5: optional set<Group> groupSet
    6: required Group flag
    7: optional string cost
}

struct ComplexResponse {
    1: required string action
    2: required string msg
    3: required map<string, Item> itemMap
    4: required list<Item> itemList
    5: optional set<Group> groupSet
    6: required Group flag
}

service Bench {
    /** Answers with a new response that carries the request's strings. */
    EchoResponse echo(1: EchoRequest req)

    /** The same for the complex message: a new response around the request's values. */
    ComplexResponse echoComplex(1: ComplexRequest req)
}
