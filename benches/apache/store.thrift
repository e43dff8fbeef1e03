// The two methods of the Store service that the load generator calls. `put` is two-way here: the generator waits for
// each answer, and a Thrift library gives none to a one-way method.
service Store {
  string get(1: string key)
  void put(1: string key, 2: string value)
}
