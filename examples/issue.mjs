// Issue a token from Node: `node issue.mjs USER ACL TTL`. Prints the token and nothing else.
//
// REDIS_URL says where Redis is, and holds the password if there is one. With rediss:// for TLS, a
// CA of your own is named by NODE_EXTRA_CA_CERTS, a PEM file. No packages are needed; with a Redis
// client of your own only `say` and `parsePlace` change: switch off its retries.

import { createHash, randomInt } from "node:crypto";
import net from "node:net";
import tls from "node:tls";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const TIMEOUT_MS = 5000;

function mint() {
  const body = "kat_" + Array.from({ length: 32 }, () => DIGITS[randomInt(62)]).join("");
  let crc = crc32(body);
  let check = "";
  for (let place = 0; place < 6; place++) {
    check = DIGITS[crc % 62] + check;
    crc = Math.floor(crc / 62);
  }
  return body + check;
}

// Node 20.15 and 22.2 have this as zlib.crc32.
function crc32(text) {
  let crc = ~0;
  for (const byte of Buffer.from(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

// The errors of Redis and of the way there, for people. Redis's own words may quote a command.
const MEANINGS = {
  WRONGPASS: "it refuses the user or the password: see REDIS_URL",
  NOAUTH: "it asks for a password: put it into REDIS_URL",
  NOPERM: "it does not permit this user that: see Least privilege in docs/redis-contract.md",
  MOVED: "it is one of a cluster, which is not supported here",
  READONLY: "it is a replica: name the primary in REDIS_URL",
  $: "the key was taken",
  ECONNREFUSED: "nothing listens there: is it running, and is REDIS_URL right?",
  ENOTFOUND: "no such host: is REDIS_URL right?",
};

// Say commands whose answers are one line each, each when the one before was answered with OK.
function say(place, commands) {
  return new Promise((resolve, reject) => {
    const { host, port } = place;
    const socket = place.isTls
      ? tls.connect({ host, port, servername: net.isIP(host) ? "" : host })
      : net.connect({ host, port });
    let said = "";
    let next = 0;
    const spelt = (word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
    const sayNext = () => {
      const words = commands[next++];
      socket.write(`*${words.length}\r\n${words.map(spelt).join("")}`);
    };
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error("it does not answer in time")));
    // Of several addresses that all fail Node says nothing but the code.
    const told = ({ code, message }) => new Error(MEANINGS[code] ?? (message || code));
    socket.on("error", (error) => reject(told(error)));
    socket.on("close", () => reject(new Error("it closed the connection")));
    socket.on("data", (data) => {
      said += data;
      if (!said.endsWith("\r\n")) return;
      if (said === "+OK\r\n" && next < commands.length) {
        said = "";
        sayNext();
        return;
      }
      if (said === "+OK\r\n") resolve();
      const [, word] = /^-([A-Z]+)/.exec(said) ?? [said, said[0]];
      const name = commands[next - 1][0];
      const hint = name === "SELECT" ? ": does it have the database of REDIS_URL?" : "";
      reject(new Error(MEANINGS[word] ?? `it answers ${name} with ${word}${hint}`));
      socket.destroy();
    });
    sayNext();
  });
}

async function issue(place, user, acl, ttl) {
  const record = JSON.stringify({ v: 1, sub: user, acl: [acl], ttl });
  let trouble = null;
  // A null, an error or no reply: nobody knows if the token stands. So never the same one again.
  for (let attempt = 0; attempt < 3; attempt++) {
    const token = mint();
    const h = createHash("sha256").update(token).digest("hex");
    const set = ["SET", `kat:t:${h}`, record, "EX", String(ttl), "NX"];
    trouble = await say(place, [...place.greeting, set]).then(() => null, (error) => error);
    if (trouble === null) return token;
  }
  throw new Error(`Redis at ${place.name} did not confirm a token: ${trouble.message}`);
}

// Read where Redis is. What is said of a URL that cannot be read quotes none of it: it may hold a
// password.
function parsePlace(text) {
  const [, other] = /^(unix|rediss?\+[a-z]+):/i.exec(text) ?? [];
  if (other) fail(2, `REDIS_URL: ${other}:// is not supported here, redis:// and rediss:// are`);
  try {
    const url = new URL(text);
    const [, isTls, db] = /^redis(s?):\/\/[^/?#]+(?:\/(\d{0,5}))?$/i.exec(text);
    const [user, password] = [url.username, url.password].map(decodeURIComponent);
    if (user && !password) throw new Error("a user without a password");
    const greeting = password ? [["AUTH", user || "default", password]] : [];
    if (Number(db)) greeting.push(["SELECT", db]);
    const port = Number(url.port || 6379);
    const host = url.hostname.replace(/^\[|\]$/g, "");
    return { host, port, isTls: isTls !== "", greeting, name: `${url.hostname}:${port}` };
  } catch {
    return fail(2, "REDIS_URL must be redis://[user:password@]host[:port][/db]; rediss for TLS");
  }
}

function fail(code, sentence) {
  console.error(`issue.mjs: ${sentence}`);
  process.exit(code);
}

const [user = "", acl = "", ttl = "", ...more] = process.argv.slice(2);
const isName = user !== "" && user === user.trim() && Buffer.byteLength(user) <= 128;
if (more.length) fail(2, "give it a user, an ACL and the seconds that the token lives");
// A blank at its end would be trimmed by HTTP: "admin " would reach the application as "admin".
if (!isName || /[\0-\x1f\x7f-\x9f]/.test(user)) {
  fail(2, "the user must be 1 to 128 bytes, without control characters or blanks at its ends");
}
if (!/^[\w.-]{1,64}$/.test(acl)) fail(2, "the ACL must be 1 to 64 of A-Z a-z 0-9 _ . -");
if (!/^[1-9]\d{0,4}$/.test(ttl) || ttl > 86400) fail(2, "the seconds must be 1 to 86400");

const place = parsePlace(process.env.REDIS_URL ?? "redis://127.0.0.1");
issue(place, user, acl, Number(ttl)).then(console.log, (error) => fail(1, error.message));
