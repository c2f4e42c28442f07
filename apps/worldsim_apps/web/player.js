// The player page: a world in the middle, and around it what can be done with it.

import { LAST, Link, STILL } from "./link.js";
import { Hands } from "./hands.js";
import { Screen } from "./screen.js";
import { Shelf } from "./shelf.js";
import { Timeline } from "./timeline.js";

const BACK_S = 2;
const HUD_MS = 500;
const REMEMBERED_LATENCIES = 40;
const LABELS = {
  connecting: "Connecting", live: "Live", paused: "Paused", watching: "Watching", lost: "Connection lost, resuming",
  full: "Full", ended: "Ended", replaced: "Played elsewhere", refused: "Token needed", restarting: "Server is stopping",
};

const $ = (id) => document.getElementById(id);
const canvas = $("screen");

/** Everything that the page knows. */
class Player {
  constructor() {
    this.world = "";
    this.blocks = 0;
    this.pressed = new Map();
    this.latencies = [];
    this.given = new URLSearchParams(location.hash.slice(1));
    this.codec = new URLSearchParams(location.search).get("codec") === "h264" && "VideoDecoder" in window ? "h264" : "jpeg";
    this.inside = new URLSearchParams(location.search).get("embed") ?? "";  // of another page, as its first player or beside it
    this.token = this.given.get("token") ?? remembered("token") ?? "";
    this.screen = new Screen(canvas, (frame) => this.#shown(frame), (frame, error) => this.#unreadable(frame, error));
    this.hands = new Hands(canvas, (keys) => this.#hold(keys));
    this.timeline = new Timeline($("timeline"), (blocks, fork) => (fork ? this.fork(blocks) : this.goBack(this.blocks - blocks)));
    this.shelf = new Shelf($("shelf"), $("kept"), (world) => this.load(world));
  }

  get watched() { return this.given.get("watch") ?? ""; }

  /** Connect: to the session that this page is for, to the one it was in before, or to begin one. */
  connect(enter = this.#asked()) {
    this.link?.leave({ bye: false });
    this.enter = enter;
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/world`;
    const ticket = enter || this.watched ? null : this.#ticket();
    this.link = new Link({ url, codec: ticket?.codec ?? this.codec, token: this.token, watch: this.watched, ticket }, {
      state: (kind, text, retryMs) => this.#state(kind, text, retryMs),
      welcome: (told) => this.#welcome(told),
      begun: (told) => this.#begun(told),
      told: (told) => this.#told(told),
      frame: (frame) => this.screen.push(frame),
      film: (blob) => this.#film(blob),
      jumped: (epoch) => this.screen.jump(epoch),
    });
  }

  async goBack(blocks) {
    const most = Math.min(Math.max(1, Math.round(blocks)), this.blocks);
    if (this.blocks) await this.#do(() => this.link.control("rewind", { blocks: most }), "");
    canvas.focus();
  }

  async fork(at = null) {
    const tab = this.inside ? null : window.open("about:blank");
    const before = at === null ? 0 : Math.max(0, this.blocks - at);
    const forked = await this.#do(() => this.link.control("fork"), this.inside ? "" : "The fork is open in another tab.");
    if (!forked) return tab?.close();
    const where = new URLSearchParams({ session: forked.session, resume: forked.resume, codec: this.link.who.codec });
    if (before) where.set("rewind", before);
    const url = `${location.pathname}#${where}`;
    if (this.inside) return tellAround({ fork: `?embed=beside#${where}` });
    if (tab) tab.location = url;
    else this.notice("Your browser blocked the new tab. Open the fork here: ", { href: url, text: "the fork" });
  }

  async save() {
    const saved = await this.#do(() => this.link.control("save"), "");
    if (!saved) return;
    this.shelf.add({ world: saved.world, name: this.name, picture: this.screen.thumbnail(), at: Date.now() });
    this.notice(`Saved as ${saved.world}.`);
  }

  async load(world) {
    if (!this.link.isOpen || !this.world) return this.connect({ type: "control", fields: { op: "load", world } });
    await this.#do(() => this.link.control("load", { world }), "Loaded.");
    this.timeline.clear();
    canvas.focus();
  }

  async record() {
    const isOn = $("record").getAttribute("aria-pressed") === "true";
    const told = await this.#do(() => this.link.control("record", { on: !isOn }), isOn ? "" : "Recording.");
    if (!told) return;
    this.#recording(!isOn);
    if (isOn) await this.#fetch(told);
  }

  #recording(isOn) {
    $("record").setAttribute("aria-pressed", String(isOn));
    $("record").textContent = isOn ? "Stop" : "Record";
  }

  /** Have a film that has ended sent here. */
  async #fetch({ name, seconds, problem }) {
    this.filmed = `${seconds.toFixed(1)} s as MP4${problem ? ` (${problem})` : ""}`;
    await this.#do(() => this.link.control("film", { world: name }), "Fetching the film.");
  }

  /** A film has arrived. */
  #film(blob) {
    if (this.film) URL.revokeObjectURL(this.film);
    this.film = URL.createObjectURL(blob);
    this.notice("Recorded: ", { href: this.film, text: this.filmed, download: `${this.name}.mp4` });
  }

  async pause() {
    await this.#do(() => this.link.control(this.paused ? "resume" : "pause"), "");
    if (!this.paused) canvas.focus();
  }

  async anew(seed, start, codec) {
    const fields = { seed, start };
    this.codec = codec ?? this.codec;
    if (!this.link.isOpen || !this.world) return this.connect({ type: "start", fields });
    if (await this.#do(() => this.link.control("reset", fields), "")) this.timeline.clear();
    canvas.focus();
  }

  copyLink() {
    const where = new URLSearchParams({ watch: this.link.ticket?.session ?? this.watched });
    const url = `${location.origin}${location.pathname}#${where}`;
    navigator.clipboard?.writeText(url).catch(() => {});
    this.notice("Whoever opens this watches: ", { href: url, text: url });
  }

  /** Say something below the buttons. */
  notice(text, link = null, alarm = false) {
    const element = $("notice");
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

  /** What the address asks for, once: a world that was kept, or a seed and a place to begin with. */
  #asked() {
    const { given } = this, world = given.get("world");
    if (this.watched || !["world", "seed", "start"].some((name) => given.has(name))) return null;
    this.#useUp();
    if (world) return { type: "control", fields: { op: "load", world } };
    const start = given.has("start") ? Number(given.get("start")) : null;
    return { type: "start", fields: { seed: Number(given.get("seed") ?? fresh()), start } };
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
      this.#useUp();  // its token is good for once
      return ticket;
    }
    return JSON.parse(remembered("ticket") ?? "null");
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
    this.timeline.configure(told.fps / told.frames_per_block);
    this.perSecond = told.fps / told.frames_per_block;
    if (!this.hands.actions) this.#learn(told);
    if (this.watched || this.link.ticket) return;
    const { type, fields } = this.enter ?? { type: "start", fields: { seed: fresh() } };
    this.link.ask(type, fields).catch((error) => this.#refused(error));
  }

  #learn({ actions, starts }) {
    this.hands.learn(actions);
    this.hands.buildPad($("pad"));
    $("keys").replaceChildren(...Object.entries(actions).map(([name, keys]) => keyRow(name, keys)));
    $("place").replaceChildren(...Array.from({ length: starts }, (_, at) => new Option(at + 1, at)));
  }

  #begun(told) {
    this.enter = null;
    document.body.classList.toggle("watching", told.type === "watching");
    this.#situate(told);
    this.#veil();
    this.#remember();
    this.#look();
    if (this.rewindTo) this.goBack(this.rewindTo);
    this.rewindTo = 0;
    if (!this.watched) canvas.focus();
  }

  #told(told) {
    if (told.type === "reliving") this.notice(`Living it again: ${told.blocks} of ${told.of} blocks.`);
    if (told.type === "state") this.#situate(told);
    if (told.type === "film") {
      this.#recording(false);
      this.#fetch(told);
    }
    if (told.type !== "error") return;
    if (told.code === "block_failed") this.#situate(told);
    this.notice(told.message, null, true);
  }

  #situate({ epoch, blocks, paused, world, waiting, damage }) {
    if (epoch !== this.epoch) this.blocks = blocks;
    if (epoch > this.epoch) this.#look();
    this.epoch = epoch;
    this.timeline.cut(this.blocks);
    this.paused = paused;
    if (damage && world !== this.world) this.notice(`Not all of what was kept could be read: ${damage}`, null, true);
    this.world = world;
    $("pause").textContent = paused ? "Go on" : "Pause";
    $("pause").setAttribute("aria-pressed", String(paused));
    this.#label(this.watched ? (waiting ? "lost" : "watching") : paused ? "paused" : "live");
    if (this.watched && waiting) $("state").textContent = "The player is away";
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
    this.#state("ended", error.message);
  }

  /** Something is between the player and the world: say what, and what can be done. */
  #state(kind, text, retryMs) {
    this.#label(kind);
    if (kind !== "lost") forget("ticket");
    const again = retryMs > 1000 ? ` Trying again in ${Math.round(retryMs / 1000)} s.` : "";
    const known = this.world;
    const choices = {
      refused: [["Give the token", () => this.#askToken()]],
      replaced: [["Begin anew here", () => this.connect({ type: "start", fields: { seed: fresh() } })]],
      ended: [
        ...(known && !this.watched ? [["Go on in this world", () => this.load(known)]] : []),
        ["Begin anew", () => this.#leaveWatching()],
      ],
    }[kind] ?? [];
    if (kind === "restarting") setTimeout(() => this.connect({ type: "control", fields: { op: "load", world: this.link.drained } }), 1500);
    if (kind === "ended" || kind === "restarting") this.timeline.clear();
    if (kind === "ended" || kind === "replaced" || kind === "restarting") this.screen.jump(0);
    this.#veil(text + again, choices);
    if (kind === "ended" || kind === "replaced") this.world = kind === "ended" ? known : "";
  }

  #leaveWatching() {
    this.#useUp();
    this.connect({ type: "start", fields: { seed: fresh() } });
  }

  #askToken() {
    this.token = window.prompt("The token that this server was started with") ?? "";
    if (!this.token) return;
    remember("token", this.token);
    this.connect(this.enter);
  }

  #label(kind) {
    $("state").dataset.state = kind;
    $("state").textContent = LABELS[kind];
  }

  #veil(text = "", choices = []) {
    $("veil").classList.toggle("shown", Boolean(text));
    $("message").textContent = text;
    $("choices").replaceChildren(...choices.map(([label, act]) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.addEventListener("click", act);
      return button;
    }));
  }

  async #do(ask, done) {
    try {
      const told = await ask();
      if (done !== null) this.notice(done);
      return told;
    } catch (error) {
      this.notice(error.message ?? String(error), null, true);
      return null;
    }
  }

  #remember() {
    const { ticket, seen, who } = this.link;
    if (this.inside) return;  // two inside one page are of one tab, and would take each other's place
    if (ticket?.resume) remember("ticket", JSON.stringify({ ...ticket, ...seen, blocks: this.blocks, codec: who.codec }));
  }
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

/** A seed that nobody chose. */
function fresh() { return crypto.getRandomValues(new Uint32Array(1))[0]; }

// What is remembered is of this tab, and nothing where the browser forbids it.
function remembered(name) { try { return sessionStorage.getItem(`worldsim.${name}`); } catch { return null; } }
function remember(name, value) { try { sessionStorage.setItem(`worldsim.${name}`, value); } catch { /* not remembered */ } }
function forget(name) { try { sessionStorage.removeItem(`worldsim.${name}`); } catch { /* nor this */ } }

const player = new Player();
window.worldsim = player;  // for whoever looks in with the browser's tools
$("pause").addEventListener("click", () => player.pause());
$("back").addEventListener("click", () => player.goBack(BACK_S * player.perSecond));
$("fork").addEventListener("click", () => player.fork());
$("save").addEventListener("click", () => player.save());
$("record").addEventListener("click", () => player.record());
$("watch").addEventListener("click", () => player.copyLink());
$("anew").addEventListener("submit", (event) => {
  event.preventDefault();
  player.anew(Number($("seed").value), Number($("place").value));
});
canvas.addEventListener("focus", () => { $("hint").hidden = true; });
canvas.addEventListener("blur", () => { $("hint").hidden = Boolean(player.watched); });
document.body.classList.toggle("touch", navigator.maxTouchPoints > 0);
if (player.inside) {
  document.body.classList.add("inside");
  document.body.classList.toggle("beside", player.inside === "beside");
  new ResizeObserver(() => tellAround({ height: document.body.offsetHeight })).observe(document.body);
}
new ResizeObserver(() => player.screen.fit()).observe($("frame"));
setInterval(() => player.measure(), HUD_MS);
player.connect();
