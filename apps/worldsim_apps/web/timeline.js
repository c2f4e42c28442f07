// The past as a row of small pictures, one a second: where to go back to, and where to fork.

const MOST = 120;

export class Timeline {
  /** `chosen(block, fork)` is told what was clicked: the block that would be made next, and whether to fork there. */
  constructor(list, chosen) {
    this.list = list;
    this.chosen = chosen;
    this.every = 8;
  }

  /** Blocks between two pictures, and blocks in a second. */
  configure(blocksPerSecond) {
    this.perSecond = blocksPerSecond;
    this.every = Math.max(1, Math.round(blocksPerSecond));
  }

  /** That block is on the screen, of which `picture()` gives a data URL. */
  note(block, picture) {
    if (block % this.every || this.list.lastElementChild?.value >= block + 1) return;
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    const seconds = block / this.perSecond;
    item.value = block + 1;
    image.src = picture();
    image.alt = "";
    button.type = "button";
    button.title = `Back to ${clock(seconds)}; with Shift, fork there`;
    button.append(image, clock(seconds));
    button.addEventListener("click", (event) => this.chosen(item.value, event.shiftKey));
    item.append(button);
    const isAtEnd = this.list.scrollLeft + this.list.clientWidth >= this.list.scrollWidth - 8;
    this.list.append(item);
    if (this.list.children.length > MOST) this.list.firstElementChild.remove();
    if (isAtEnd) this.list.scrollLeft = this.list.scrollWidth;
  }

  /** Time has jumped to where so many blocks had been made. */
  cut(blocks) {
    while (this.list.lastElementChild?.value > blocks) this.list.lastElementChild.remove();
  }

  clear() { this.list.replaceChildren(); }
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
