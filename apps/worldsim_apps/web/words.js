// What the world is told in words: what it shows now, and a line to type something else into.

const NOTHING = "nothing in particular";

export class Words {
  /** `say(text)` tells the world and gives whether it was told; `leave()` goes back to the world. */
  constructor(form, { say, leave }) {
    this.form = form;
    this.say = say;
    this.leave = leave;
    this.prompt = "";
    this.remarked = "";
    [this.input, this.told] = [form.querySelector("input"), form.querySelector("label span")];
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.leave();
    });
  }

  get isTyping() { return document.activeElement === this.input; }

  /** Whether the world is told anything, and how long that may be. */
  configure({ prompts, limits }) {
    this.form.hidden = !prompts;
    this.input.maxLength = limits.prompt_characters;
  }

  /**
   * What the world shows from its next block on; null if it is steered by keys alone. `leftOut` says how many tokens at
   * its end are not heard. Gives what there is to say about that, once for each prompt.
   */
  show(prompt, leftOut = 0) {
    this.prompt = prompt ?? "";
    this.told.textContent = this.told.title = this.prompt || NOTHING;
    if (!leftOut || this.remarked === this.prompt) return "";
    this.remarked = this.prompt;
    return `What you said is too long: its last ${leftOut} tokens are not heard.`;
  }

  /** What was typed goes to the world, and stays here if it does not arrive. */
  async #send() {
    const text = this.input.value.trim();
    this.leave();
    if (text && await this.say(text) && this.input.value.trim() === text) this.input.value = "";
  }
}
