// The past as a row of small pictures, one a second: where to go back to, and where to fork.

const MOST = 120;

export class Timeline {
  /**
   * `chosen(block, fork)` is told what was clicked: the block that would be made next, and whether to fork there.
   * A finger, which has no Shift, is asked in `there`.
   */
  constructor(list, there, chosen) {
    this.list = list;
    this.there = there;
    this.chosen = chosen;
    this.every = 8;
    this.near = 0;  // from this block on one goes back at once; what is before it is lived again
    const [back, fork] = there.children;
    back.addEventListener("click", () => this.#choose(false));
    fork.addEventListener("click", () => this.#choose(true));
  }

  /** Blocks in a second, and of how many seconds the server remembers every block. */
  configure(blocksPerSecond, remembered_s) {
    this.perSecond = blocksPerSecond;
    this.remembered = Math.floor(blocksPerSecond * remembered_s);
    this.every = Math.max(1, Math.round(blocksPerSecond));
  }

  /** That block is on the screen, of which `picture()` gives a data URL. */
  note(block, picture) {
    this.#forgetBefore(block + 1 - this.remembered);
    if (block % this.every || this.list.lastElementChild?.value >= block + 1) return;
    const isAtEnd = this.list.scrollLeft + this.list.clientWidth >= this.list.scrollWidth - 8;
    this.#add(block + 1, picture());
    if (this.list.children.length > MOST) this.list.firstElementChild.remove();
    if (isAtEnd) this.list.scrollLeft = this.list.scrollWidth;
  }

  /** Time has jumped to where so many blocks had been made. */
  cut(blocks) {
    while (this.list.lastElementChild?.value > blocks) this.list.lastElementChild.remove();
    this.there.hidden = true;
    if (blocks >= this.near) return;
    this.near = Math.max(0, blocks - this.remembered);  // it was lived again, and is remembered
    this.#mark();
  }

  /** Another world with those pictures, of which nothing before that block is remembered. */
  begin(near, pictures = []) {
    this.list.replaceChildren();
    this.there.hidden = true;
    this.near = near;
    for (const [blocks, picture] of pictures) this.#add(blocks, picture);
    this.list.scrollLeft = this.list.scrollWidth;
  }

  get pictures() { return [...this.list.children].map((item) => [item.value, item.querySelector("img").src]); }

  #add(blocks, picture) {
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    item.value = blocks;
    image.src = picture;
    image.alt = "";
    button.type = "button";
    button.append(image, this.#clock(blocks));
    button.addEventListener("click", (event) => {
      if (event.pointerType === "touch") this.#ask(blocks);
      else this.chosen(blocks, event.shiftKey);
    });
    item.append(button);
    this.list.append(item);
    this.#title(item);
  }

  #ask(blocks) {
    this.asked = blocks;
    this.there.firstElementChild.textContent = `Back to ${this.#clock(blocks)}`;
    this.there.lastElementChild.textContent = `Fork at ${this.#clock(blocks)}`;
    this.there.hidden = false;
  }

  #choose(fork) {
    this.there.hidden = true;
    this.chosen(this.asked, fork);
  }

  #forgetBefore(block) {
    if (block <= this.near) return;
    this.near = block;
    this.#mark();
  }

  #mark() { for (const item of this.list.children) this.#title(item); }

  #title(item) {
    const isFar = item.value < this.near, where = `Back to ${this.#clock(item.value)}`;
    item.classList.toggle("far", isFar);
    item.firstElementChild.title = `${where}${isFar ? ", which is lived again" : ", at once"}; with Shift, fork there`;
  }

  #clock(blocks) {
    const whole = Math.floor((blocks - 1) / this.perSecond);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  }
}
