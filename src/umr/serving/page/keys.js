// The keyboard: `/` to the search, arrows from card to card, Enter, m, + and - on the card that has the focus.

import { byId } from "./dom.js";

const list = byId("hits");

/** All cards in their order. */
export function cards() {
  return [...list.querySelectorAll(".card")];
}

/** One card is in the order of Tab, with its buttons; the others are reached by arrows. */
export function makeCurrent(article) {
  for (const other of list.querySelectorAll(".card[tabindex='0']")) reachable(other, false);
  if (article) reachable(article, true);
}

function reachable(article, yes) {
  article.tabIndex = yes ? 0 : -1;
  for (const button of article.querySelectorAll("button")) button.tabIndex = yes && !button.matches(".shot") ? 0 : -1;
}

/** Let keys act. `actions` has `open`, `like` and `mark` as cards do. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      byId("text").focus();
      byId("text").select();
      return;
    }
    const article = event.target.closest(".card");
    if (article) onCard(event, article, actions);
  });
  list.addEventListener("focusin", (event) => {
    const article = event.target.closest(".card");
    if (article && article.tabIndex !== 0) makeCurrent(article);
  });
}

function onCard(event, article, actions) {
  const does = {
    Enter: () => actions.open(article.hit),
    m: () => actions.like(article.hit),
    "+": () => actions.mark(article, true),
    "-": () => actions.mark(article, false),
    Home: () => focus(cards()[0]),
    End: () => focus(cards().at(-1)),
  };
  for (const key of ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]) does[key] = () => move(article, key);
  if (!(event.key in does) || (event.key === "Enter" && event.target !== article)) return; // Enter on a button is the button's
  event.preventDefault();
  does[event.key]();
}

function move(article, key) {
  const all = cards();
  const index = all.indexOf(article);
  if (key === "ArrowLeft") return focus(all[index - 1]);
  if (key === "ArrowRight") return focus(all[index + 1]);
  const from = article.getBoundingClientRect();
  const middle = from.left + from.width / 2;
  const down = key === "ArrowDown";
  const beyond = all.map((other) => [other, other.getBoundingClientRect()]).filter(([, box]) => (down ? box.top > from.top + 1 : box.top < from.top - 1));
  const row = beyond.length && (down ? beyond[0][1].top : beyond.at(-1)[1].top);
  const near = beyond.filter(([, box]) => Math.abs(box.top - row) < 2);
  near.sort(([, one], [, other]) => Math.abs(one.left + one.width / 2 - middle) - Math.abs(other.left + other.width / 2 - middle));
  focus(near[0]?.[0]);
}

/** Go to a card, if there is one. */
export function focus(article) {
  if (!article) return;
  makeCurrent(article);
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
}
