// Issue a token from Node: `node issue.mjs USER ACL TTL`. Prints the token and nothing else.
//
// REDIS_URL says where Redis is (rediss: for TLS), and holds the password if there is one. No
// packages are needed; with a Redis client of your own only `ask` changes: switch off its retries.

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

// Send commands whose answers are one line each, in one write; return the lines.
function ask(url, commands) {
  return new Promise((resolve, reject) => {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const port = Number(url.port || 6379);
    const socket = url.protocol === "rediss:"
      ? tls.connect({ host, port, servername: net.isIP(host) ? "" : host })
      : net.connect({ host, port });
    let said = "";
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error("no answer in time")));
    socket.on("error", reject).on("close", () => reject(new Error("the connection was closed")));
    socket.on("data", (data) => {
      said += data;
      const lines = said.split("\r\n").slice(0, -1);
      if (lines.length < commands.length) return;
      resolve(lines);
      socket.destroy();
    });
    const spelt = (word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
    const command = (words) => `*${words.length}\r\n${words.map(spelt).join("")}`;
    socket.write(commands.map(command).join(""));
  });
}

async function issue(url, user, acl, ttl) {
  const secret = decodeURIComponent(url.password);
  const login = secret ? [["AUTH", decodeURIComponent(url.username) || "default", secret]] : [];
  const record = JSON.stringify({ v: 1, sub: user, acl: [acl], ttl });
  let answer;
  // A null, an error or no reply: nobody knows if the token stands. So never the same one again.
  for (let attempt = 0; attempt < 3; attempt++) {
    const token = mint();
    const h = createHash("sha256").update(token).digest("hex");
    const set = ["SET", `kat:t:${h}`, record, "EX", String(ttl), "NX"];
    answer = await ask(url, [...login, set]).then((lines) => lines.at(-1), (error) => error.message);
    if (answer === "+OK") return token;
  }
  throw new Error(`Redis did not confirm a token: ${answer.split(" ", 1)[0]}`);
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

const url = new URL(process.env.REDIS_URL ?? "redis://127.0.0.1");
issue(url, user, acl, Number(ttl)).then(console.log, (error) => fail(1, error.message));
