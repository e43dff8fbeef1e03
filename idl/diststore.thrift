/*
 * The store: a key-value store spread over the nodes of a locator ring. Any node answers for any key.
 *
 * A key has at most 32 MiB, and so has a value; a message, with all that is around them, at most 68 MiB. What is
 * larger is answered with an exception that names the limit and the size; above the limit of messages the
 * connection ends with it.
 *
 * Keys and values are bytes, and `string` and `binary` are the same on the wire. The fields say `string`, as in 2009,
 * because Python's users type text: `put('a', 'apple')`, and `get('a')` returns 'apple'. For bytes that are no UTF-8
 * thriftpy2 takes and returns `bytes`; Apache Thrift's Python code raises UnicodeDecodeError. To store such
 * bytes with it, write `binary` for `string` in a copy of this file, and change nothing else.
 */
include "locator.thrift"

namespace * diststore

/** A locator node that also holds values. */
service Store extends locator.Locator {
  /** The value of `key`, "" where there is none. */
  string get(1: string key)

  /** Sets the value of `key`; "" removes it. An answer says that every node that has to hold the value holds it. After
   *  an exception it may take effect or not; type 100 says that a node has no room for it. In the interface of 2009 this
   *  was `oneway`. Such calls are still served, but nothing tells when, or whether, they were carried out. */
  void put(1: string key, 2: string value)
}
