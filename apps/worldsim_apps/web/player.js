// The player page: a world in the middle, and around it what can be done with it.

import { Film } from "./film.js";
import { Hands } from "./hands.js";
import { LAST, Link, STILL } from "./link.js";
import { Memory } from "./memory.js";
import { Picture } from "./picture.js";
import { Screen } from "./screen.js";
import { Shelf } from "./shelf.js";
import { remember, remembered } from "./tab.js";
import { Timeline } from "./timeline.js";
import { Words } from "./words.js";

const BACK_S = 2;
const HUD_MS = 500;
const REMEMBERED_LATENCIES = 40;
const LABELS = {
  connecting: "Connecting", live: "Live", paused: "Paused", watching: "Watching", lost: "Connection lost, resuming",
  full: "Full", ended: "Ended", replaced: "Played elsewhere", refused: "Token needed", restarting: "Server is stopping",
  reliving: "Living it again", unbegun: "Picture needed",
};

const $ = (id) => document.getElementById(id);
const canvas = $("screen");

/** Everything that the page knows. */
class Player {
  constructor() {
    this.world = "";
    this.session = "";
    this.origin = null;  // the seed and the place that the world began with, where that is known
    this.blocks = 0;
    this.pressed = new Map();
    this.latencies = [];
    this.given = new URLSearchParams(location.hash.slice(1));
    this.codec = new URLSearchParams(location.search).get("codec") === "h264" && "VideoDecoder" in window ? "h264" : "jpeg";
    this.inside = new URLSearchParams(location.search).get("embed") ?? "";  // of another page, as its first player or beside it
    this.token = this.given.get("token") ?? remembered("token") ?? "";
    this.screen = new Screen(canvas, (frame) => this.#shown(frame), (frame, error) => this.#unreadable(frame, error));
    this.hands = new Hands(canvas, (keys) => this.#hold(keys));
    this.timeline = new Timeline($("timeline"), $("there"), (blocks, fork) => (fork ? this.fork(blocks) : this.goBack(this.blocks - blocks)));
    this.shelf = new Shelf($("shelf"), $("kept"), (world, origin) => this.load(world, origin));
    this.memory = new Memory($("memory"), {
      tell: (on) => this.link?.isOpen && this.link.tell(on),
      map: () => (this.watched || !this.world ? Promise.reject({ code: "lost" }) : this.link.control("map")),
    });
    this.words = new Words($("say"), {
      say: (text) => this.#do(() => this.link.ask("prompt", { text }), ""),
      leave: () => this.focus(),
    });
    this.words.show(this.given.get("prompt"));
    this.picture = new Picture($("picture"), () => this.world || $("anew").requestSubmit());
    this.film = new Film($("record"), (op, fields) => this.link.control(op, fields), (...said) => this.notice(...said));
  }

  get watched() { return this.given.get("watch") ?? ""; }

  /** Connect: to the session that this page is for, to the one it was in before, or to begin one. */
  connect(enter = this.#asked()) {
    if (this.link) {
      this.link.leave({ bye: false });
      this.#label("connecting");
      this.#veil("Connecting.");
    }
    this.enter = enter;
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/world`;
    const ticket = enter || this.watched ? null : this.#ticket();
    this.link = new Link({ url, codec: ticket?.codec ?? this.codec, token: this.token, watch: this.watched, ticket }, {
      state: (kind, text, retryMs) => this.#state(kind, text, retryMs),
      welcome: (told) => this.#welcome(told),
      begun: (told) => this.#begun(told),
      told: (told) => this.#told(told),
      frame: (frame) => this.screen.push(frame),
      coming: (share) => this.film.coming(share, $("notice").textContent),
      film: (blob) => this.film.arrived(blob, this.name),
      jumped: (epoch) => this.screen.jump(epoch),
    });
  }

  async goBack(blocks) {
    const wanted = Math.max(1, Math.round(blocks));
    await this.#jump(async () => {
      const rewind = (made) => made && this.link.control("rewind", { blocks: Math.min(wanted, made) });
      try {
        return await rewind(this.blocks);
      } catch (error) {
        if (error.code !== "ConfigError") throw error;
        return rewind((await this.link.control("look")).blocks);  // there are not as many: to the beginning
      }
    });
  }

  async fork(at = null) {
    const tab = this.inside ? null : window.open("about:blank");
    const before = at === null ? 0 : Math.max(0, this.blocks - at), { near } = this.timeline;
    const forked = await this.#do(() => this.link.control("fork"), this.inside ? "" : "The fork is open in another tab.");
    if (!forked) return tab?.close();
    const where = new URLSearchParams({ session: forked.session, resume: forked.resume, codec: this.link.who.codec, near });
    for (const [name, value] of Object.entries(this.origin ?? {})) if (value !== null) where.set(name, value);
    if (before) where.set("rewind", before);
    const url = `${location.pathname}#${where}`;
    if (this.inside) return tellAround({ fork: `?embed=beside#${where}` });
    if (tab) tab.location = url;
    else this.notice("Your browser blocked the new tab. Open the fork here: ", { href: url, text: "the fork" });
  }

  async save() {
    const saved = await this.#do(() => this.link.control("save"), "");
    if (!saved) return;
    const { world } = saved, url = `${location.origin}${location.pathname}#world=${world}`;
    this.shelf.add({ world, name: this.name, picture: this.screen.thumbnail(), at: Date.now(), origin: this.origin });
    this.notice("Saved. Whoever opens this goes on from here: ", { href: url, text: url });
  }

  async load(world, origin = null) {
    if (!this.link.isOpen || !this.world) {
      this.origin = origin;
      return this.connect({ type: "control", fields: { op: "load", world } });
    }
    const told = await this.#jump(() => this.link.control("load", { world }), "Loaded.");
    if (told) this.#begin(origin, told.blocks);
  }

  async pause() {
    await this.#do(() => this.link.control(this.paused ? "resume" : "pause"), "");
  }

  async anew(seed, start, codec) {
    const fields = { seed, start };
    this.codec = codec ?? this.codec;
    const image = await this.#do(() => this.picture.packed(), "");
    if (image === null) return;
    if (!this.link.isOpen || !this.world) return this.connect({ type: "start", fields: { ...fields, image } });
    if (await this.#jump(() => this.link.control("reset", { ...fields, image }))) this.#begin(fields, 0);
  }

  copyLink() {
    const where = new URLSearchParams({ watch: this.link.ticket?.session ?? this.watched });
    const url = `${location.origin}${location.pathname}#${where}`;
    navigator.clipboard?.writeText(url).catch(() => {});
    this.notice("Whoever opens this watches: ", { href: url, text: url });
  }

  /** Say something below the buttons; what passes is true until there is a connection again. */
  notice(text, link = null, alarm = false, passes = false) {
    const element = $("notice");
    this.passes = passes;
    element.classList.toggle("alarm", alarm);
    element.replaceChildren(text);
    if (!link) return;
    const anchor = Object.assign(document.createElement("a"), { href: link.href, textContent: link.text, target: "_blank" });
    if (link.download) anchor.download = link.download;
    element.append(anchor);
  }

  measure() {
    const { screen, link } = this;
    $("fps").textContent = screen.fps;
    $("ahead").textContent = Math.max(0, (link.seen?.blocks ?? 0) - this.blocks) + screen.waiting;
    $("missed").textContent = this.missed ?? 0;
    const sorted = [...this.latencies].sort((a, b) => a - b);
    $("latency").textContent = sorted.length ? `${Math.round(sorted[sorted.length >> 1])} ms` : "–";
  }

  /** What the address asks for, once: a world that was kept, or a seed, a place and a prompt to begin with. */
  #asked() {
    const { given } = this, world = given.get("world");
    if (this.watched || given.has("session") || !["world", "seed", "start", "prompt"].some((name) => given.has(name))) return null;
    this.#useUp();
    if (world) return { type: "control", fields: { op: "load", world } };
    return { type: "start", fields: beginning(given) };
  }

  /** A page that is loaded again goes on where it was, and asks for nothing. */
  #useUp() {
    history.replaceState(null, "", location.pathname + location.search);
    this.given = new URLSearchParams();
  }

  #ticket() {
    if (this.given.has("session")) {
      const ticket = { session: this.given.get("session"), resume: this.given.get("resume"), codec: this.given.get("codec") };
      this.rewindTo = Number(this.given.get("rewind") ?? 0);
      this.#recall({ ...ticket, near: Number(this.given.get("near") ?? 0), origin: this.given.has("seed") ? beginning(this.given) : null });
      this.#useUp();  // its token is good for once
      this.film.forget();
      return ticket;
    }
    const ticket = remembered("ticket");
    if (!ticket) return null;
    this.#recall(ticket);
    return ticket;
  }

  /** What this page knew of a session before it was loaded again. */
  #recall({ session, world, origin, near }) {
    Object.assign(this, { session, world: world ?? "", origin: origin ?? null });
    this.recalled = { near: near ?? 0, pictures: remembered("pictures")?.[session] ?? [] };
  }

  #hold(keys) {
    if (!this.link?.isOpen || this.watched) return 0;
    const number = this.link.hold(keys);
    if (keys.length) this.pressed.set(number, performance.now());
    return number;
  }

  #welcome(told) {
    const [height, width] = told.size;
    this.name = told.name;
    $("world").textContent = told.name;
    this.screen.configure(width, height, told.fps);
    this.timeline.configure(told.fps / told.frames_per_block, told.limits.remembered_s);
    this.memory.configure(told.fps, told.frames_per_block);
    this.words.configure(told);
    this.picture.configure(told);
    this.perBlock = told.frames_per_block;
    this.perSecond = told.fps / told.frames_per_block;
    if (!this.hands.actions) this.#learn(told);
    if (this.watched || this.link.ticket) return;
    const { type, fields } = this.enter ??= { type: "start", fields: beginning() };
    const prompt = type === "start" ? { prompt: this.words.prompt } : {};
    this.link.ask(type, { ...fields, ...prompt }).catch((error) => this.#refused(error));
  }

  #learn({ actions, starts }) {
    this.hands.learn(actions);
    this.hands.buildPad($("pad"));
    $("keys").replaceChildren(...Object.entries(actions).map(([name, keys]) => keyRow(name, keys)));
    $("place").parentElement.hidden = !starts;
    $("place").replaceChildren(new Option("any", ""), ...Array.from({ length: starts }, (_, at) => new Option(at + 1, at)));
  }

  #begun(told) {
    if (this.passes) this.notice("");
    const { enter, session, recalled } = this;
    Object.assign(this, { enter: null, recalled: null, session: told.session });
    if (told.session !== session) this.epoch = undefined;
    if (enter?.type === "start") this.#begin({ seed: enter.fields.seed, start: enter.fields.start }, 0);
    else if (told.session !== session) this.#begin(this.origin, told.blocks, enter?.fields.world === this.world ? this.timeline.pictures : []);
    else if (recalled) this.#begin(this.origin, recalled.near, recalled.pictures);
    document.body.classList.toggle("watching", told.type === "watching");
    this.film.renew();
    this.memory.renew();
    this.#situate(told);
    this.#remember();
    this.#look();
    if (this.rewindTo) this.goBack(this.rewindTo);
    this.rewindTo = 0;
    if (!this.words.isTyping) this.focus(told.session !== session);
  }

  /** Another world than before: how it began, back to which block it is remembered, and what it looked like. */
  #begin(origin, near, pictures = []) {
    this.origin = origin;
    this.memory.begin();
    this.timeline.begin(near, pictures);
    $("seed").value = origin?.seed ?? "";
    $("place").value = origin?.start ?? "";
    this.#remember();
  }

  #told(told) {
    if (told.type === "reliving") this.#reliving(told);
    if (told.type === "state") this.#situate(told);
    if (told.type === "film") this.film.ended(told);
    if (told.type !== "error") return;
    if (told.code === "block_failed") this.#situate(told);
    this.notice(told.message, null, true, true);
  }

  #reliving({ blocks, of }) {
    this.#label("reliving");
    this.#veil(`Living it again: ${blocks} of ${of} blocks.`, [], blocks / of);
  }

  #situate({ epoch, blocks, paused, world, waiting, damage, recording, prompt, left_out: leftOut }) {
    if (epoch !== this.epoch) this.blocks = blocks;
    if (epoch > this.epoch) this.#look();
    this.epoch = epoch;
    this.timeline.cut(this.blocks);
    this.memory.cut(this.blocks * this.perBlock);
    this.paused = paused;
    const remark = this.words.show(prompt, leftOut);
    if (remark) this.notice(remark, null, true);
    if (damage && world !== this.world) this.notice(`Not all of what was kept could be read: ${damage}`, null, true);
    this.world = world;
    this.away = waiting;
    $("pause").textContent = paused ? "Go on" : "Pause";
    $("pause").setAttribute("aria-pressed", String(paused));
    if (recording !== undefined && !this.watched) this.film.heed(recording);
    this.#calm();
  }

  /** Nothing is between the player and the world. */
  #calm() {
    this.#veil();
    this.#label(this.watched ? (this.away ? "lost" : "watching") : this.paused ? "paused" : "live");
    if (this.watched && this.away) $("state").textContent = "The player is away";
  }

  /** Show what the world looks like now, be it that no block is made before somebody says so. */
  #look() { this.link.control("look").catch(() => {}); }

  #shown(frame) {
    if (frame.flags & STILL) return;
    this.blocks = frame.block + 1;
    if (this.number !== undefined && frame.number > this.number + 1 && this.watched) {
      this.missed = (this.missed ?? 0) + frame.number - this.number - 1;
    }
    this.number = frame.number;
    this.hands.shown(frame.action);
    for (const [action, since] of this.pressed) {
      if (action > frame.action) continue;
      if (action === frame.action) this.latencies.push(performance.now() - since);
      this.pressed.delete(action);
    }
    this.latencies.splice(0, this.latencies.length - REMEMBERED_LATENCIES);
    this.memory.note(frame, canvas);
    if (!(frame.flags & LAST)) return;
    if (!this.watched) {
      this.link.ack(frame);
      this.#remember();
    }
    this.timeline.note(frame.block, () => this.screen.thumbnail());
  }

  /** A picture that this browser cannot read: go on as JPEG, which everybody reads. */
  async #unreadable(frame, error) {
    if (this.isChanging) return;
    if (frame.codec === "jpeg" || this.watched) return this.notice(`A frame could not be read (${error.message}).`, null, true);
    this.isChanging = true;
    this.codec = "jpeg";
    const saved = await this.#do(() => this.link.control("save"), "");
    this.isChanging = false;
    if (saved) this.connect({ type: "control", fields: { op: "load", world: saved.world } });
    this.notice(`This browser cannot show H.264 (${error.message}); the world goes on as JPEG.`);
  }

  #refused(error) {
    if (error.code === "lost" || error.code === "full") return;
    this.#state(error.code === "no_picture" ? "unbegun" : "ended", error.message);
  }

  /** Something is between the player and the world: say what, and what can be done. */
  #state(kind, text, retryMs) {
    this.#label(kind);
    const again = retryMs > 1000 ? ` Trying again in ${Math.round(retryMs / 1000)} s.` : "";
    const { world, origin } = this;
    const onwards = [
      ...(world && !this.watched ? [["Go on in this world", () => this.load(world, origin)]] : []),
      ["Begin anew", () => this.#leaveWatching()],
    ];
    const choices = {
      refused: [["Give the token", () => this.#askToken()]], replaced: onwards, ended: onwards,
      unbegun: [["Choose a picture", () => this.picture.choose()]],
    }[kind] ?? [];
    if (kind === "restarting") setTimeout(() => this.connect({ type: "control", fields: { op: "load", world: this.link.drained } }), 1500);
    if (kind === "ended" || kind === "replaced" || kind === "restarting") this.screen.jump(0);
    this.#veil(sentence(text) + again, choices);
  }

  #leaveWatching() {
    this.#useUp();
    this.connect({ type: "start", fields: beginning() });
  }

  #askToken() {
    const token = window.prompt("The token that this server was started with");
    if (!token) return;
    this.token = token;
    remember("token", token);
    this.connect(this.enter);
  }

  #label(kind) {
    document.querySelector("aside").inert = kind === "reliving";
    $("state").dataset.state = kind;
    $("state").textContent = LABELS[kind];
  }

  #veil(text = "", choices = [], share = null) {
    $("lived").hidden = share === null;
    $("lived").value = share ?? 0;
    $("veil").classList.toggle("shown", Boolean(text));
    $("message").textContent = text;
    $("choices").replaceChildren(...choices.map(([label, act]) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.addEventListener("click", act);
      return button;
    }));
  }

  async #do(ask, done) {
    this.notice("");
    try {
      const told = await ask();
      if (done) this.notice(done);
      return told;
    } catch (error) {
      this.notice(error.message ?? String(error), null, true, error.isAway);
      return null;
    }
  }

  /** Go to another time, one after the other: whoever clicks twice means it once. */
  async #jump(ask, done = "") {
    if (this.isJumping) return null;
    this.isJumping = true;
    const told = await this.#do(ask, done);
    this.isJumping = false;
    if ($("state").dataset.state === "reliving") this.#calm();  // it was refused
    this.focus();
    return told;
  }

  /** Keys count again; the world comes into view if it is another one. */
  focus(isOther = false) { if (!this.watched) canvas.focus({ preventScroll: !isOther }); }

  #remember() {
    const { ticket, seen, who } = this.link;
    const { world, origin, blocks } = this, { near } = this.timeline;
    if (ticket?.resume) remember("ticket", { ...ticket, ...seen, blocks, codec: who.codec, world, origin, near });
  }

  /** The page is left, and may be loaded again. */
  leave() { remember("pictures", { [this.session]: this.timeline.pictures }); }
}

function keyRow(name, keys) {
  const row = document.createElement("tr"), cell = document.createElement("td"), list = document.createElement("td");
  cell.textContent = name.replaceAll("_", " ");
  for (const key of keys) {
    const cap = document.createElement("kbd");
    cap.textContent = key.replace(/^(Key|Digit)/, "");
    list.append(cap, " ");
  }
  row.append(cell, list);
  return row;
}

/** Tell the page around this one, which can only be one that the server lets show it. */
function tellAround(told) { window.parent.postMessage({ worldsim: told }, "*"); }

function sentence(text) { return `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`; }

/** How a world begins: with the seed and the place that are given, or a seed that nobody chose and whichever place it draws. */
function beginning(given = new Map()) {
  const number = (name) => (given.get(name) ? Number(given.get(name)) : null);
  return { seed: number("seed") ?? crypto.getRandomValues(new Uint32Array(1))[0], start: number("start") };
}

const player = new Player();
window.worldsim = player;  // for whoever looks in with the browser's tools
const buttons = {
  pause: () => player.pause(),
  back: () => player.goBack(BACK_S * player.perSecond),
  fork: () => player.fork(),
  save: () => player.save(),
  record: () => player.film.press(),
  watch: () => player.copyLink(),
};
for (const [id, act] of Object.entries(buttons)) {
  $(id).addEventListener("click", () => {
    act();
    player.focus();  // else Space would press it again
  });
}
$("anew").addEventListener("submit", (event) => {
  event.preventDefault();
  const { seed, start } = beginning(new Map([["seed", $("seed").value], ["start", $("place").value]]));
  player.anew(seed, start);
});
canvas.addEventListener("focus", () => { $("hint").hidden = true; });
canvas.addEventListener("blur", () => { $("hint").hidden = false; });
window.addEventListener("hashchange", () => location.reload());
window.addEventListener("pagehide", () => player.leave());
document.body.classList.toggle("touch", navigator.maxTouchPoints > 0);
$("memory").open = remembered("memory") ?? !(navigator.maxTouchPoints > 0 || player.inside);
$("memory").addEventListener("toggle", () => remember("memory", $("memory").open));
document.addEventListener("keydown", (event) => {
  const isTaken = player.hands.known.has(event.code) || event.target.matches("input, select") || event.repeat;
  if (event.code !== "KeyM" || isTaken || event.ctrlKey || event.metaKey || event.altKey) return;
  $("memory").open = !$("memory").open;
});
if (player.inside) {
  document.body.classList.add("inside");
  document.body.classList.toggle("beside", player.inside === "beside");
  new ResizeObserver(() => tellAround({ height: document.body.offsetHeight })).observe(document.body);
}
new ResizeObserver(() => player.screen.fit()).observe($("frame"));
setInterval(() => player.measure(), HUD_MS);
player.connect();
