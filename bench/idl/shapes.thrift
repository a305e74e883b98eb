// The shapes of the codec benchmark (bench/codecs/shapes.py); shapes.proto is its twin.
namespace py shapes

struct Two { 1: string action, 2: string msg }

struct Scalars {
  1: bool b1, 2: bool b2, 3: i32 i1, 4: i32 i2, 5: i32 i3, 6: i32 i4, 7: i64 l1, 8: i64 l2, 9: i64 l3, 10: i64 l4,
  11: double d1, 12: double d2, 13: double d3, 14: double d4, 15: string s1, 16: string s2, 17: string s3, 18: string s4,
  19: i32 i5, 20: i64 l5
}

struct Numbers { 1: list<i64> values }

struct Item { 1: i64 id, 2: string value }

struct Table { 1: map<string, Item> items }

struct Nested { 1: i64 level, 2: string name, 3: optional Nested inner }

struct Blob { 1: binary data }

struct Group { 1: i64 id, 2: string value, 3: list<Item> items }

struct Complex {
  1: string action, 2: string msg, 3: map<string, Item> itemMap, 4: list<Item> itemList, 5: list<Group> groups, 6: Group flag
}
