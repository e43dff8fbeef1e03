"""What scripts/abuse, scripts/fuzz.py and scripts/page share: three nodes on a loopback address of their own, clients,
and the load that these make."""
import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

CLIENTS, NODES = 8, 3
KEYS_EACH = 200
# Always as long, so that the fuzzer's inputs are.
ADDRESS = "127.77.%d.%d" % (100 + os.getpid() // 150 % 150, 100 + os.getpid() % 150)
BIN = os.environ.get("THRIFTY_BIN", "target/release")
# What may stay: what the allocator keeps of ended threads, pooled connections between the nodes.
MEMORY_MAX = 1.3
MEMORY_SPARE_KB = 8192
THREADS_SPARE = 16
CALM_SECONDS = 60
NUMBERS = {2: ">b", 3: ">b", 6: ">h", 8: ">i", 10: ">q"}

# Else nodes would join a network of the user's.
os.environ.pop("THRIFTY_PEERS", None)


def fail(cause):
    print("%s: %s" % (os.path.basename(sys.argv[0]), cause), file=sys.stderr)
    sys.exit(2)


def build():
    os.chdir(os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
    if "THRIFTY_BIN" not in os.environ:
        print("Building.", flush=True)
        if subprocess.run(["cargo", "build", "--release", "--quiet", "--bins"]).returncode:
            fail("it does not build")


# Thrift's binary protocol, as far as it is needed here.

def text(data):
    return struct.pack(">i", len(data)) + data


def call(method, fields, sequence):
    head = struct.pack(">I", 0x80010001) + text(method) + struct.pack(">i", sequence)
    return head + b"".join(struct.pack(">bh", 11, i) + text(f) for i, f in fields) + b"\0"


class Client:
    """One kept connection."""

    def __init__(self, port):
        self.socket = socket.create_connection((ADDRESS, port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.sequence = 0

    def call(self, method, *fields):
        """The result: bytes, a number, a list, or a struct as a dict by field number; None for void."""
        self.sequence += 1
        self.socket.sendall(call(method, enumerate(fields, 1), self.sequence))
        version, length = struct.unpack(">Ii", self.read(8))
        name, sequence = self.read(length), self.number(8)
        if (version, name, sequence) != (0x80010002, method, self.sequence):
            raise OSError("an exception, or an answer to something else")
        return self.value(12).get(0)

    def value(self, kind):
        if kind == 11:
            return self.read(self.number(8))
        if kind == 15:
            element, count = self.number(3), self.number(8)
            return [self.value(element) for _ in range(count)]
        if kind == 12:
            fields = {}
            while field := self.number(3):
                number = self.number(6)
                fields[number] = self.value(field)
            return fields
        if kind not in NUMBERS:
            raise OSError("a result of another type")
        return self.number(kind)

    def number(self, kind):
        return struct.unpack(NUMBERS[kind], self.read(struct.calcsize(NUMBERS[kind])))[0]

    def read(self, length):
        data = self.file.read(length)
        if len(data) < length:
            raise OSError("the connection ended")
        return data


class Node:
    def __init__(self, log):
        self.log = open(log, "w+")
        self.process = subprocess.Popen(
            [os.path.join(BIN, "storeserver"), "-a", ADDRESS], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.time() + 30
        self.port = None
        while not self.port:
            if time.time() > deadline or self.process.poll() is not None:
                fail("a node does not start: " + open(log).read())
            for line in open(log):
                if line.startswith("Starting the server at ") and line.endswith("...\n"):
                    self.port = int(line[:-4].rsplit(":", 1)[1])
            time.sleep(0.05)

    def measure(self, memory="VmRSS"):
        """Memory in KiB, resident unless told otherwise, and the number of threads."""
        if self.process.poll() is not None:
            fail("a node has ended: " + open(self.log.name).read())
        status = dict(line.split(":", 1) for line in open("/proc/%d/status" % self.process.pid))
        return int(status[memory].split()[0]), int(status["Threads"])


@contextlib.contextmanager
def running():
    """Nodes, until the end of the block."""
    nodes = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            for number in range(NODES):
                nodes.append(Node(os.path.join(directory, str(number))))
            yield nodes
        finally:
            for node in nodes:
                node.process.kill()
                node.process.wait()


class Load:
    """Clients that put and get, each at all nodes and on keys of its own."""

    def __init__(self, nodes):
        self.nodes, self.ending = nodes, False
        self.put, self.times, self.wrong = [{} for _ in range(CLIENTS)], [], []
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        chance, put, done = random.Random(number), self.put[number], 0
        try:
            clients = [Client(node.port) for node in self.nodes]
            while not self.ending:
                key = b"client %d key %d" % (number, chance.randrange(KEYS_EACH))
                client, began = chance.choice(clients), time.perf_counter()
                if chance.random() < 0.5:
                    value = b"%d " % done + b"x" * chance.randrange(2000)
                    client.call(b"put", key, value)
                    put[key] = value
                elif client.call(b"get", key) != put.get(key, b""):
                    self.wrong.append("%r is lost or old" % key)
                self.times.append(time.perf_counter() - began)
                done += 1
                time.sleep(0.002)
        except OSError as error:
            self.wrong.append("client %d: %s" % (number, error))

    def wait(self, seconds, what):
        """Goes on for a while, and says how it went."""
        self.times = []
        time.sleep(seconds)
        self.say(seconds, what)

    def say(self, seconds, what):
        times = sorted(self.times)
        if not times:
            fail("no call was answered in %d s" % seconds)
        at = lambda part: 1000 * times[min(int(part * len(times)), len(times) - 1)]
        print("  %s: %.0f calls a second; half within %.1f ms, 99%% within %.1f ms, all within "
              "%.0f ms" % (what, len(times) / seconds, at(.5), at(.99), at(1)))

    def end(self):
        self.ending = True
        for thread in self.threads:
            thread.join()

    def read_again(self):
        """Reads all keys once more, at the first node, and says what has been wrong so far: the exit code."""
        keys = 0
        try:
            reader = Client(self.nodes[0].port)
            for key, value in [item for put in self.put for item in put.items()]:
                keys += 1
                if reader.call(b"get", key) != value:
                    self.wrong.append("%r is lost or old at the end" % key)
        except OSError as error:
            self.wrong.append("the last reader: %s" % error)
        print("%d keys read again, %d calls failed or wrong." % (keys, len(self.wrong)))
        for line in self.wrong[:10]:
            print("abuse: " + line, file=sys.stderr)
        return 1 if self.wrong else 0


def measure(nodes, what, memory="VmRSS"):
    found = [node.measure(memory) for node in nodes]
    print("  %s: memory %s KiB, threads %s" % (
        what, " ".join(str(memory) for memory, _ in found),
        " ".join(str(threads) for _, threads in found)))
    return found


def calm(before, now):
    return all(memory <= was * MEMORY_MAX + MEMORY_SPARE_KB and threads <= were + THREADS_SPARE
               for (was, were), (memory, threads) in zip(before, now))


def await_calm(before, now):
    """The seconds until what `now` measures is calm, or until that has taken too long."""
    began = time.time()
    while not calm(before, now()) and time.time() - began < CALM_SECONDS:
        time.sleep(0.1)
    return time.time() - began
