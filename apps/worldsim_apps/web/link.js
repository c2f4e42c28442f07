// The connection to a world: what docs/protocol.md says, and taking it up again when it is lost.

const SUBPROTOCOL = "worldsim.v1";
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 5000;
const TICK_MS = 2000;
const SILENT_TICKS = 4, BEGINNING_TICKS = 30;  // without a word; a world may take long to begin
export const CODECS = { 0: "raw", 1: "jpeg", 4: "h264" };
export const KEY = 1, FIRST = 2, LAST = 4, AGAIN = 8, STILL = 16;
const PIECE = 2;

/** One frame out of a binary message; null if it is none. */
export function readFrame(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 40 || view.getUint8(0) !== 1) return null;
  return {
    flags: view.getUint16(2, true),
    epoch: view.getUint32(4, true),
    block: view.getUint32(8, true),
    frame: view.getUint16(12, true),
    frames: view.getUint16(14, true),
    time: Number(view.getBigUint64(16, true)) / 1e6,
    number: view.getUint32(24, true),
    action: view.getUint32(28, true),
    codec: CODECS[view.getUint8(32)],
    width: view.getUint16(34, true),
    height: view.getUint16(36, true),
    seen: Array.from({ length: view.getUint16(38, true) }, (_, at) => readRun(view, 40 + 8 * at)),
    payload: new Uint8Array(buffer, 4 * view.getUint8(1)),
  };
}

/** Frames of the past that a block saw, one after the other, and whether they were retrieved for it. */
function readRun(view, at) {
  const told = view.getUint32(at + 4, true);
  return { from: view.getInt32(at, true), many: told % 2 ** 31, retrieved: told >= 2 ** 31 };
}

/**
 * A player's or a spectator's connection. `handlers` are told what happens:
 *   state(kind, text, retryMs): "connecting", "lost", "full", "ended", "replaced", "refused", "restarting"
 *   welcome(message), begun(message), told(message), frame(frame), coming(share), film(blob), jumped(epoch)
 */
export class Link {
  /** @param {{url: string, codec: string, token?: string, watch?: string, ticket?: {session: string, resume: string}}} who */
  constructor(who, handlers) {
    this.who = who;
    this.handlers = handlers;
    this.ticket = who.ticket ?? null;
    this.seen = { epoch: who.ticket?.epoch ?? 0, blocks: who.ticket?.blocks ?? 0, frames: 0 };  // what has arrived
    this.seq = 0;
    this.keys = null;
    this.waiting = [];
    this.waitMs = FIRST_WAIT_MS;
    this.lostAt = 0;
    this.lastError = null;
    this.left = false;
    this.pulse = setInterval(() => this.#feel(), TICK_MS);
    this.#open();
  }

  get isOpen() { return this.socket.readyState === WebSocket.OPEN && this.greeted; }

  /** The answer to a message that has one; rejects with the server's error. */
  ask(type, fields = {}) {
    return new Promise((resolve, reject) => {
      if (!this.isOpen) return reject({ code: "lost", isAway: true, message: "The connection is lost; it is being taken up again." });
      this.waiting.push({ type, resolve, reject });
      this.say(type, fields);
    });
  }

  control(op, fields = {}) { return this.ask("control", { op, ...fields }); }

  say(type, fields = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  /** Hold these keys from the next block on; the number of the action, which frames carry. */
  hold(keys) {
    this.seq += 1;
    this.keys = [...keys];
    this.say("action", { seq: this.seq, keys: this.keys });
    return this.seq;
  }

  /** Be told or not, from now on, which frames of the past each block saw: `seen` of its first frame. */
  tell(seen) { this.say("tell", { seen }); }

  ack(frame) { this.say("ack", { epoch: frame.epoch, blocks: frame.block + 1 }); }

  /** End the connection, and the session if that is wanted; it is not taken up again. */
  leave({ bye = true } = {}) {
    this.left = true;
    clearTimeout(this.timer);
    clearInterval(this.pulse);
    this.#giveUp();
    if (bye) this.say("bye");
    this.socket.close(1000);
  }

  #open() {
    this.greeted = this.entered = false;
    this.silent = 0;
    this.socket = new WebSocket(this.who.url, SUBPROTOCOL);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.#hello();
    this.socket.onmessage = (event) => this.#hear(event.data);
    this.socket.onclose = (event) => this.#closed(event);
  }

  /** Ask a server that is silent, and leave one that stays so. Ticks are counted, since a hidden page has few. */
  #feel() {
    if (this.left || this.socket.readyState > WebSocket.OPEN) return;
    this.silent += 1;
    if (this.silent > (this.greeted && !this.entered ? BEGINNING_TICKS : SILENT_TICKS)) return this.#abandon();
    if (this.silent > 1 && this.greeted) this.say("ping");
  }

  #abandon() {
    const { socket } = this;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#closed({ code: 1006, reason: "" }, "The server does not answer.");
  }

  #hello() {
    const { watch, codec, token } = this.who;
    const session = watch || this.ticket?.session || "";
    this.say("hello", {
      role: watch ? "spectator" : "player", codecs: [codec], token: token ?? "", session,
      resume: this.ticket?.resume ?? "", epoch: this.seen.epoch, blocks: this.seen.blocks,
    });
  }

  #hear(data) {
    this.silent = 0;
    if (typeof data !== "string") return new Uint8Array(data, 0, 1)[0] === PIECE ? this.#piece(data) : this.#frame(readFrame(data));
    const told = JSON.parse(data);
    this.lastError = null;
    if (told.epoch > this.seen.epoch) this.#jump(told.epoch, told.blocks ?? 0);
    if (told.type === "welcome") {
      this.greeted = true;
      this.handlers.welcome(told);
    } else if (told.type === "started" || told.type === "watching") {
      this.#begun(told);
    } else if (told.type === "drain") {
      this.ticket = null;
      this.drained = told.world;
    } else if (told.type === "error") {
      this.#error(told);
    } else if (["reliving", "film", "bye"].includes(told.type)) {
      this.handlers.told(told);
    } else {
      this.handlers.told(told);
      this.#answer(...(told.type === "pong" ? ["ping"] : ["control", "prompt"]))?.resolve(told);
    }
  }

  #begun(told) {
    this.entered = true;
    this.waitMs = FIRST_WAIT_MS;
    this.lostAt = 0;
    if (told.resume) this.ticket = { session: told.session, resume: told.resume };
    this.seq = Math.max(this.seq, told.seq ?? 0);
    if (this.keys) this.hold(this.keys);
    this.handlers.begun(told);
    this.#answer("start", "control")?.resolve(told);
  }

  #error(told) {
    this.lastError = told;
    const answered = ["start", "control", "prompt", "ping"].includes(told.to) ? this.#answer(told.to) : null;
    if (answered) answered.reject(told);
    else this.handlers.told(told);
  }

  /** The oldest question of one of these types. */
  #answer(...types) {
    const at = this.waiting.findIndex((one) => types.includes(one.type));
    return at < 0 ? null : this.waiting.splice(at, 1)[0];
  }

  #frame(frame) {
    if (!frame) return;
    if (frame.flags & STILL) return frame.epoch < this.seen.epoch || this.handlers.frame(frame);
    const { epoch, blocks, frames } = this.seen;
    const known = frame.epoch === epoch && (frame.block < blocks || (frame.block === blocks && frame.frame < frames));
    if (frame.epoch < this.seen.epoch || (known && frame.flags & AGAIN)) return;
    if (frame.epoch > this.seen.epoch) this.#jump(frame.epoch, frame.block);
    const isLast = Boolean(frame.flags & LAST);
    this.seen = { epoch: frame.epoch, blocks: frame.block + isLast, frames: isLast ? 0 : frame.frame + 1 };
    this.handlers.frame(frame);
  }

  /** A film comes in pieces, in order; `film(blob)` is told when it is whole. */
  #piece(data) {
    const view = new DataView(data);
    if (view.getBigUint64(8, true) === 0n) this.pieces = [];
    this.pieces.push(new Uint8Array(data, 4 * view.getUint8(1)));
    const size = this.pieces.at(-1).length;
    this.handlers.coming(size ? (Number(view.getBigUint64(8, true)) + size) / Number(view.getBigUint64(16, true)) : 1);
    if (view.getUint16(2, true) & LAST) this.handlers.film(new Blob(this.pieces.splice(0), { type: "video/mp4" }));
  }

  #jump(epoch, blocks) {
    this.seen = { epoch, blocks, frames: 0 };
    this.handlers.jumped(epoch);
  }

  /** Nothing that was asked will be answered. */
  #giveUp() {
    for (const one of this.waiting.splice(0)) one.reject({ code: "lost", message: "The connection was lost before the answer came." });
  }

  #closed({ code, reason }, why = "The connection is lost.") {
    this.#giveUp();
    if (this.left) return;
    const error = this.lastError;
    this.lastError = null;
    const { state } = this.handlers;
    // Whoever takes a session over spends its token.
    if (code === 4409 || (code === 3000 && this.greeted)) return state("replaced", "This world was taken over by another tab or program.");
    if (code === 4410) return state("ended", "This session has ended; its world was kept.");
    if (code === 3000) return state("refused", this.who.token ? "That is not the token of this server." : "This server asks for a token.");
    if (code === 1013) return this.#later("full", error?.message ?? "All places are taken.", error?.retry_after_ms ?? 2000);
    if (code === 1000 || code === 3008 || code >= 4000) return state("ended", error?.message ?? `The server closed the connection (${reason || code}).`);
    if (code === 1012 && this.drained) return state("restarting", "The server is stopping. This world is saved.");
    this.#lost(why);
  }

  #lost(why) {
    const now = Date.now();
    this.lostAt ||= now;
    const text = this.ticket ? `${why} The world stands still and waits for you.` : "There is no connection to the server.";
    this.#later(this.ticket || this.who.watch ? "lost" : "connecting", text, this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  #later(kind, text, ms) {
    this.handlers.state(kind, text, ms);
    this.timer = setTimeout(() => this.#open(), ms);
  }
}
