/*
 * What our own nodes say to each other, beyond the interface of 2009. A node that has these calls lists
 * `thrifty.Peer` in its `service_types`; nodes of the original know none of them.
 *
 * Fields may be added: unknown ones are skipped, so a ring is upgraded node by node.
 */
include "locator.thrift"

namespace * thrifty

/** The version of this interface; greater when a node of the version before could no longer take part. */
const i32 VERSION = 1

/** Where a node stands in its life, as others see it. */
enum State {
  /** In the ring, but not yet in possession of all it should hold. */
  FILLING = 1
  /** In the ring and in possession of all it should hold. */
  FULL = 2
  /** Handing over; takes nothing new. */
  LEAVING = 3
  /** Has said goodbye. */
  GONE = 4
  /** A node of the original: it speaks the interface of 2009 only, and has no states. */
  ORIGINAL = 5
}

/** One line of a node's list of members. */
struct Member {
  1: locator.Location location
  2: State state
  /** When `location` came to be in `state`, in microseconds since 1970. Of two lines about a location the greater
   *  stamp is right. */
  3: i64 stamp
}

/** A key as nodes hand it on. */
struct Item {
  1: binary key
  /** Microseconds since 1970, never twice the same for a key from one node; the greater wins. */
  2: i64 version
  /** Absent where only the version is spoken of; empty for a key that was removed. */
  3: optional binary value
  /** FNV-1a with a final mix, 64 bits, of a value that is not sent along; repair has it, as two nodes
      may have given the same version. */
  4: optional i64 digest
}

struct Hello {
  /** The answerer. */
  1: Member me
  /** Hash of the answerer's list of members; equal lists have equal digests. */
  2: i64 digest
  /** What the caller is to the answerer: 0 unknown, 1 lost without a goodbye, 2 a member. */
  3: i8 known
  /** The answerer's members, only when the digests differ. */
  4: optional list<Member> members
}

struct Page {
  /** The answerer. */
  1: Member me
  /** The answerer's members, the caller among them; none if the caller's list is the same. */
  2: list<Member> members
  /** Some of the items that the caller should hold. */
  3: list<Item> items
  /** What to ask with for the pages behind this one, which can be asked for side by side; none: this was all. */
  4: list<binary> cursors
  /** False while the answerer has just started and doesn't know its network yet: it has taken the caller in,
   *  but its list says nothing. */
  5: bool joined
}

/** A node's answer to: is every key safe now? */
struct Status {
  /** The answerer. */
  1: Member me
  /** How many copies of a key the answerer keeps up, its own included. */
  2: i32 replicas
  /** How many nodes are in the answerer's ring, itself included. */
  3: i32 members
  /** Hash of the answerer's list of members. */
  4: i64 digest
  /** How many keys the answerer holds. */
  5: i64 items
  /** How many copies of these keys are known to be missing, or not yet checked. */
  6: i64 unsafe
  /** True while the answerer moves keys. */
  7: bool moving
  /** True when the members that the answerer asked last had the same list. */
  8: bool agreed
  /** False while the answerer has just started and doesn't know its network yet. */
  9: bool joined
  /** True while it looks for a network by itself: it will start one if there is none. */
  10: bool looking
}

/** What each of our nodes answers, whatever its service. */
service Peer {
  /** A sign of life and a comparison of the two lists of members, in one small message. `digest` is that of the
   *  caller's list; `counted` is true when the caller has the callee in its ring. */
  Hello hello(1: Member me, 2: i64 digest, 3: bool counted)

  /** Admits the caller to the ring, then hands out the items that it should hold, page by page; an empty `cursor`
   *  asks for the first page, and each page says how to ask for those behind it. `replicas` and `service_type` are the
   *  caller's: a ring has one of each, so a caller with others is refused with an exception. `digest` is that of the
   *  caller's list: an equal one is not sent back. `looking` is true while the caller looks for a network and would
   *  start one. */
  Page pull(1: Member me, 2: i32 replicas, 3: string service_type, 4: binary cursor, 5: i64 digest, 6: bool looking)

  /** The caller got no answer from the nodes at `locations`: the callee asks them once itself, and drops those from
   *  which it gets none either. */
  void suspect(1: list<locator.Location> locations)

  /** For people and scripts. */
  Status status()
}

/** What the answerer of `store` now has. */
struct Stored {
  /** The version of the item, which is held now, or a greater one: what the item has to be above. */
  1: i64 version
  /** The nodes that should hold the key, as the answerer's ring has them. */
  2: list<locator.Location> holders
}

struct Found {
  /** The version held; 0: none. */
  1: i64 version
  /** Empty for a key that was removed, and where there is none. */
  2: binary value
  /** True when the answerer is the key's primary and has all that it should hold. */
  3: bool primary
  /** The nodes that should hold the key, but for originals, as the answerer's ring has them. */
  4: list<locator.Location> holders
}

/** What the answerer of `forward` would have told a client. */
struct Answer {
  /** The value that was read; absent after a put. */
  1: optional binary value
}

/** What our store nodes answer besides. None of these calls goes on to a third node, but for `forward`, whose
 *  receiver asks other holders with `store` and `fetch`. */
service Holder extends Peer {
  /** Holds `item` unless something newer is held. */
  Stored store(1: Item item)

  /** `store` for many, one answer an item, in their order: 0 held in this version or a newer one, 1 not mine (the
   *  answerer is no holder, or is leaving), 2 wanted (the item came without its value, which the answerer lacks),
   *  3 held, but the answerer's list doesn't name the same nodes as the caller's. `names` is a hash of the names of all
   *  nodes of ours in the caller's list that are filling or full. */
  list<i8> offer(1: list<Item> items, 2: i64 names)

  /** What the answerer itself has of `key`. */
  Found fetch(1: binary key)

  /** A client's request, to be carried out by the answerer: a put where `value` is there, a get where it is
   *  absent. */
  Answer forward(1: binary key, 2: binary value)

  /** Digests of the items that both the caller, who is at `location`, and the answerer should hold, one for each range
   *  of keys; equal digests, equal items. */
  list<i64> digests(1: locator.Location location)
}
