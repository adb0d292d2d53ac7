// What the page says: about the results, in their place, and beside them.

import { byId, make } from "./dom.js";

const TOAST_MS = 5000;
let toasted = 0;

/** The line above the results. */
export function say(text) {
  byId("status").textContent = text;
}

/** A line about something that happened beside the results; it goes away by itself. */
export function toast(text) {
  byId("toast").textContent = text;
  clearTimeout(toasted);
  toasted = setTimeout(() => (byId("toast").textContent = ""), TOAST_MS);
}

/** A further line about the results, such as that a time budget was spent. */
export function note(textContent) {
  byId("notes").append(make("li", { textContent }));
  byId("notes").hidden = false;
}

/** A message in the place of results, with buttons. */
export function message(title, text, ...buttons) {
  const below = make("div", { className: "buttons" }, ...buttons);
  byId("message").replaceChildren(make("h2", { textContent: title }), make("p", { textContent: text }), below);
  byId("message").hidden = false;
}

/** Take notes and the message away. */
export function quiet() {
  byId("message").hidden = true;
  byId("notes").hidden = true;
  byId("notes").replaceChildren();
}

/** A button for a message. */
export function button(textContent, act) {
  const made = make("button", { type: "button", textContent });
  made.addEventListener("click", act);
  return made;
}
