// Hits as cards. A card knows its hit; what its buttons do is said by whoever asked for it.

import { address, show } from "./api.js";
import { fromTemplate, make } from "./dom.js";
import { badge, excerpt, figure, kindName, label, marked, nameOf, place, valueText } from "./words.js";

const STAGES = ["cosine", "calibrated", "words", "fused", "rerank"];
const UNBOUNDED = new Set(["words", "fused"]); // scores of these have no upper end: their bars are shares of the best
const FIELDS = 3;
const EXCERPT = 320;
const SAID = 140;
const SHORT = 110; // characters of a text that is set larger

/**
 * A card.
 * @param {object} hit
 * @param {object} shown `{words, best}`: words to be marked, and the best score of each stage
 * @param {object} actions `open`, `like` and `mark(hit, right)`
 */
export function card(hit, shown, actions) {
  const item = fromTemplate("card");
  const article = item.querySelector(".card");
  article.hit = hit;
  article.setAttribute("aria-label", label(hit));
  fillShot(item.querySelector(".shot"), hit, shown);
  fillAbout(item, hit, shown);
  item.querySelector(".scores").append(...bars(hit, shown.best));
  const { name } = nameOf(hit.source);
  const does = { ".shot": () => actions.open(hit), ".open": () => actions.open(hit), ".like": () => actions.like(hit) };
  does[".right"] = () => actions.mark(article, true);
  does[".wrong"] = () => actions.mark(article, false);
  const named = { ".shot": "Open", ".open": "Open", ".like": "More like", ".right": "Right:", ".wrong": "Wrong:" };
  for (const [selector, act] of Object.entries(does)) {
    const button = item.querySelector(selector);
    button.setAttribute("aria-label", `${named[selector]} ${name}`);
    button.addEventListener("click", act);
  }
  item.querySelector(".right").title = "Right: this answers the query";
  item.querySelector(".wrong").title = "Wrong: this does not answer the query";
  return item;
}

function fillShot(shot, hit, shown) {
  if (hit.thumbnail) {
    const { name } = nameOf(hit.source);
    const image = make("img", { alt: hit.text ? hit.text.slice(0, SAID) : name, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(make("span", { className: "lost", textContent: "no picture" })));
    shot.prepend(image);
    show(image, address(hit.thumbnail)).then(
      (free) => (image.complete && image.src ? free() : image.addEventListener("load", free, { once: true })),
      () => image.dispatchEvent(new Event("error")),
    );
  } else {
    shot.classList.add("texty");
    const size = hit.text.length <= SHORT ? "excerpt short" : "excerpt";
    shot.prepend(make("span", { className: size }, make("span", {}, ...marked(excerpt(hit.text, shown.words, EXCERPT), shown.words))));
  }
}

function fillAbout(item, hit, shown) {
  const { name, folder } = nameOf(hit.source);
  const [kind, picture] = badge(hit);
  item.querySelector(".rank").textContent = hit.rank;
  item.querySelector(".kind use").setAttribute("href", `#i-${picture}`);
  item.querySelector(".badge").textContent = [kind, place(hit)].filter(Boolean).join(" · ");
  const heading = item.querySelector("h3");
  heading.textContent = name;
  heading.title = hit.source;
  put(item.querySelector(".folder"), folder);
  const said = item.querySelector(".said");
  if (hit.thumbnail && hit.text) said.append(...marked(excerpt(hit.text, shown.words, SAID), shown.words));
  else said.remove();
  const fields = Object.entries(hit.metadata ?? {}).slice(0, FIELDS);
  const list = item.querySelector(".fields");
  if (fields.length) list.append(...fields.map(([field, value]) => pair(field, value)));
  else list.remove();
}

function put(element, text) {
  if (text) element.textContent = text;
  else element.remove();
}

function pair(field, value) {
  return make("li", {}, make("span", { className: "field-name", textContent: field }), ` ${valueText(value)}`);
}

/** Names, bars and figures of a hit's scores; the stage that decided its place is set off. */
export function bars(hit, best) {
  return STAGES.filter((stage) => stage in hit.scores).map((stage) => {
    const score = hit.scores[stage];
    const whole = UNBOUNDED.has(stage) ? best[stage] || 1 : 1;
    const bar = make("span", { className: "meter" }, make("span"));
    bar.firstChild.style.inlineSize = `${Math.max(0, Math.min(1, score / whole)) * 100}%`;
    bar.setAttribute("aria-hidden", "true");
    const row = make("div", {}, make("dt", { textContent: stage }), make("dd", {}, bar, make("span", { textContent: figure(score) })));
    row.classList.toggle("decided", stage === hit.stage);
    return row;
  });
}

/** The best score of each stage, for the bars. */
export function bestOf(hits) {
  const best = {};
  for (const { scores } of hits) {
    for (const [stage, score] of Object.entries(scores)) best[stage] = Math.max(best[stage] ?? 0, score);
  }
  return best;
}

/** Show a card's mark: true, false, or undefined for none. */
export function showMark(article, right) {
  article.dataset.mark = right === undefined ? "" : right ? "right" : "wrong";
  article.querySelector(".right").setAttribute("aria-pressed", String(right === true));
  article.querySelector(".wrong").setAttribute("aria-pressed", String(right === false));
}

/** Say on a card why it cannot be marked; "" where it can. */
export function allowMarks(article, reason) {
  for (const button of article.querySelectorAll(".right, .wrong")) {
    button.setAttribute("aria-disabled", String(reason !== ""));
    if (reason) button.title = reason;
  }
}

/** What a hit is, as terms and descriptions: for the viewer. */
export function facts(hit) {
  const lines = [["File", hit.source], ["Kind", kindName(hit.modality)]];
  if (place(hit)) lines.push(["Place", place(hit)]);
  if (hit.modality === "text" && hit.start != null) lines.push(["Characters", `${hit.start}–${hit.end ?? ""}`]);
  lines.push(...Object.entries(hit.metadata ?? {}).map(([field, value]) => [field, valueText(value)]));
  const list = make("dl", { className: "facts" });
  for (const [term, value] of lines) list.append(make("dt", { textContent: term }), make("dd", { textContent: value }));
  return list;
}
