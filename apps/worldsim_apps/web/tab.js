// What is remembered is of this tab. It is nothing where the browser forbids it, or inside another page: two players
// there are of one tab, and would take each other's place.

const isInside = new URLSearchParams(location.search).has("embed");

export function remembered(name) {
  if (isInside) return null;
  try {
    return JSON.parse(sessionStorage.getItem(`worldsim.${name}`));
  } catch {
    return null;
  }
}

/** Remember that; nothing any more if it is null. */
export function remember(name, value) {
  if (isInside) return;
  try {
    if (value === null) sessionStorage.removeItem(`worldsim.${name}`);
    else sessionStorage.setItem(`worldsim.${name}`, JSON.stringify(value));
  } catch {
    // Nothing is remembered.
  }
}
