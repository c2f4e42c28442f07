// Around the players: how tall each is, and a fork of the first beside it. What is shown in them never comes here.

window.addEventListener("message", ({ source, origin, data }) => {
  const player = [...element.querySelectorAll("iframe")].find((one) => one.contentWindow === source);
  const told = data?.worldsim;
  if (!told || !player || origin !== new URL(player.src).origin) return;
  if (told.height > 0) player.style.height = `${Math.min(Math.ceil(told.height), 4000)}px`;
  if (typeof told.fork === "string") showBeside(new URL(told.fork, `${origin}/`), origin);
});
element.addEventListener("click", ({ target }) => { if (target.closest(".close")) closeBeside(); });

function showBeside(url, origin) {
  if (url.origin !== origin) return;
  closeBeside();
  const player = element.querySelector("iframe").cloneNode();
  player.src = url;
  player.title = "The fork";
  element.querySelector(".twin").append(player);
  element.querySelector(".players").classList.add("two");
}

function closeBeside() {
  element.querySelector(".twin iframe")?.remove();
  element.querySelector(".players").classList.remove("two");
}
