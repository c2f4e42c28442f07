// Frames to pixels: they are decoded in order and shown at the world's own pace.

import { KEY, LAST } from "./link.js";

const STALL_MS = 1000;
const LATE = 1.5;  // of the time between two frames: one that comes later was late
const EDGE = 4;  // pixels for what shows that the canvas has the focus

/** Shows the frames of one world on a canvas. `shown(frame)` is called after each was drawn. */
export class Screen {
  constructor(canvas, shown, failed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.shown = shown;
    this.failed = failed;
    this.queue = [];
    this.epoch = 0;
    this.last = Promise.resolve();
    this.video = null;
    this.nextAt = 0;
    this.drawnAt = [];
    this.late = this.count = 0;
  }

  /** Size of the world's frames in pixels, and how many there are in a second. */
  configure(width, height, fps) {
    this.period = 1000 / fps;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.fit();
  }

  /** As large as fits by a whole factor. */
  fit() {
    const room = this.canvas.parentElement.getBoundingClientRect();
    const { width, height } = this.canvas;
    const factor = Math.max(1, Math.floor(Math.min((room.width - EDGE) / width, (room.height - EDGE) / height)));
    this.canvas.style.width = `${factor * width}px`;
    this.canvas.style.height = `${factor * height}px`;
  }

  /** Frames that are decoded but not drawn yet. */
  get waiting() { return this.queue.length; }

  /** Frames drawn in the last second. */
  get fps() {
    const since = performance.now() - 1000;
    while (this.drawnAt.length && this.drawnAt[0] < since) this.drawnAt.shift();
    return this.drawnAt.length;
  }

  /** Draw that frame when its time comes. */
  push(frame) {
    const arrived = performance.now();
    const picture = frame.codec === "h264" ? this.#unit(frame) : this.#jpeg(frame);
    picture.catch(() => {});
    this.last = this.last.then(async () => {
      try {
        const decoded = await picture;
        if (frame.epoch < this.epoch) return decoded.close();
        this.queue.push({ frame, decoded, arrived });
        this.#schedule();
      } catch (error) {
        this.failed(frame, error);
      }
    });
  }

  /** Show nothing from before that epoch any more. */
  jump(epoch) {
    this.epoch = epoch;
    for (const { decoded } of this.queue.splice(0)) decoded.close();
    this.nextAt = 0;
    this.drawnBefore = 0;
  }

  /** A small picture of what is shown, as a data URL. */
  thumbnail() { return this.canvas.toDataURL("image/png"); }

  #schedule() {
    if (this.timer || !this.queue.length) return;
    const wait = this.nextAt - performance.now();
    if (wait <= 1) return this.#draw();
    this.timer = setTimeout(() => { this.timer = 0; this.#draw(); }, wait);
  }

  #draw() {
    const one = this.queue.shift();
    if (!one) return;
    const { frame, decoded } = one, now = performance.now();
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(decoded, 0, 0, this.canvas.width, this.canvas.height);
    decoded.close();
    // A block of several frames is spread over its time; a single frame is shown at once.
    this.nextAt = frame.flags & LAST ? 0 : now + this.period;
    this.count += 1;
    if (this.drawnBefore && now - this.drawnBefore > LATE * this.period) this.late += 1;
    this.drawnBefore = now;
    this.drawnAt.push(now);
    Object.assign(this.canvas.dataset, { epoch: frame.epoch, block: frame.block, frame: frame.frame, action: frame.action });
    this.shown(frame, { decodedMs: now - one.arrived });
    this.#schedule();
  }

  #jpeg(frame) { return createImageBitmap(new Blob([frame.payload], { type: `image/${frame.codec}` })); }

  #unit(frame) {
    if (!this.video || this.video.isBroken) this.video = new Video(frame.payload);
    return this.video.decode(frame);
  }
}

/** H.264 by WebCodecs: access units in, pictures out, in order. */
class Video {
  constructor(unit) {
    this.pending = [];
    this.isBroken = false;
    this.decoder = new VideoDecoder({ output: (picture) => this.#out(picture), error: (error) => this.#break(error) });
    this.decoder.configure({ codec: codecOf(unit), optimizeForLatency: true });
  }

  decode(frame) {
    return new Promise((resolve, reject) => {
      this.pending.push({ resolve, reject });
      this.watch ||= setTimeout(() => this.#break(new Error("the decoder stands still")), STALL_MS);
      const type = frame.flags & KEY ? "key" : "delta";
      this.decoder.decode(new EncodedVideoChunk({ type, timestamp: frame.time * 1e6, data: frame.payload }));
    });
  }

  #out(picture) {
    clearTimeout(this.watch);
    this.watch = 0;
    this.pending.shift()?.resolve(picture);
  }

  #break(error) {
    this.isBroken = true;
    clearTimeout(this.watch);
    if (this.decoder.state !== "closed") this.decoder.close();
    for (const one of this.pending.splice(0)) one.reject(error);
  }
}

/** The codec string of WebCodecs, out of the sequence parameters of an access unit in Annex B. */
export function codecOf(unit) {
  for (let at = 0; at + 6 < unit.length; at += 1) {
    if (unit[at] === 0 && unit[at + 1] === 0 && unit[at + 2] === 1 && (unit[at + 3] & 31) === 7) {
      const hex = (value) => value.toString(16).padStart(2, "0");
      return `avc1.${hex(unit[at + 4])}${hex(unit[at + 5])}${hex(unit[at + 6])}`;
    }
  }
  throw new Error("an access unit without sequence parameters");
}
