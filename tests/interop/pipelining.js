// Sends puts and gets of Node's Thrift library without waiting: up to OUTSTANDING on each connection, several to a key.
// Each get has to bring the last value that was put on its connection before it. Ends well on SIGUSR2.
// Run by scripts/interop-node: pipelining.js FOLDER PORT...

const path = require("path");
const thrift = require("thrift");
const [folder, ...ports] = process.argv.slice(2);
const Store = require(path.resolve(folder, "Store"));

const OUTSTANDING = 64;
const KEYS = 50;
let ending = false;
process.on("SIGUSR2", () => { ending = true; });

function drive(port, number) {
  const connection = thrift.createConnection("127.0.0.1", Number(port), {
    transport: thrift.TBufferedTransport, protocol: thrift.TBinaryProtocol });
  const client = thrift.createClient(Store, connection);
  const values = new Map();
  let sent = 0, answered = 0;
  return new Promise((resolve, reject) => {
    connection.on("error", reject);
    connection.on("close", () => reject(new Error("closed by the node")));
    const next = () => {
      while (!ending && sent - answered < OUTSTANDING) {
        const key = `${number} ${sent % KEYS}`;
        sent += 1;
        if (sent % 3) {
          const wanted = values.get(key) || "";
          client.get(key).then((value) => {
            if (String(value) !== wanted) reject(new Error(`${key} reads ${value}, not ${wanted}`));
            done();
          }, reject);
        } else {
          values.set(key, `value ${sent}`);
          client.put(key, `value ${sent}`).then(done, reject);
        }
      }
      if (ending && sent === answered) {
        connection.removeAllListeners("close");
        connection.end();
        resolve(answered);
      }
    };
    const done = () => { answered += 1; next(); };
    connection.on("connect", next);
  });
}

Promise.all(ports.map(drive)).then((counts) => {
  console.log(`pipelining: ${counts.join(" and ")} requests answered, all right`);
}, (error) => {
  console.error(`pipelining: ${error.message || error}`);
  process.exit(1);
});
