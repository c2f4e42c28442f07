// The film of what is shown: one button begins and ends it, and it is fetched however often the connection breaks.

import { remember, remembered } from "./tab.js";

const FETCHING = "Fetching the film";

export class Film {
  /** `ask(op, fields)` gives the server's answer, and `notice(text, link)` says something. */
  constructor(button, ask, notice) {
    this.button = button;
    this.ask = ask;
    this.notice = notice;
    this.name = remembered("film") ?? "";  // of the film that is being made, or has not arrived yet
    this.about = "";
    this.asked = "";
  }

  async press() {
    const isOn = this.button.getAttribute("aria-pressed") === "true";
    try {
      const told = await this.ask("record", { on: !isOn });
      if (isOn) return this.ended(told);
      this.#show(told.film);
      this.notice("Recording.");
    } catch (error) {
      this.notice(error.message, null, true, error.isAway);
    }
  }

  /** Another connection: what was on its way over the one before will not arrive. */
  renew() { this.asked = ""; }

  /** The server says which film it makes, if any. One that it made, and does not any more, is fetched. */
  heed(name) {
    this.#show(name);
    if (!name && this.name) this.#fetch();
  }

  /** A film has ended, by the button or because its session did. */
  ended({ name, seconds, problem }) {
    this.about = `${seconds.toFixed(1)} s as MP4${problem ? ` (${problem})` : ""}`;
    this.#keep(name);
    this.heed(null);
  }

  /** So much of it has arrived, which is not said over what was `said` about something else. */
  coming(share, said) { if (said.startsWith(FETCHING)) this.notice(`${FETCHING}: ${Math.floor(100 * share)} %.`); }

  /** All of it has arrived; `name` is what to call it. */
  arrived(blob, name) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(blob);
    if (this.button.getAttribute("aria-pressed") === "false") this.#keep("");
    this.notice("Recorded: ", { href: this.url, text: this.about || "the film as MP4", download: `${name}.mp4` });
    this.about = "";
  }

  /** Nothing here is of this tab, which came from another. */
  forget() { this.#keep(""); }

  async #fetch() {
    if (this.asked === this.name) return;
    this.asked = this.name;
    this.notice(`${FETCHING}.`);
    try {
      await this.ask("film", { world: this.name });
    } catch (error) {
      if (error.code === "lost") return;  // it is asked for again
      this.#keep("");
      this.notice(error.message, null, true);
    }
  }

  #show(name) {
    if (name) this.#keep(name);
    this.button.setAttribute("aria-pressed", String(Boolean(name)));
    this.button.textContent = name ? "Stop" : "Record";
  }

  #keep(name) {
    this.name = name;
    remember("film", name || null);
  }
}
