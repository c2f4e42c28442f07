// What is held: by the keyboard while the canvas has the focus, on the touch pad, on a gamepad.

const LONGEST_TAP_MS = 1500;
const STICK = 0.5;
const ARROWS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

/**
 * Tells `hold(keys)` the held set whenever it changes, and expects the number of the action back. A key that was only
 * tapped counts as held until a frame has shown it: the world looks at what is held, not at what was pressed.
 */
export class Hands {
  constructor(canvas, hold) {
    this.canvas = canvas;
    this.hold = hold;
    this.known = new Set();
    this.down = new Map();      // key -> the action that it was pressed with, and when
    this.leaving = new Set();   // released, but not shown yet
    this.stick = new Set();
    this.sent = "";
    canvas.addEventListener("keydown", (event) => this.#keydown(event));
    canvas.addEventListener("keyup", (event) => this.release(event.code));
    canvas.addEventListener("blur", () => this.releaseAll());
    document.addEventListener("visibilitychange", () => document.hidden && this.releaseAll());
    window.addEventListener("gamepadconnected", () => this.#poll());
    window.addEventListener("gamepaddisconnected", () => this.#poll());
  }

  /** The keys that the world understands, by the names of its actions. */
  learn(actions) {
    this.actions = actions;
    this.known = new Set(Object.values(actions).flat());
  }

  press(key) {
    if (!this.known.has(key)) return;
    this.leaving.delete(key);
    if (this.down.has(key)) return;
    this.down.set(key, { action: 0, since: performance.now() });
    this.down.get(key).action = this.#tell();
  }

  release(key) {
    if (!this.down.has(key)) return;
    this.leaving.add(key);
    setTimeout(() => this.#settle(key), LONGEST_TAP_MS);
    this.#settle(key);
  }

  releaseAll() {
    this.leaving.clear();
    this.down.clear();
    this.stick = new Set();
    this.#tell();
  }

  /** A frame that contains that action is on the screen. */
  shown(action) {
    this.seen = action;
    for (const key of [...this.leaving]) this.#settle(key);
  }

  /** Let a released key go once it has been shown, or could not be for too long. */
  #settle(key) {
    const pressed = this.down.get(key);
    if (!pressed || !this.leaving.has(key)) return;
    if (pressed.action > (this.seen ?? 0) && performance.now() - pressed.since < LONGEST_TAP_MS) return;
    this.leaving.delete(key);
    this.down.delete(key);
    this.#tell();
  }

  #tell() {
    const keys = [...this.down.keys()].sort();
    if (keys.join() === this.sent) return this.number;
    this.sent = keys.join();
    this.number = this.hold(keys);
    return this.number;
  }

  #keydown(event) {
    if (!this.known.has(event.code) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.press(event.code);  // also when it repeats: it may be held since before the canvas had the focus
  }

  #poll() {
    cancelAnimationFrame(this.polling);
    const pads = navigator.getGamepads().filter(Boolean);
    const held = new Set(pads.flatMap((pad) => padKeys(pad)));
    for (const key of held) if (!this.stick.has(key)) this.press(key);
    for (const key of this.stick) if (!held.has(key)) this.release(key);
    this.stick = held;
    if (pads.length) this.polling = requestAnimationFrame(() => this.#poll());
  }

  /** Buttons for fingers in that element. A finger may slide from one arrow to another. */
  buildPad(element) {
    const cross = document.createElement("div"), more = document.createElement("div");
    cross.className = "cross";
    more.className = "more";
    const cells = { ArrowUp: "1 / 2", ArrowLeft: "2 / 1", ArrowRight: "2 / 3", ArrowDown: "3 / 2" };
    for (const [name, keys] of Object.entries(this.actions)) {
      const arrow = keys.find((key) => key in ARROWS);
      const button = this.#button(arrow ?? keys[0], arrow ? ARROWS[arrow] : name.replaceAll("_", " "));
      button.setAttribute("aria-label", name.replaceAll("_", " "));
      if (arrow) button.style.gridArea = cells[arrow];
      if (keys.includes("Space")) button.classList.add("main");
      if (keys.includes("Space")) more.prepend(button);
      else (arrow ? cross : more).append(button);
    }
    element.replaceChildren(cross, more);
  }

  #button(key, text) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.dataset.key = key;
    let on = null;  // where the finger is that went down here
    const put = (next) => {
      if (next === on) return;
      on?.classList.remove("held");
      if (on) this.release(on.dataset.key);
      on = next;
      on?.classList.add("held");
      if (on) this.press(on.dataset.key);
    };
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      put(button);
    });
    button.addEventListener("pointermove", ({ clientX, clientY }) => {
      const over = document.elementFromPoint(clientX, clientY)?.closest(".cross button");
      if (on && over && button.closest(".cross")) put(over);
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
      button.addEventListener(kind, () => put(null));
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    return button;
  }
}

/** The keys that a gamepad stands for. */
function padKeys({ axes, buttons }) {
  const held = [];
  if (axes[0] < -STICK || buttons[14]?.pressed) held.push("ArrowLeft");
  if (axes[0] > STICK || buttons[15]?.pressed) held.push("ArrowRight");
  if (axes[1] < -STICK || buttons[12]?.pressed) held.push("ArrowUp");
  if (axes[1] > STICK || buttons[13]?.pressed) held.push("ArrowDown");
  if (buttons[0]?.pressed) held.push("Space");
  return held;
}
