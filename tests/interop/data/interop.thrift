/** Every type there is, and a service that sends them back: what weego and its peers say to each other in the tests. */
namespace py interop

enum Colour {
    RED = 1
    GREEN = 2
    BLUE = 7
}

typedef i64 Identity

const i32 LIMIT = 1000

struct Inner {
    1: string name
    2: i32 number
}

union Choice {
    1: string text
    2: i64 number
    3: Inner inner
}

exception NotFound {
    1: string what
    2: i32 code
}

exception Denied {
    1: string why
}

struct Every {
    24: required i32 needed
    1: bool flag
    2: byte small
    3: i16 medium
    4: i32 normal
    5: i64 large
    6: double real
    7: string text
    8: binary raw
    9: Colour colour
    10: Identity identity
    11: list<i32> numbers
    12: set<string> words
    13: map<string, i64> counts
    14: Inner inner
    15: Choice choice
    16: list<Inner> inners
    17: map<string, list<Inner>> groups
    18: map<i32, map<string, double>> nested
    19: list<list<bool>> flags
    20: set<Identity> identities
    21: optional string maybe
    22: optional i32 absent
    23: string preset = "preset"
    25: list<Colour> colours
    26: list<binary> raws
    27: map<Colour, string> names
    28: list<map<i16, set<i32>>> deep
    1000: i32 far
}

service Base {
    string ping()
}

service Interop extends Base {
    Every echo(1: Every every)
    void nothing()
    string text(1: string text)
    binary raw(1: binary raw)
    i32 add(1: i32 a, 2: i32 b)
    Inner find(1: string what) throws (1: NotFound missing, 2: Denied denied)
    void check(1: string what) throws (1: NotFound missing)
    list<Inner> many(1: i32 count)
    oneway void note(1: string text)
    i32 noted()
    void fail()
}

/** What a client may believe the service to have, and it has not. */
service Beyond extends Interop {
    string missing(1: string text)
    oneway void missing_oneway(1: string text)
}
