// What the world remembers: the frames that its newest block saw, as small pictures that were kept when they were on the
// screen. The server says only their numbers.

const SIDE = 40;  // pixels of a small picture
const ACROSS = 32, MOST = ACROSS * ACROSS;
const DENSE = 64;  // of the newest frames every one is kept, of those before them one in so many that there is room
const FILM = 6, AFAR = 8;  // pictures that are shown of what came just before, and of what was recalled
const MAP_MS = 1500;
const PLACE = 6;  // pixels of a place on the map

/** Small pictures of what was shown, by the number of the frame, all on one canvas. */
export class Album {
  constructor() {
    this.sheet = Object.assign(document.createElement("canvas"), { width: ACROSS * SIDE, height: ACROSS * SIDE });
    this.context = this.sheet.getContext("2d");
    this.clear();
  }

  clear() {
    this.cells = new Map();
    this.free = Array.from({ length: MOST }, (_, at) => MOST - 1 - at);
    this.stride = 1;
  }

  keep(number, source) {
    if (!this.cells.has(number)) {
      while (!this.free.length) this.#thin(number, this.stride * 2);
      this.cells.set(number, this.free.pop());
      if ((number - DENSE) % this.stride) this.#drop(number - DENSE);
    }
    const [x, y] = this.#corner(this.cells.get(number));
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(source, x, y, SIDE, SIDE);
  }

  /** Forget that frame and all after it. */
  cut(number) { for (const kept of [...this.cells.keys()]) if (kept >= number) this.#drop(kept); }

  /** Draw that frame, or the nearest one that is kept and no more than so many away; whether there was one. */
  draw(number, within, canvas) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let away = 0; away <= within + this.stride; away += 1) {
      const cell = this.cells.get(number + away) ?? this.cells.get(number - away);
      if (cell === undefined) continue;
      context.drawImage(this.sheet, ...this.#corner(cell), SIDE, SIDE, 0, 0, canvas.width, canvas.height);
      return true;
    }
    return false;
  }

  #thin(newest, stride) {
    this.stride = stride;
    for (const kept of [...this.cells.keys()]) if (kept % stride && kept < newest - DENSE) this.#drop(kept);
  }

  #drop(number) {
    if (!this.cells.has(number)) return;
    this.free.push(this.cells.get(number));
    this.cells.delete(number);
  }

  #corner(cell) { return [SIDE * (cell % ACROSS), SIDE * Math.floor(cell / ACROSS)]; }
}

/** The part of the page that shows it. `tell(on)` asks the server to say what blocks see, `map()` for the map of places. */
export class Memory {
  constructor(section, { tell, map }) {
    this.section = section;
    this.tell = tell;
    this.map = map;
    this.album = new Album();
    this.part = (name) => section.querySelector(`.${name}`);
    section.addEventListener("toggle", () => this.renew());
    setInterval(() => this.#chart(), MAP_MS);
  }

  get isOn() { return this.section.open; }

  /** Frames in a second, and in a block; the first block may have fewer, and ends with the same number. */
  configure(fps, perBlock) { Object.assign(this, { fps, perBlock }); }

  /** Say again what this page wants to be told: it was opened or closed, or the connection is another. */
  renew() {
    this.hasMap = this.isStale = true;
    this.tell(this.isOn);
    this.#chart();
  }

  /** Another world, of which nothing was shown. */
  begin() { this.album.clear(); }

  /** Time has jumped to where so many frames had been made. */
  cut(frames) { this.album.cut(frames); }

  /** That frame is on the screen, and this is the canvas. */
  note(frame, canvas) {
    this.album.keep((frame.block + 1) * this.perBlock - frame.frames + frame.frame, canvas);
    this.isStale = true;
    if (frame.seen.length) this.#show(frame.seen, frame.block * this.perBlock);
  }

  /** The runs of frames that the block saw whose first frame is `now`. */
  #show(runs, now) {
    if (!this.isOn) return;
    const { from, many, retrieved } = runs.at(-1), isRecent = from + many === now && !retrieved;
    const recent = isRecent ? many : 0, afar = isRecent ? runs.slice(0, -1) : runs;
    const step = Math.max(1, recent / FILM), length = Math.min(FILM, recent);
    const film = Array.from({ length }, (_, at) => now - 1 - Math.round((length - 1 - at) * step));
    this.part("span").textContent = `${(recent / this.fps).toFixed(1)} s`;
    this.#fill(this.part("film"), film.map((number) => ({ number, within: step })), now);
    const shown = afar.slice(-AFAR);
    this.#fill(this.part("afar"), shown.map((run) => ({ number: run.from + (run.many >> 1), within: run.many, ...run })), now);
    this.part("none").hidden = afar.length > 0;
    this.part("legend").hidden = !afar.some((run) => run.retrieved);
    this.part("more").textContent = afar.length > AFAR ? `and ${afar.length - AFAR} more` : "";
  }

  #fill(list, items, now) {
    while (list.children.length > items.length) list.lastElementChild.remove();
    while (list.children.length < items.length) list.append(tile());
    items.forEach(({ number, within, many, retrieved }, at) => {
      const [canvas, label] = list.children[at].children;
      const isKnown = number >= 0 && this.album.draw(number, within, canvas);
      list.children[at].classList.toggle("unknown", !isKnown);
      list.children[at].classList.toggle("retrieved", Boolean(retrieved));
      label.textContent = ago((now - number) / this.fps);
      list.children[at].title = `${retrieved ? "Retrieved, " : ""}${label.textContent} ago${many > 1 ? `, ${many} frames` : ""}${isKnown ? "" : ", which this page has not shown"}`;
    });
  }

  async #chart() {
    if (!this.isOn || !this.hasMap || !this.isStale || document.hidden) return;
    this.isStale = false;
    const told = await this.map().catch((error) => (error.code === "lost" ? undefined : null));
    if (told === undefined) return void (this.isStale = true);
    this.hasMap = Boolean(told?.picture);
    this.part("places").hidden = !this.hasMap;
    if (!this.hasMap) return;
    const image = new Image(), [top, left, rows, columns] = told.view;
    image.src = `data:image/png;base64,${told.picture}`;
    await image.decode();
    const canvas = this.part("map"), context = canvas.getContext("2d");
    Object.assign(canvas, { width: PLACE * image.width, height: PLACE * image.height });
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    context.strokeStyle = "#fff";
    context.strokeRect(PLACE * left + 0.5, PLACE * top + 0.5, PLACE * columns - 1, PLACE * rows - 1);
    this.part("count").textContent = `${told.places} places`;
  }
}

function tile() {
  const item = document.createElement("li"), label = document.createElement("span");
  item.append(Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE }), label);
  return item;
}

function ago(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}
