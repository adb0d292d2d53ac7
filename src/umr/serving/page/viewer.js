// One hit in full: the picture, the page, the clip at its place, or the whole text. Left and right lead to its neighbours.

import { address, fetched, hasKey, pictureOf, show } from "./api.js";
import { bars, bestOf, facts } from "./cards.js";
import { byId, make } from "./dom.js";
import { marked, nameOf, place } from "./words.js";

const dialog = byId("viewer");
const body = byId("viewer-body");
let shown = null; // {hits, index, words, mark, closed}
let free = () => {};

byId("viewer-close").addEventListener("click", () => dialog.close());
byId("viewer-previous").addEventListener("click", () => step(-1));
byId("viewer-next").addEventListener("click", () => step(1));
byId("viewer-right").addEventListener("click", () => mark(true));
byId("viewer-wrong").addEventListener("click", () => mark(false));
byId("viewer-file").addEventListener("click", openWithKey);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
dialog.addEventListener("close", () => {
  clear();
  shown?.closed(shown.hits[shown.index]);
});
dialog.addEventListener("keydown", (event) => {
  if (event.target.closest("video")) return; // arrows seek there
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "+") mark(true);
  else if (event.key === "-") mark(false);
});

/**
 * Open a hit.
 * @param {object[]} hits all that are there
 * @param {object} hit the one to show
 * @param {object} about `words`, `marked(hit)`: its mark, and `mark(hit, right, say)`, which changes it
 * @param {(hit: object) => void} closed called at the end with the hit that was shown last
 */
export function view(hits, hit, about, closed) {
  shown = { ...about, hits, index: hits.indexOf(hit), closed };
  dialog.showModal();
  fill();
  body.focus(); // not a button that may be switched off
}

function step(by) {
  const next = shown.index + by;
  if (next < 0 || next >= shown.hits.length) return;
  shown.index = next;
  fill();
  const focused = document.activeElement;
  if (focused.disabled || !dialog.contains(focused)) body.focus(); // the button that led here is off at the end
}

function mark(right) {
  const hit = shown.hits[shown.index];
  shown.mark(hit, right, (text) => {
    byId("viewer-said").textContent = text;
    showMark();
  });
  showMark();
}

function showMark() {
  const right = shown.marked(shown.hits[shown.index]);
  byId("viewer-right").setAttribute("aria-pressed", String(right === true));
  byId("viewer-wrong").setAttribute("aria-pressed", String(right === false));
}

function clear() {
  byId("viewer-said").textContent = "";
  body.querySelector("video")?.pause();
  body.replaceChildren();
  free();
  free = () => {};
}

function fill() {
  clear();
  const hit = shown.hits[shown.index];
  const { name } = nameOf(hit.source);
  byId("viewer-name").textContent = [name, place(hit)].filter(Boolean).join(", ");
  byId("viewer-previous").disabled = shown.index === 0;
  byId("viewer-next").disabled = shown.index === shown.hits.length - 1;
  showMark();
  const file = byId("viewer-file");
  file.hidden = !hit.media;
  file.href = hit.media ? fileAddress(hit) : "";
  byId("viewer-about").replaceChildren(facts(hit), make("dl", { className: "scores" }, ...bars(hit, bestOf(shown.hits))));
  if (hit.modality.startsWith("video")) fillVideo(hit);
  else if (hit.modality !== "text" && hit.media) fillPicture(hit, name);
  if (hit.text) body.append(make("p", { className: "full" }, ...marked(hit.text, shown.words)));
  body.scrollTop = 0;
}

function fillPicture(hit, name) {
  picture(hit, hit.page == null ? name : `Page ${hit.page} of ${name}`);
}

function picture(hit, alt) {
  const image = make("img", { alt });
  image.addEventListener("error", () => image.replaceWith(failed("The picture cannot be shown; its file may be gone.")));
  body.prepend(image);
  attach(image, pictureOf(hit));
}

function fillVideo(hit) {
  const film = make("video", { controls: true, preload: "metadata", playsInline: true });
  film.setAttribute("aria-label", `${hit.source}, ${place(hit)}`);
  film.addEventListener("error", () => {
    film.replaceWith(failed("This browser cannot play the video. These are its frames as the model sees them."));
    picture(hit, `Frames of ${hit.source}, ${place(hit)}`);
  });
  body.prepend(film);
  const range = hit.start == null ? "" : `#t=${hit.start}${hit.end == null ? "" : `,${hit.end}`}`;
  attach(film, address(hit.media), range);
}

function attach(element, url, fragment) {
  const of = shown;
  const index = shown.index;
  show(element, url, fragment).then(
    (release) => (of === shown && index === shown.index && dialog.open ? (free = release) : release()),
    () => element.dispatchEvent(new Event("error")),
  );
}

function failed(text) {
  return make("p", { className: "failed", textContent: text });
}

function fileAddress(hit) {
  return address(hit.media) + (hit.page == null ? "" : `#page=${hit.page}`);
}

/** A link sends no key: fetch the file, then open what was fetched. */
async function openWithKey(event) {
  if (!hasKey()) return;
  event.preventDefault();
  const hit = shown.hits[shown.index];
  try {
    const held = await fetched(address(hit.media));
    window.open(held + (hit.page == null ? "" : `#page=${hit.page}`), "_blank", "noopener");
    setTimeout(() => URL.revokeObjectURL(held), 60_000);
  } catch (error) {
    body.prepend(failed(error.message));
  }
}
