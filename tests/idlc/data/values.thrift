// Defaults and constants of every shape.
include "shared.thrift"

struct Point { 1: required i32 x, 2: i32 y = 5, 3: optional string label }
struct Tree { 1: string name, 2: list<Tree> children, 3: optional Tree parent, 4: map<string, Tree> by_name }

typedef Point Spot
typedef set<i32> Numbers

// Forward: END stands below.
const i64 START = END
const i64 END = 12
const Spot HERE = {"x": 1}
const list<Point> PATH = [HERE, {"x": 2, "y": 3}]
const set<list<i32>> PAIRS = [[1, 2], [3, 4]]
const map<map<string, i32>, set<i32>> MAPS = {{"a": 1}: [1, 2]}
const map<set<i32>, string> BY_SET = {[1, 2]: "x"}
const double HUGE = 1e300
const double THIRD = 3
const bool YES = 1
const binary RAW = "\xff\x00a"
const string QUOTED = 'say "hi" \\ \n'
const uuid ID = "{00112233-4455-6677-8899-aabbccddeeff}"
const shared.Status STATUS = shared.Status.FAILED
const list<string> COPIED = shared.TAGS
const set<Point> SPOTS = [{"x": 1}, {"x": 2}]

struct Defaults {
    1: i32 number = END
    2: list<string> tags = shared.TAGS
    3: Spot spot = HERE
    4: Point given = {"x": 9, "label": "nine"}
    5: shared.Status status = shared.Status.FAILED
    6: optional shared.Status maybe
    7: optional i32 count = 3
    8: optional list<i32> numbers = [1]
    9: set<list<i32>> pairs = PAIRS
    10: required string must
    11: required i32 with_default = 4
    12: shared.Base base
    13: uuid id = ID
    14: shared.Status zero
    15: list<i32> none
    16: map<string, list<i32>> empty = {}
    17: optional Point nowhere
    18: Numbers typed = [1, 2]
    19: set<Numbers> sets
}
