/*
 * What our own nodes say to each other, beyond the interface of 2009. A node that has these calls lists
 * `thrifty.Peer` in its `service_types`; nodes of the original know none of them.
 *
 * Fields may be added: unknown ones are skipped.
 */
include "locator.thrift"

namespace * thrifty

/** The version of this interface. A node of another version is refused, with a line on both sides. */
const i32 VERSION = 4

/** How far a node is in one of its lives. Within a life, states follow each other in this order. */
enum State {
  /** In no view: it looks for a network, or asks one to let it in. */
  OUTSIDE = 1
  /** A member that has never been full. */
  JOINING = 2
  /** A member that was full in an earlier life, and brings what it has. */
  RETURNING = 3
  /** Had all that it should hold when it became full. */
  FULL = 4
  /** Hands over what it has. */
  LEAVING = 5
  /** Has said goodbye: in no view. */
  LEFT = 6
  /** A node of the original: it speaks the interface of 2009 only, and has no states. */
  ORIGINAL = 7
}

/** A node, how far it is, and in which of its lives. */
struct Member {
  1: locator.Location location
  2: State state
  /** The number of the life, drawn at random whenever the node asks a network to let it in; 0 for originals. A life
   *  that was lost never comes back. */
  3: i64 incarnation
}

/** The node that calls, as it says. */
struct Caller {
  1: Member me
  /** The token that the callee gave that node in its last `ask`, at that node's own name; 0: none. Without it the call
   *  may be anybody's: it is a reason to ask the node, and nothing more. */
  2: i64 token
}

/** What a node is to another one. Absent: unknown. `state` LEFT: it was lost, in that incarnation. */
struct Standing {
  1: State state
  2: i64 incarnation
}

/** What decides which side of a cut comes back to the other. */
struct Side {
  /** Members, full or leaving, that answered of late and have the node as a member; itself included. */
  1: i32 confirmed
  /** The least name in the view. */
  2: locator.Location first
  /** It stood still of late: the others may have gone on without it. */
  3: bool slept
  /** It has stopped waiting for the other node, which can come back to it with nothing only. */
  4: bool expired
}

/** A range of keys for which a lease is granted. */
struct Range {
  /** The hash with which it begins. */
  1: i64 start
  /** Digest of its list, to which the granter is added if R is 1. */
  2: i64 list_digest
}

struct Reply {
  /** The answerer. */
  1: Member me
  /** What the caller is to it. */
  2: optional Standing you
  /** The ranges for which a lease is granted: those of which the caller is the primary and the answerer the granter, by
   *  the answerer's view. */
  3: list<Range> granted
  /** Of the answerer's view; equal views have equal digests. */
  4: i64 digest
  5: optional Side side
  /** The answerer's members, only when they were wanted and the digests differ. */
  6: optional list<Member> members
  /** Lives that were lost together: keys may be missing. Until one of them returns with what it had, or the loss is
   *  accepted, each member that hears of them says so too. The state is LEFT; or JOINING, if a life without items has
   *  begun in its place: what returns there is not what is missing. */
  7: optional list<Member> missing
  /** Puts get versions above this, at all members: each takes over the greatest. At most 2^61. */
  8: i64 floor
  /** All members of the answerer's view are full, it has what it should have and nothing else, and it waits for no node
   *  that was lost. If all say so under one view, tombstones may be forgotten. */
  9: bool clean
}

/** The answer to a candidate. */
struct Entry {
  /** 1 it is a member, 2 ask the one in `locations`, 3 ask again in a tick, 4 this life is over, 5 the answerer is
   *  outside, too, and asks those in `locations`, 6 it is not let in, 7 it was waited for and is no more: it may come
   *  with nothing. */
  1: i32 kind
  /** 1: the view, the candidate included. */
  2: list<Member> members
  /** 1: the lives that were lost. */
  3: list<Member> lost
  4: list<locator.Location> locations
  /** 3 and 6: why. */
  5: string reason
  /** 1: lives that were lost together, as in `Reply`. */
  6: list<Member> missing
  /** 1: lives that were lost and that the network has stopped waiting for. A node that was with one of them drops what it
   *  has. */
  7: list<Member> expired
  /** 1: as in `Reply`. */
  8: i64 floor
}

/** Whether a candidate was found at its name. */
struct Reached {
  1: bool reached
  /** Why not; empty if it may be found in a moment. */
  2: string reason
}

/** The other side of `compare`. */
struct Compared {
  1: Member me
  /** The answerer's members, if the two views differ. */
  2: optional list<Member> members
  /** Absent if the two don't have the same lists. */
  3: optional list<i64> digests
  /** The last ones that left in good order. */
  4: list<Member> left
}

/** A node's answer to: is every key safe now? */
struct Status {
  /** The answerer. */
  1: Member me
  /** How many copies of a key the answerer keeps up, its own included. */
  2: i32 replicas
  /** How many nodes are in the answerer's view, itself included. */
  3: i32 members
  /** Of the answerer's view. */
  4: i64 digest
  /** How many keys the answerer holds, deleted ones included. */
  5: i64 items
  /** How many of them should lie elsewhere. */
  6: i64 elsewhere
  /** Every other replica has what the answerer should have, by answers of late. */
  7: bool settled
  /** How many members are full. */
  8: i32 full
  /** Members that were lost together: keys may be missing. */
  9: list<locator.Location> missing
  /** How many bytes the answerer's items take. */
  10: i64 taken
  /** How many they may take. */
  11: i64 memory
  /** How many more were wanted when something was refused last; 0: there is room for them now. */
  12: i64 lacking
  /** How many of the keys were deleted. This and the fields below are absent in answers of earlier versions. */
  13: optional i64 deleted
  /** How many connections the answerer serves. */
  14: optional i64 connections
  /** Requests a second, over some seconds up to now, those of other nodes included. */
  15: optional i64 rate
  /** Of the program. */
  16: optional string version
  /** When the answerer was started: microseconds since 1970, by its own clock. */
  17: optional i64 since
}

/** What each of our nodes answers, whatever its service. */
service Peer {
  /** The one question that nodes put to each other: a sign of life, news of states, the comparison of views, the
   *  lease, and the meeting of two that had lost each other. `wants_lease`: a lease is asked for; `digest` is
   *  that of the caller's view; `wants_members`: the answerer's members, if its view differs; `lost`: members that the
   *  caller has just lost, a reason to ask them; `token`: what the callee is to bring back when it calls the caller, a
   *  number that is another one for each callee; `floor`: as in `Reply`. */
  Reply ask(1: Caller caller, 2: Standing you, 3: bool wants_lease, 4: i64 digest, 5: Side side, 6: bool wants_members,
            7: list<locator.Location> lost, 8: i64 token, 9: i64 floor)

  /** A candidate asks to be let in. A network has one service, one number of copies and one tick. */
  Entry enter(1: Member me, 2: string service_type, 3: i32 replicas, 4: i64 tick_millis, 5: i32 version)

  /** The callee asks the candidate at its name. */
  Reached reach(1: Member candidate)

  /** Digests of what both should hold, as the caller has it, for each shard; `shared` is a digest of the
   *  ranges of the ring that both share, and of their lists. `exchanged`: what differed has been exchanged. `view`: digest
   *  of the caller's view. */
  Compared compare(1: Caller caller, 2: i64 shared, 3: list<i64> digests, 4: bool exchanged, 5: i64 view)

  /** For people and scripts. */
  Status status()

  /** What was lost together is given up: `status` says no more of it. */
  void accept_loss()
}

/** A key as nodes hand it on. */
struct Item {
  1: binary key
  /** Microseconds since 1970, or one more than the version before; the greater wins. At most 2^62. */
  2: i64 version
  /** Absent where only the version is spoken of; empty for a key that was removed. */
  3: optional binary value
  /** Of a value that is not sent along; see src/digest.rs. */
  4: optional i64 digest
  /** Of the list of the key's replicas, as the sender has it. */
  5: i64 replicas
}

struct Stored {
  /** For each item, in their order: 0 the lists differ, -1 wanted (it came without its value, which the answerer
   *  lacks), -2 no room, else the version held now, or what a put has to be above. */
  1: list<i64> taken
  /** The answerer's members, if a list differs. */
  2: optional list<Member> members
  /** What the answerer says of it, if there was no room for an item. */
  3: optional string full
}

struct Found {
  /** The version held; 0: none. */
  1: i64 version
  /** Empty for a key that was removed, and where there is none. */
  2: binary value
  /** The answerer's members, if the lists differ; then nothing is said of the key. */
  3: optional list<Member> members
}

struct Exchanged {
  /** What the answerer has later, or the caller has not; by their keys. */
  1: list<Item> items
  /** The places among the caller's items of those that the answerer lacks; ascending, each once. */
  2: list<i32> wanted
  /** The part was looked through up to this key, which is not below the last of the items; absent: all of it. */
  3: optional binary reached
  /** The answerer's members, if the lists differ. */
  4: optional list<Member> members
}

struct Forwarded {
  /** Done; the value of a get, or one byte if a value was deleted. */
  1: optional binary value
  /** The answerer isn't the key's primary; the greatest version in which a put has been tried. */
  2: optional i64 tried
}

struct Listed {
  1: binary key
  /** Of two nodes that list a key, the one with the greater version is right. */
  2: i64 version
  /** Of the value; 0: the key has been deleted. */
  3: i64 bytes
}

struct Listing {
  /** In the order of the keys. */
  1: list<Listed> keys
  /** There may be more behind this key; absent: there are not, or none was asked for. */
  2: optional binary reached
  /** How many keys of the shard the answerer has forgotten since it runs, as all their replicas have them. */
  3: i64 removed
  /** Digest of the answerer's view, and how many members it has. */
  4: i64 view
  5: i32 members
}

/** What our store nodes answer besides. None of these calls goes on to a third node, but for `delete_key`, and
 *  for `forward`, whose receiver asks the other replicas with `store` and `fetch`. */
service Replica extends Peer {
  /** Stores each item if the two have the same list for its key. `put`: if something greater is held there, the put
   *  has to be tried again above that. */
  Stored store(1: Caller caller, 2: bool put, 3: list<Item> items)

  /** What the answerer itself has of `key`, if the two have the same list for it. */
  Found fetch(1: i64 replicas, 2: binary key)

  /** What the caller has of a part of a shard (`range`), without values: behind `after`, up to `upto`. */
  Exchanged exchange(1: Caller caller, 2: i64 shared, 3: i32 range, 4: binary after, 5: binary upto, 6: list<Item> items)

  /** A client's request, to be carried out by the answerer: a put where `value` is there, a get where it is
   *  absent. `above`: the greatest version in which this put has been tried, 0 if in none; then
   *  `caller` isn't needed. It need not be a member: it may have left since it tried. */
  Forwarded forward(1: binary key, 2: binary value, 3: i64 above, 4: Caller caller)

  /** A client's: puts the empty value, and says whether there was a value in its place. While nodes come and go, and
   *  after a put that failed, it may say that there was none though it has deleted one. An exception while a node of the
   *  original is a member. */
  bool delete_key(1: binary key)

  /** For clients: the keys of a shard (`range`, 0 to 1023) that lie at the answerer, copies and deleted ones too: behind
   *  `after`, those that begin with `prefix`, up to `most`. */
  Listing list_keys(1: i32 range, 2: binary after, 3: binary prefix, 4: i32 most)
}
