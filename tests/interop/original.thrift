/*
 * The interface of 2009, final version, for the test peer: everything that has no result is one-way. Keys and values
 * are `binary` because Python 2's strings were bytes.
 */
namespace py original

struct Location {
  1: string address
  2: i16 port
}

service Base {
  void ping()
  string service_type()
  list<string> service_types()
  oneway void debug()
  oneway void die()
}

service Locator extends Base {
  oneway void join(1: Location location)
  oneway void remove(1: Location location, 2: list<Location> authorities)
  oneway void add(1: Location location, 2: list<Location> authorities)
  list<Location> get_all()
  Location get_node(1: binary key)
}

service Store extends Locator {
  binary get(1: binary key)
  oneway void put(1: binary key, 2: binary value)
}
