// What weego and Kitex say to each other; see test_kitex.py.
namespace go conversation
namespace py conversation

enum Colour {
    RED = 1
    GREEN = 2
    BLUE = 4
}

struct Request {
    1: string message
}

struct Response {
    1: string message
}

struct Point {
    1: double x
    2: double y
    3: optional string name
}

union Choice {
    1: string text
    2: i64 number
    3: Point point
}

/** Every type, and every kind of nest that Kitex can generate Go for. */
struct Every {
    1: required i32 needed
    2: bool flag
    3: i8 small
    4: i16 medium
    5: i32 normal
    6: i64 large
    7: double real
    8: string text
    9: binary raw
    10: Colour colour
    11: list<i32> numbers
    12: set<string> words
    13: map<string, i64> counts
    14: Point point
    15: Choice choice
    16: list<Point> points
    17: map<string, list<Point>> groups
    18: map<i32, map<string, double>> nested
    19: list<list<bool>> flags
    20: set<i64> identities
    21: optional string maybe
    22: string preset = "preset"
    23: list<Colour> colours
    24: list<binary> raws
    25: map<Colour, string> names
    26: list<map<i16, set<i32>>> deep
    27: optional Every inner
    28: optional i32 absent
    32767: i32 far
}

exception NotFound {
    1: string what
    2: i32 code
}

exception Denied {
    1: string why
}

service Conversation {
    Response echo(1: Request req)
    Every every(1: Every every)
    binary blob(1: binary data)
    i64 add(1: i64 a, 2: i64 b)
    void nothing()
    /** "nothing" is NotFound, "secret" is Denied. */
    Point find(1: string what) throws (1: NotFound missing, 2: Denied denied)
    void check(1: string what) throws (1: NotFound missing)
    /** A bug in the handler, whose text is `text`. */
    string fail(1: string text)
    /** A business status error. */
    string refuse(1: i32 status, 2: string message, 3: map<string, string> extra)
    oneway void note(1: string text)
    i32 noted()
    /** What the handler knows of its call: metainfo by name, "caller", "from method", and "remaining" milliseconds of its deadline. */
    map<string, string> facts()
    /** Waits; says "interrupted" if the deadline came first. */
    string linger(1: i32 milliseconds)
    /** How many calls of linger were ended by their deadline. */
    i32 interrupted()
    /** Sends each pair back as metadata beside the answer. */
    void tell(1: map<string, string> pairs)
}
