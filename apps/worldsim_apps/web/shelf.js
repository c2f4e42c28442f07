// The worlds that were saved from this browser. The server keeps them; here are their names and what they look like.

const PLACE = "worldsim.saved";
const SURE = "Take this world off the list? The server keeps it, but only who knows its name can go on in it:";

export class Shelf {
  constructor(list, section, load) {
    this.list = list;
    this.section = section;
    this.load = load;
    this.show();
  }

  /** All that is kept, the newest first; none where the browser keeps nothing. */
  get all() {
    try {
      return JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    } catch {
      return [];
    }
  }

  add(entry) { this.#write([entry, ...this.all]); }

  forget(world) { this.#write(this.all.filter((one) => one.world !== world)); }

  show() {
    this.section.hidden = !this.all.length;
    this.list.replaceChildren(...this.all.map((entry) => this.#item(entry)));
  }

  #write(entries) {
    try {
      localStorage.setItem(PLACE, JSON.stringify(entries.slice(0, 48)));
    } catch {
      // Without storage the name is still shown when it is saved.
    }
    this.show();
  }

  #item({ world, name, picture, at, origin }) {
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    const forget = document.createElement("button");
    image.src = picture;
    image.alt = "";
    button.type = forget.type = "button";
    button.title = `Go on in ${name}, saved ${new Date(at).toLocaleString()} as ${world}`;
    button.append(image, new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    button.addEventListener("click", () => this.load(world, origin));
    forget.className = "forget";
    forget.textContent = "×";
    forget.title = "Take off this list";
    forget.setAttribute("aria-label", forget.title);
    forget.addEventListener("click", () => window.confirm(`${SURE}\n\n${world}`) && this.forget(world));
    item.append(button, forget);
    return item;
  }
}
