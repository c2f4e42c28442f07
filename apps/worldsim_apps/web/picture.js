// The picture that a world begins from: chosen from a file, cut to the world's aspect and made small enough to be sent.

const MOST_BYTES = 45_000;  // in base64 within one message
const QUALITIES = [0.92, 0.8, 0.65, 0.5, 0.35];

export class Picture {
  /** `chosen()` is called when somebody has chosen a file. */
  constructor(input, chosen) {
    this.input = input;
    input.addEventListener("change", () => input.files.length && chosen());
  }

  /** Whether the world begins from a picture, and its size [height, width]. */
  configure({ pictures, size }) {
    this.isNeeded = pictures;
    this.input.parentElement.hidden = !pictures;
    this.size = size;
  }

  choose() { this.input.click(); }

  /** The chosen picture as the server takes it, or "" if none was chosen; an Error if the browser cannot read it. */
  async packed() {
    const file = this.isNeeded && this.input.files[0];
    if (!file) return "";
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error(`${file.name} is no picture that this browser can read.`);
    });
    for (let scale = 1; ; scale /= 2) {
      const canvas = cut(bitmap, this.size.map((side) => Math.max(1, Math.round(side * scale))));
      for (const quality of QUALITIES) {
        const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
        if (blob.size <= MOST_BYTES) return base64Of(blob);
      }
    }
  }
}

/** The middle of a picture, over white where it is not there. */
function cut(bitmap, [height, width]) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [across, down] = [width * scale, height * scale];
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - across) / 2, (bitmap.height - down) / 2, across, down, 0, 0, width, height);
  return canvas;
}

function base64Of(blob) {
  return new Promise((resolve, reject) => {
    const reader = Object.assign(new FileReader(), { onload: () => resolve(reader.result.split(",")[1]), onerror: reject });
    reader.readAsDataURL(blob);
  });
}
