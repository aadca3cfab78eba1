// Runs the filter's module in Node's V8, for its own cost: a stand-in for Envoy that answers host calls
// with what is at hand. It shows nothing of what Envoy does, and serves to profile alone.
//
//   node host.mjs MODULE KIND    KIND: by-digest, by-tag or 304-by-digest
//
// Prints JSON: how long loading takes, in milliseconds, how long a request takes, in microseconds, the
// host calls of one, and the functions that most of the time is spent in.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Session } from "node:inspector";
import { promisify } from "node:util";

const ROUNDS = 7;
const REQUESTS = 60_000;
const PROFILED_REQUESTS = 400_000;
const SAMPLE_EVERY_US = 100;
const OK = 0;
const NOT_FOUND = 1;
const ROOT_CONTEXT = 1;
// Of the ABI: https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1
const BUFFER = { callBody: 4, configuration: 7 };
const CALL_HEADERS = 6;

const NAME = "library/profile";
const MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CONFIG = Buffer.from(
  JSON.stringify({
    store: { cluster: "blob_store", authority: "s3", bucket: "registry" },
    cache: { tag_ttl: "5s" },
  }),
);

const digestOf = (content) => `sha256:${createHash("sha256").update(content).digest("hex")}`;

function manifest() {
  const descriptor = (mediaType, text) => ({ mediaType, digest: digestOf(text), size: text.length });
  const layer = (number) =>
    descriptor("application/vnd.oci.image.layer.v1.tar+gzip", `layer ${number}`);
  const config = descriptor("application/vnd.oci.image.config.v1+json", "config");
  const layers = [1, 2, 3, 4, 5].map(layer);
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE, config, layers }));
}

function requestHeaders(kind, digest) {
  const reference = kind === "by-tag" ? "latest" : digest;
  const headers = [
    [":authority", "127.0.0.1:5000"],
    [":path", `/v2/${NAME}/manifests/${reference}`],
    [":method", "GET"],
    [":scheme", "http"],
    ["accept", MEDIA_TYPE],
    ["x-forwarded-proto", "http"],
    ["x-request-id", "00000000-0000-4000-8000-000000000000"],
  ];
  return kind === "304-by-digest" ? [...headers, ["if-none-match", `"${digest}"`]] : headers;
}

// A header map as it crosses: the number of pairs, the lengths of all, then all with a NUL after each.
function serialize(pairs) {
  const texts = pairs.flat().map((text) => Buffer.from(text));
  const lengths = Buffer.alloc(4 + texts.length * 4);
  [pairs.length, ...texts.map((text) => text.length)].forEach((length, index) =>
    lengths.writeUInt32LE(length, index * 4),
  );
  return Buffer.concat([lengths, ...texts.flatMap((text) => [text, Buffer.alloc(1)])]);
}

class Host {
  constructor(kind) {
    this.content = manifest();
    this.digest = digestOf(this.content);
    this.request = serialize(requestHeaders(kind, this.digest));
    this.expected = kind === "304-by-digest" ? 304 : 200;
    this.pending = [];
    this.tokens = 0;
    this.contexts = ROOT_CONTEXT;
    this.calls = {};
  }

  async load(path) {
    const code = readFileSync(path);
    const before = performance.now();
    const module = new WebAssembly.Module(code);
    const compiled = performance.now();
    const env = {};
    for (const { name } of WebAssembly.Module.imports(module)) {
      const call = this[name]?.bind(this);
      env[name] = (...values) => {
        this.calls[name] = (this.calls[name] ?? 0) + 1;
        if (!call) throw new Error(`the stand-in does not know the host call ${name}`);
        return call(...values);
      };
    }
    this.exports = new WebAssembly.Instance(module, { env }).exports;
    this.exports._initialize?.();
    this.exports.proxy_on_context_create(ROOT_CONTEXT, 0);
    if (!this.exports.proxy_on_configure(ROOT_CONTEXT, CONFIG.length)) {
      throw new Error("the module refuses its configuration");
    }
    return { compile_ms: compiled - before, instantiate_ms: performance.now() - compiled };
  }

  // One request from its first callback to its last, as Envoy makes them.
  serve() {
    const { exports } = this;
    const context = ++this.contexts;
    this.status = undefined;
    exports.proxy_on_context_create(context, ROOT_CONTEXT);
    exports.proxy_on_request_headers(context, 7, 1);
    while (this.pending.length > 0) this.answer(context, this.pending.shift());
    if (this.status !== this.expected) throw new Error(`the reply has status ${this.status}`);
    exports.proxy_on_response_headers(context, 5, 0);
    exports.proxy_on_response_body(context, this.content.length, 1);
    exports.proxy_on_done(context);
    exports.proxy_on_log(context);
    exports.proxy_on_delete(context);
  }

  answer(context, { token, path }) {
    this.body = path.endsWith("/data") ? this.content : Buffer.from(this.digest);
    this.answerHeaders = { ":status": "200", "content-length": String(this.body.length) };
    this.exports.proxy_on_http_call_response(context, token, 2, this.body.length, 0);
  }

  get memory() {
    // The buffer is another one after the memory has grown.
    if (this.bytes?.buffer !== this.exports.memory.buffer) {
      this.bytes = new Uint8Array(this.exports.memory.buffer);
      this.words = new DataView(this.exports.memory.buffer);
    }
    return this.bytes;
  }

  text(start, length) {
    return Buffer.from(this.memory.buffer, start, length).toString("latin1");
  }

  setWord(address, word) {
    this.memory;
    this.words.setUint32(address, word, true);
    return OK;
  }

  give(bytes, addressOfStart, addressOfLength) {
    const start = bytes.length === 0 ? 0 : this.exports.malloc(bytes.length);
    this.memory.set(bytes, start);
    this.setWord(addressOfStart, start);
    return this.setWord(addressOfLength, bytes.length);
  }

  proxy_log(_level, start, length) {
    process.stderr.write(`${this.text(start, length)}\n`);
    return OK;
  }

  proxy_get_current_time_nanoseconds(address) {
    this.memory;
    this.words.setBigUint64(address, BigInt(Date.now()) * 1_000_000n, true);
    return OK;
  }

  proxy_set_tick_period_milliseconds() {
    return OK;
  }

  proxy_set_effective_context() {
    return OK;
  }

  proxy_register_shared_queue(_start, _length, address) {
    return this.setWord(address, 1);
  }

  proxy_set_shared_data() {
    return OK;
  }

  proxy_get_shared_data() {
    return NOT_FOUND;
  }

  proxy_get_buffer_bytes(buffer, start, limit, addressOfStart, addressOfLength) {
    const bytes = buffer === BUFFER.configuration ? CONFIG : this.body;
    if (![BUFFER.configuration, BUFFER.callBody].includes(buffer)) return NOT_FOUND;
    return this.give(bytes.subarray(start, start + (limit >>> 0)), addressOfStart, addressOfLength);
  }

  proxy_get_header_map_pairs(map, addressOfStart, addressOfLength) {
    const pairs =
      map === CALL_HEADERS ? serialize(Object.entries(this.answerHeaders)) : this.request;
    return this.give(pairs, addressOfStart, addressOfLength);
  }

  proxy_get_header_map_value(_map, start, length, addressOfStart, addressOfLength) {
    const value = this.answerHeaders[this.text(start, length)];
    if (value === undefined) return NOT_FOUND;
    return this.give(Buffer.from(value), addressOfStart, addressOfLength);
  }

  proxy_http_call(_cluster, _length, headers, headersLength, ...rest) {
    const [path] = /\/registry\/[^\0]*/.exec(this.text(headers, headersLength));
    this.pending.push({ token: ++this.tokens, path });
    return this.setWord(rest.at(-1), this.tokens);
  }

  proxy_send_local_response(status) {
    this.status = status;
    return OK;
  }
}

function microseconds(host) {
  const start = performance.now();
  for (let served = 0; served < REQUESTS; served++) host.serve();
  return ((performance.now() - start) * 1000) / REQUESTS;
}

async function hottest(host) {
  const session = new Session();
  session.connect();
  const post = promisify(session.post.bind(session));
  await post("Profiler.enable");
  await post("Profiler.setSamplingInterval", { interval: SAMPLE_EVERY_US });
  await post("Profiler.start");
  for (let served = 0; served < PROFILED_REQUESTS; served++) host.serve();
  const { profile } = await post("Profiler.stop");
  const hits = {};
  let samples = 0;
  for (const { callFrame, hitCount } of profile.nodes) {
    const isModule = callFrame.url.startsWith("wasm:");
    const name = isModule ? callFrame.functionName : "(the stand-in)";
    hits[name] = (hits[name] ?? 0) + hitCount;
    samples += hitCount;
  }
  const share = ([name, count]) => [name, count / samples];
  return Object.entries(hits).sort(([, a], [, b]) => b - a).map(share);
}

const [path, kind] = process.argv.slice(2);
const host = new Host(kind);
const loading = await host.load(path);
// Twice: what comes first reads from the store.
host.serve();
host.calls = {};
host.serve();
const calls = { ...host.calls };
const rounds = Array.from({ length: ROUNDS }, () => microseconds(host)).sort((a, b) => a - b);
const functions = await hottest(host);
const median = rounds[(ROUNDS - 1) / 2];
console.log(JSON.stringify({ ...loading, microseconds: median, calls, functions }));
