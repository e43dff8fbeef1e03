"""The fuzzer of `scripts/abuse fuzz`: calls of all methods of the IDL, right ones and wrong ones, to three nodes that
have to live and to serve others meanwhile.

Whatever it sends follows from the seed, but for what it learns of the nodes: their address, the numbers of their lives,
the digests of their views. An *input* is one message, right or wrong. Some forty are sent in one *burst*, on a
connection of their own; only the last one of a burst may break the connection. A right call carries a sequence number
that nothing else does, so its answer is found in what comes back.
"""
import collections
import glob
import os
import random
import re
import selectors
import socket
import struct
import subprocess
import threading
import time

from nodes import ADDRESS, BIN, Client, Load, await_calm, build, calm, measure, running, text

RIGHT_CALLS_MIN = 1000
BURST, BURSTS = 40, 24
# Bursts that name nodes which are silent or can't be found, and wait for that: short ones, on connections of their own.
SLOW_BURST, SLOW_BURSTS = 2, 16
ANSWER_SECONDS = 60  # The longest answer takes some seconds; a burst is answered before.
WHOLE_SECONDS = 60
MEMORY_MAX_KB, THREADS_MAX = 128 << 10, 300  # Of a node, at any time. Usual: 25 MiB, 60 threads.
LOOK_SECONDS = 0.1  # Between two looks at logs and processes.
REFRESH_BURSTS = 100  # So many bursts are taken from one stock of prebuilt inputs.
CALL, REPLY, EXCEPTION, ONEWAY = 1, 2, 3, 4
RIGHT = 0x00C0FFEE  # The sequence number of right calls.
ANSWER = re.compile(rb"\x80\x01\0([\2\3])\0\0\0[\1-\x40]([a-z_]+)" + struct.pack(">i", RIGHT))
PANIC = b"the service failed"  # What a node answers where it has panicked.

NUMBERS = {"bool": (2, 8, ">b"), "byte": (3, 8, ">b"), "i16": (6, 16, ">h"), "i32": (8, 32, ">i"),
           "i64": (10, 64, ">q")}
EXTREMES = [0, 1, 2, 3, 6, -1, -2, 255, 500] + [
    edge for bits in (7, 15, 31, 62, 63) for edge in (2**bits - 1, 2**bits, 2**bits + 1, -2**bits)]
# They are keys as well: these of the fuzzer are few, so that memory can be looked at.
STRINGS = [b"fuzz %d" % number for number in range(80)] + [
    b"", b"\0", b"\xff\xfe\x80", b"\x1b[2J\r\n", "\u202egnp".encode(), b"x" * 300, b"y" * 5000, b"z" * 70000]
# No look-up: these are refused before, or are addresses of the nodes.
NAMES = [ADDRESS.encode()] * 12 + [
    b"", b"::ffff:" + ADDRESS.encode(), b"\xff\xfe.invalid", b"a b.invalid", b"\x1b[2J.invalid",
    b"x" * 300 + b".invalid"]
NOWHERE = [b"nowhere.invalid", b"%d.invalid", "\u202egnp.invalid".encode(), b"[.invalid", b"-" * 70 + b".invalid"]
# A bit of these is not flipped, as the nodes would look elsewhere than on this machine.
NAMED = re.compile(b"|".join([re.escape(text(name)) for name in NAMES + NOWHERE if name] + [rb"\0\0\0.\d+\.invalid"]))


class Idl:
    """What idl/ says. A field is a number, whether it is optional, a type and a name."""

    def __init__(self):
        self.structs, self.enums, self.methods, self.constants = {}, set(), {}, {}
        for path in sorted(glob.glob("idl/*.thrift")):
            source = re.sub(r"/\*.*?\*/|//[^\n]*", "", open(path).read(), flags=re.S)
            self.constants.update(re.findall(r"const\s+\w+\s+(\w+)\s*=\s*(\d+)", source))
            for kind, name, body in re.findall(r"(struct|enum|service)\s+(\w+)[^{]*\{([^}]*)\}", source):
                if kind == "struct":
                    self.structs[name] = self.fields(body)
                elif kind == "enum":
                    self.enums.add(name)
                else:
                    methods = re.findall(r"(\w+)\s*\(([^)]*)\)", body)
                    assert len(methods) == body.count("("), "methods of another form: " + body
                    self.methods.update((method.encode(), self.fields(fields)) for method, fields in methods)

    def fields(self, body):
        fields = re.findall(r"(\d+):\s*(optional\s)?\s*([\w.<>]+)\s+(\w+)", body)
        assert len(fields) == body.count(":"), "fields of another form: " + body
        return [(int(number), bool(optional), re.sub(r"\w+\.", "", kind), name)
                for number, optional, kind, name in fields]


class Maker:
    """Makes inputs, from its own chances. `slow`: some name nodes that are silent, or can't be found."""

    def __init__(self, idl, chance, ports, silent, slow):
        self.idl, self.chance, self.slow, self.stock, self.left = idl, chance, slow, [], 0
        self.names = NAMES + NOWHERE * 3 if slow else NAMES
        # Of the nodes, where nobody listens, where somebody listens and says nothing.
        self.far = ports * 4 + [ports[-1] + 1, 0, 1, -1, 32767, -32768] + [silent] * (12 if slow else 0)

    def burst(self, learned):
        """Some inputs: each its bytes, its method, and what is wrong with it: `right`, `wrong` or `broken`."""
        if self.left == 0:
            self.learned, self.left = learned(), REFRESH_BURSTS
            self.stock = [self.input(method, what) for method in self.idl.methods
                          for what in ["right"] * 6 + ["wrong"] * 4]
        self.left -= 1
        inputs = self.chance.choices(self.stock, k=SLOW_BURST if self.slow else BURST)
        if self.chance.random() < 0.6:
            inputs.append(self.broken(*self.chance.choice(self.stock)))
        return inputs

    def input(self, method, what):
        wrong = what == "wrong"
        body = self.struct(method.decode(), self.idl.methods[method], wrong, method)
        kind, sequence = CALL, RIGHT
        if wrong:
            kind, sequence = self.chance.choice([CALL] * 5 + [ONEWAY, REPLY, EXCEPTION]), self.number("i32")
            if self.chance.random() < 0.05:
                method = self.chance.choice([b"", b"gett", b"Get", b"get\0", b"hello", b"x\xff\n\x1b", b"x" * 1000])
        # A node obeys `die` of its own machine, and takes no argument with it that could be wrong. So it comes as the
        # answer to a `die` that nobody has said, which no node obeys; the node says so in an exception.
        if method == b"die":
            kind = self.chance.choice([REPLY, EXCEPTION])
        return self.message(method, kind, sequence, body), method, what

    def message(self, method, kind, sequence, body):
        name, sequence = text(method), struct.pack(">i", sequence)
        old = self.chance.random() < 0.2
        head = name + bytes([kind]) + sequence if old else struct.pack(">I", 0x80010000 | kind) + name + sequence
        framed = self.chance.random() < 0.4
        return struct.pack(">i", len(head + body)) * framed + head + body

    def struct(self, struct_name, fields, wrong, method):
        """Its fields, optional ones or not. If it is to be wrong, mostly one thing is."""
        chance, written = self.chance, []
        for number, optional, kind, name in fields:
            if not optional or chance.random() < 0.5:
                written.append((number, *self.value(kind, struct_name + "." + name, wrong, method)))
        if wrong and chance.random() < 0.5:
            # In a node's name any string is one that is looked for on this machine only.
            string = "Location.address" if struct_name == "Location" else ""
            kinds = ["string", "double", "map", "set", "list<i64>", "list<string>", "struct"]
            kind = chance.choice([*NUMBERS, *kinds])
            other = self.value(kind, string, wrong, method)
            place = chance.randrange(len(written)) if written else 0
            how = chance.randrange(5) if written else 4
            number = self.number("i16")
            if how == 0:
                del written[place]
            elif how == 1:
                written[place] = written[place][:1] + other
            elif how == 2:
                written[place] = (number,) + written[place][1:]
            elif how == 3:
                written.insert(place, written[place][:1] + other)
            else:
                written.insert(place, (number,) + other)
        return b"".join(struct.pack(">bh", kind, number) + data for number, kind, data in written) + b"\0"

    def value(self, kind, path, wrong, method):
        """The type's number, and bytes."""
        if kind in self.idl.enums:
            kind = "i32"
        if kind in NUMBERS:
            number, _, form = NUMBERS[kind]
            return number, struct.pack(form, self.number(kind, path, method))
        if kind in self.idl.structs:
            return 12, self.struct(kind, self.idl.structs[kind], wrong, method)
        if kind.startswith("list<"):
            items = [self.value(kind[5:-1], path, wrong, method) for _ in range(self.chance.choice((1, 1, 2, 2, 2, 6)))]
            number, count = items[0][0], len(items) - (len(items) == 1 and self.chance.random() < 0.5)
            return 15, struct.pack(">bi", number, count) + b"".join(data for _, data in items[:count])
        if kind in ("string", "binary"):
            return 11, text(self.string(path))
        return {"double": (4, self.chance.randbytes(8)), "map": (13, b"\x08\x0a\0\0\0\1" + b"k" * 12),
                "set": (14, b"\x03\0\0\0\3abc"), "struct": (12, b"\x0c\0\1\0\x02\0\2\1\0")}[kind]

    def number(self, kind, path="", method=b""):
        """Mostly one that may be right, where there is such; else an extreme, or any."""
        _, bits, _ = NUMBERS[kind]
        right = self.likely(method).get(path)
        if right and self.chance.random() < 0.6:
            return self.chance.choice(right)
        if kind == "bool":
            return self.chance.choice((0, 1, 1, 2, -1))
        if self.chance.random() < 0.3:
            return self.chance.randrange(-2**(bits - 1), 2**(bits - 1))
        return self.chance.choice([number for number in EXTREMES if -2**(bits - 1) <= number < 2**(bits - 1)])

    def likely(self, method):
        lives, digests = self.learned
        likely = {"Location.port": self.far, "Member.incarnation": lives, "Standing.incarnation": lives,
                  "Member.state": range(8), "Standing.state": range(8), "ask.digest": digests, "compare.view": digests,
                  "enter.replicas": [2], "enter.tick_millis": [500], "exchange.range": range(1024),
                  "enter.version": [int(self.idl.constants["VERSION"])]}
        return likely

    def string(self, path):
        chance = self.chance
        if path == "Location.address":
            name = chance.choice(self.names)
            return name % chance.randrange(10**6) if b"%d" in name else name
        if path == "enter.service_type" and chance.random() < 0.6:
            return b"diststore.Store"
        return chance.choice(STRINGS)

    def broken(self, data, method, _):
        """What may end the connection, so it comes last."""
        chance = self.chance
        huge = struct.pack(">i", chance.choice((0x7FFFFFFF, 0x7FFFFFF0, 0x04400001, -1, -2**31)))
        names, start = NAMED.findall(data), struct.pack(">I", 0x80010001)
        begun = start + text(method) + bytes(4)
        while method != b"die":  # That is never turned into something that is obeyed.
            how = chance.randrange(7)
            if how == 0:
                broken = bytearray(data)
                for _ in range(chance.randrange(1, 4)):
                    broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            elif how == 1:
                broken = chance.randbytes(chance.randrange(1, 40)) + data
            elif how == 2:
                broken = data + chance.randbytes(chance.randrange(1, 400))
            elif how == 3:  # Huge claims: of a frame, of a name, of a string, of a list, of a map.
                broken = chance.choice([huge + data, start + huge + data, begun + b"\x0b\0\1" + huge + data,
                                        begun + b"\x0f\0\2\x0c" + huge, begun + b"\x0d\0\1\2\2" + huge + data])
            elif how == 4:  # Deep nesting, closed or not.
                depth = chance.choice((10, 60, 70, 1000, 20000))
                nest = chance.choice([b"\x0c\0\1", b"\x0f\0\1\x0c\0\0\0\1", b"\x0e\0\1\x0c\0\0\0\1"])
                broken = begun + nest * depth + b"\0" * chance.choice((0, depth + 1))
            elif how == 5:  # A type that there is not.
                broken = begun + bytes([chance.randrange(16, 256)]) + data
            else:
                break
            if how or NAMED.findall(bytes(broken)) == names:
                return bytes(broken), method, "broken"
        return data[:chance.randrange(1, len(data))], method, "broken"


class Burst:
    """Inputs on their way, and what came back."""

    def __init__(self, node, inputs, slow, leaves):
        self.node, self.inputs, self.slow, self.leaves = node, inputs, slow, leaves
        self.left, self.answers, self.began = memoryview(b"".join(data for data, _, _ in inputs)), [], time.time()
        self.socket = socket.create_connection((ADDRESS, node.port), 20)
        self.socket.setblocking(False)

    def go_on(self, events):
        """True: it has ended."""
        try:
            if events & selectors.EVENT_READ:
                self.answers.append(self.socket.recv(1 << 18))
                return not self.answers[-1]
            self.left = self.left[self.socket.send(self.left):]
            if not self.left:
                self.socket.shutdown(socket.SHUT_WR)
                return self.leaves
        except OSError:
            return True  # The node has closed it, on a message that is none.
        return False

    def answered(self):
        """The answers to right calls: of which kind, and to which method. How many right calls there were."""
        right = sum(what == "right" for _, _, what in self.inputs)
        # A broken one may still be taken for a right one; it is the last.
        return ANSWER.findall(b"".join(self.answers))[:right], right

    def describe(self):
        """What it sent, from the last right call on that was answered; the cause is mostly that, or the next one."""
        answered, last = len(self.answered()[0]), 0
        for place, (_, _, what) in enumerate(self.inputs):
            if what == "right" and answered:
                last, answered = place, answered - 1
        lines = ["%s %s, %d bytes: %s" % (what, method.decode("latin-1"), len(data), data[:200].hex())
                 for data, method, what in self.inputs[last:last + 6]]
        return "sent to port %d on one connection, from place %d of %d on:\n    %s" % (
            self.node.port, last + 1, len(self.inputs), "\n    ".join(lines))


class Fuzzer:
    def __init__(self, nodes, load, seed):
        self.nodes, self.load = nodes, load
        self.sent, self.results, self.exceptions = (collections.Counter() for _ in range(3))
        self.idl, self.selector, self.running = Idl(), selectors.DefaultSelector(), set()
        self.recent, self.wrong = collections.deque(maxlen=8), []
        self.logs = [open(node.log.name, errors="replace") for node in nodes]
        self.askers = [Client(node.port) for node in nodes]
        self.silent = socket.create_server((ADDRESS, 0), backlog=100)
        threading.Thread(target=self.say_nothing, daemon=True).start()
        silent = self.silent.getsockname()[1]
        places = [node.port for node in nodes], silent - 65536 * (silent > 32767)
        self.makers = [Maker(self.idl, random.Random("%d %s" % (seed, slow)), *places, slow) for slow in (False, True)]

    def say_nothing(self):
        """A listener that accepts, and never answers."""
        held = collections.deque(maxlen=300)
        while True:
            held.append(self.silent.accept())

    def learn(self):
        """The numbers of the nodes' lives, and the digests of their views."""
        statuses = [asker.call(b"status") for asker in self.askers]
        return [status[1][3] for status in statuses], [status[4] for status in statuses]

    def begin(self, slow):
        maker = self.makers[slow]
        inputs = maker.burst(self.learn)
        burst = Burst(maker.chance.choice(self.nodes), inputs, slow, maker.chance.random() < 0.05)
        self.running.add(burst)
        self.recent.append(burst)
        self.selector.register(burst.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, burst)

    def end(self, burst):
        self.selector.unregister(burst.socket)
        burst.socket.close()
        self.running.remove(burst)
        self.sent.update((method, what) for _, method, what in burst.inputs)
        found, right = burst.answered()
        self.results.update(method for kind, method in found if kind[0] == REPLY)
        self.exceptions.update(method for kind, method in found if kind[0] == EXCEPTION)
        if PANIC in b"".join(burst.answers):
            self.wrong.append("a node has panicked: " + burst.describe())
        elif len(found) < right and not burst.leaves:
            missing = "%d of %d right calls were not answered: " % (right - len(found), right)
            self.wrong.append(missing + burst.describe())

    def look(self):
        """Whether the nodes and their other clients are well."""
        found = ["a client was not served: " + line for line in self.load.wrong[:1]]
        for node, log in zip(self.nodes, self.logs):
            found += ["port %d: %s" % (node.port, line) for line in log if "panicked" in line or "BUG" in line]
            if node.process.poll() is not None:
                found.append("the node at port %d has ended" % node.port)
                continue
            try:
                memory, threads = node.measure("VmHWM")
            except KeyError:
                continue  # It is ending.
            if memory > MEMORY_MAX_KB or threads > THREADS_MAX:
                found.append("the node at port %d takes %d KiB, %d threads" % (node.port, memory, threads))
        if found:
            self.wrong.append("\n".join(found) + "\n" + "\n".join(burst.describe() for burst in self.recent))
        for burst in self.running:
            if time.time() - burst.began > ANSWER_SECONDS:
                self.wrong.append("no answer for %d s: %s" % (ANSWER_SECONDS, burst.describe()))

    def run(self, seconds):
        ends, looked = time.time() + seconds, 0
        while not self.wrong and (time.time() < ends or self.running):
            for slow, count in (False, BURSTS), (True, SLOW_BURSTS):
                running = sum(burst.slow == slow for burst in self.running)
                for _ in range(count - running if time.time() < ends else 0):
                    try:
                        self.begin(slow)
                    except OSError as error:
                        self.wrong.append("a node takes no connection, or doesn't say how it is: %s" % error)
                        break
            for key, events in self.selector.select(0.1):
                if key.data.go_on(events):
                    self.end(key.data)
                elif not key.data.left:
                    self.selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
            if time.time() - looked > LOOK_SECONDS:
                looked = time.time()
                self.look()
        self.look()

    def say(self, seconds):
        print("  %-14s %10s %11s %9s %9s" % ("method", "right calls", "exceptions", "wrong", "broken"))
        for method in self.idl.methods:
            right = self.results[method] + self.exceptions[method]
            print("  %-14s %11d %11d %9d %9d" % (method.decode(), right, self.exceptions[method],
                                                 self.sent[method, "wrong"], self.sent[method, "broken"]))
            if right < RIGHT_CALLS_MIN:
                self.wrong.append("only %d right calls of %s were answered" % (right, method.decode()))
        count = sum(self.sent.values())
        print("fuzz: %d inputs, %d a second." % (count, count / seconds), flush=True)

    def await_whole(self):
        """Until all nodes list the nodes and no others, and every key is safe."""
        began, names = time.time(), sorted((ADDRESS.encode(), node.port) for node in self.nodes)
        while time.time() - began < WHOLE_SECONDS:
            try:
                listed = [Client(node.port).call(b"get_all") for node in self.nodes]
                listed = [sorted((at[1], at[2] % 65536) for at in one) for one in listed]
            except OSError as error:
                listed = [error]
            said = [subprocess.run([os.path.join(BIN, "location"), "--status", "-h", "%s:%d" % (ADDRESS, node.port)],
                                   capture_output=True, text=True) for node in self.nodes]
            if all(one == names for one in listed) and all(one.returncode == 0 for one in said):
                print("fuzz: the ring is whole after %.1f s." % (time.time() - began))
                return
            time.sleep(0.2)
        self.wrong.append("the ring is not whole after %d s: %s\n%s" % (
            WHOLE_SECONDS, listed, "".join(one.stdout + one.stderr for one in said)))


def main(arguments):
    seconds = int(arguments[0]) if arguments else 25
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(10**9)
    build()
    print("Seed %d: `scripts/abuse fuzz %d %d` sends the same again." % (seed, seconds, seed), flush=True)
    with running() as nodes:
        load = Load(nodes)
        try:
            fuzzer = Fuzzer(nodes, load, seed)
            fuzzer.await_whole()
            load.wait(3, "at rest")
            rest = measure(nodes, "at rest")
            load.times, halves = [], []
            for half in "after half of it", "at the end":
                fuzzer.run(seconds / 2)
                if fuzzer.wrong:
                    break
                halves.append(measure(nodes, half + ", at most", "VmHWM"))
            else:
                load.say(seconds, "meanwhile")
                fuzzer.say(seconds)
                fuzzer.await_whole()
                # Memory has to stay from the first half on, and threads have to end, but those of connections that
                # the two other nodes keep: 16 each.
                before = [(memory, threads + 16) for (memory, _), (_, threads) in zip(halves[0], rest)]
                now = lambda: [(memory, node.measure()[1]) for (memory, _), node in zip(halves[1], nodes)]
                print("fuzz: few threads are left after %.1f s." % await_calm(before, now))
                measure(nodes, "afterwards")
                if not calm(before, now()):
                    fuzzer.wrong.append("memory has grown, or threads have not come back to where they were")
                fuzzer.look()
            load.end()
            load.wrong += fuzzer.wrong
            return load.read_again()
        finally:
            load.end()
