/*
 * The locator: a flat peer-to-peer network in which every node knows every other one, and a consistent-hash ring
 * tells which node a key belongs to.
 *
 * Binary protocol over TCP, unframed or framed, with the strict or the old message header.
 *
 * A key has at most 32 MiB, a message at most 68 MiB; see diststore.thrift.
 *
 * What is `oneway` here was so in the interface of 2009. A node looks at the message type alone: it answers every
 * CALL, whatever the method, and no ONEWAY. So a client whose code sends CALL for these methods (that of 2009 did)
 * may wait for the answer or close the connection at once.
 */
namespace * locator

/** Where a node listens. Its name in the ring is the text `address:port`; `localhost:9900` and `127.0.0.1:9900` are
 *  two names. */
struct Location {
  /** A host name or an IP address in text. */
  1: string address
  /** Ports above 32767 appear as negative numbers (two's complement): 40000 is -25536. Python's code for this file
   *  refuses to send them, so a ring with such clients keeps below. */
  2: i16 port
}

/** What every node answers, whatever its service. */
service Base {
  /** Answered as soon as the node serves. */
  void ping()

  /** The node's own service: `locator.Locator` or `diststore.Store`. */
  string service_type()

  /** All services the node has, the most general first. `thrifty.Peer` (peer.thrift) marks our own nodes. */
  list<string> service_types()

  /** Prints the node's state to its own log. */
  oneway void debug()

  /** Ends the node as Ctrl-C does: it leaves the ring and hands over what it holds. Obeyed from the node's own
   *  machine only, unless it was started to obey anybody. */
  oneway void die()
}

/** The ring: which nodes are in it, and which of them a key belongs to. */
service Locator extends Base {
  /** A newcomer's word to the one node it knows: "I am here, tell the others". An original newcomer does not
   *  listen yet when it says this. */
  oneway void join(1: Location location)

  /** `location` has left. `authorities` are the nodes that know already. */
  oneway void remove(1: Location location, 2: list<Location> authorities)

  /** `location` is new. `authorities` are the nodes that know already. */
  oneway void add(1: Location location, 2: list<Location> authorities)

  /** All nodes of the ring, the answering one included, in no particular order. */
  list<Location> get_all()

  /** The node that `key` belongs to; one of our nodes that is in no network names itself. A key is bytes; see
   *  diststore.thrift about text. A key of 32 hex digits counts as an md5 that is made already: its first eight digits
   *  are its place on the ring. */
  Location get_node(1: string key)
}
