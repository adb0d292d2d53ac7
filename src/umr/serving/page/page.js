// The page: a state, the search that belongs to it, and what is shown of both.

import { hasKey, offered, Refusal, search, useKey } from "./api.js";
import { bestOf, card } from "./cards.js";
import { byId, counted } from "./dom.js";
import { conditionRow, effects, fill, offer, openOptions, read, remember, summary } from "./form.js";
import { hearImages } from "./dropping.js";
import { forget, isImage, keep } from "./images.js";
import { cards, focus, listen, makeCurrent } from "./keys.js";
import * as marks from "./marks.js";
import { button, message, note, quiet, say, toast } from "./messages.js";
import { MissingImage, modeOf, room, searchRequest } from "./request.js";
import { asks, fromAddress, toAddress } from "./state.js";
import { view } from "./viewer.js";
import { wordsOf } from "./words.js";

const MOST_REMEMBERED = 20;
const results = byId("results");
const remembered = new Map(); // by address: what Back shows again without asking
let server = { collections: [], rerankers: [] };
let ready = false; // whether `server` is known
let state = fromAddress(location.search);
let found = null; // {state, hits, whole, order, notes, seconds}
let running = new AbortController();

const actions = {
  open: (hit) => {
    const about = { ...shownWith(), marked: marks.markOf, mark: (one, right, tell) => marks.mark(cardOf(one), right, tell) };
    view(found.hits, hit, about, (last) => focus(cardOf(last)));
  },
  like: (hit) => {
    remember(hit);
    go({ ...read(), text: "", image: "", minus: "", like: hit.id });
  },
  mark: (article, right) => marks.mark(article, right, toast),
};

function cardOf(hit) {
  return cards().find((article) => article.hit === hit);
}

function shownWith() {
  return { words: found.state.mode === "vector" ? [] : wordsOf(found.state.text), best: bestOf(found.hits) };
}

// --- searching

/** Take a state into the address and search. Back leads from search to search: what is set before there is one leaves no trace. */
function go(next, again = false) {
  const trace = asks(state) || asks(next);
  state = next;
  if (found) found.scroll = window.scrollY;
  const address = toAddress(state);
  if (new URL(address, location.href).href !== location.href) history[trace ? "pushState" : "replaceState"](null, "", address);
  return ready ? show(again) : undefined; // else start() will
}

/** Show the state: its form, and its results. */
async function show(again = false) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  await fill(state, server.collections.find(({ name }) => name === state.collection));
  if (signal.aborted) return;
  document.title = state.text ? `${state.text} – umr` : state.like ? `Like ${state.like} – umr` : "umr";
  if (!asks(state)) return welcome();
  const before = again ? undefined : remembered.get(location.href);
  if (before) {
    list(before, signal);
    return window.scrollTo(0, before.scroll ?? 0);
  }
  busy(true);
  say("Searching …");
  try {
    const answer = await search(await searchRequest(state, 0), signal);
    const within = byId("hits").contains(document.activeElement);
    list({ ...answer, state, whole: whole(state, answer.hits, 0) }, signal);
    window.scrollTo(0, 0);
    if (within) focus(cards()[0]);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

async function more() {
  const { signal } = running;
  const of = found;
  const offset = of.hits.length;
  byId("more").disabled = true;
  byId("more-note").textContent = "Searching …";
  try {
    const answer = await search(await searchRequest(of.state, offset), signal);
    const known = new Set(of.hits.map(({ id }) => id)); // rows may have moved on since the page before
    const fresh = answer.hits.filter(({ id }) => !known.has(id));
    of.whole = whole(of.state, answer.hits, offset);
    const first = append(of, fresh);
    byId("more-note").textContent = `${counted(fresh.length, "more result")}, ${of.hits.length} in all.`;
    if (first) focus(first);
  } catch (error) {
    if (error.name !== "AbortError") byId("more-note").textContent = error.message;
  } finally {
    byId("more").disabled = false;
  }
}

/** Whether there is nothing after these hits. */
function whole(of, hits, offset) {
  return hits.length < room(of, offset) || room(of, offset + hits.length) <= 0;
}

// --- showing

function clear() {
  quiet();
  byId("hits").replaceChildren();
  byId("more").hidden = true;
  byId("more-note").textContent = "";
}

function busy(yes) {
  results.setAttribute("aria-busy", String(yes));
}

function list(now, signal) {
  clear();
  busy(false);
  found = { ...now, hits: [] };
  remembered.delete(location.href);
  remembered.set(location.href, found);
  if (remembered.size > MOST_REMEMBERED) remembered.delete(remembered.keys().next().value);
  marks.begin(found.state, signal, cards).catch((error) => error.name !== "AbortError" && note(`Marks are not available: ${error.message}`));
  append(found, now.hits);
  makeCurrent(cards()[0]);
  now.notes.forEach(note);
  if (found.state.image && modeOf(found.state) !== found.state.mode) note("There are no words to search by, so this went by meaning alone.");
  if (now.hits.length) say(`${found.whole ? "" : "The first "}${counted(found.hits.length, "result")}${took(now)}. Order: ${now.order}.`);
  else nothing();
}

function append(of, hits) {
  of.hits.push(...hits);
  const items = hits.map((hit) => card(hit, shownWith(), actions));
  byId("hits").append(...items);
  items.forEach((item) => marks.dress(item.querySelector(".card")));
  byId("more").hidden = of.whole || !of.hits.length;
  return items[0]?.querySelector(".card");
}

function took({ seconds }) {
  const all = Object.values(seconds).reduce((sum, one) => sum + one, 0);
  return all < 1 ? ` in ${Math.round(all * 1000)} ms` : ` in ${all.toFixed(1)} s`;
}

function nothing() {
  say("No results.");
  const narrowed = state.modalities.length || state.where.length;
  const all = button("Search without filters", () => go({ ...state, modalities: [], where: [] }));
  if (narrowed) message("Nothing was found", "Nothing in this collection passes the chosen kinds and filters and answers the query.", all);
  else message("Nothing was found", state.mode === "words" ? "No text holds these words. Searching by meaning may find it." : "This collection holds nothing yet.");
}

function welcome() {
  clear();
  busy(false);
  found = null;
  say("");
  const here = server.collections.find(({ name }) => name === state.collection);
  if (!here) return message("No collection yet", "Make one with umr index FOLDER --collection DIR, then start umr serve --collection DIR.");
  message(
    `${counted(here.rows, "item")} in ${here.name}`,
    "Say in words what you look for, drop or paste an image, or put both together: “this, but in red”.",
  );
}

function fail(error) {
  clear();
  found = null;
  if (error instanceof Refusal && error.status === 401) return askForKey(error);
  say("");
  if (error instanceof MissingImage) {
    const buttons = [button("Choose an image", () => byId("image-choose").click())];
    if (state.text) buttons.push(button("Search without it", () => go({ ...state, image: "" })));
    return message("The image of this search is not on this device", error.message, ...buttons);
  }
  const again = button("Try again", () => (ready ? show(true) : start()));
  message("The search did not work", error.message, again);
}

function askForKey(error) {
  say("This server asks for a key.");
  if (hasKey()) byId("key-why").textContent = error.message;
  byId("key-value").value = "";
  if (!byId("key").open) byId("key").showModal();
}

// --- what the reader does

async function searchWithImage(file) {
  if (!isImage(file)) return toast(`${file.name} is no image; only images can be searched with.`);
  const image = await keep(file); // before the form is read: the collections may come in meanwhile
  go({ ...read(), image, like: "" });
}

function changed() {
  effects();
  summary(read());
  go(read());
}

function hear() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const next = read();
    if (asks(next)) go(next, true);
    else say("Nothing to search for yet: type something, or drop an image.");
  });
  for (const id of ["ranking", "showing", "modalities", "collection"]) byId(id).addEventListener("change", changed);
  byId("asking").addEventListener("change", changed);
  byId("conditions").addEventListener("change", (event) => {
    const row = event.target.closest("li");
    if (row.querySelector(".field").value && row.querySelector(".value").value) changed();
  });
  byId("conditions").addEventListener("click", (event) => {
    if (!event.target.closest(".remove")) return;
    event.target.closest("li").remove();
    byId("condition-add").focus();
    changed();
  });
  byId("active").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    byId("text").focus();
    go({ ...read(), ...button.without });
  });
  byId("condition-add").addEventListener("click", () => {
    byId("conditions").append(conditionRow({ field: "", sign: "=", value: "" }));
    byId("conditions").lastElementChild.querySelector(".field").focus();
  });
  byId("options-button").addEventListener("click", () => openOptions(byId("options").hidden));
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("more").addEventListener("click", more);
  byId("image-remove").addEventListener("click", () => {
    byId("text").focus();
    go({ ...read(), image: "", like: "" });
  });
  byId("key").addEventListener("close", () => {
    useKey(byId("key-value").value.trim());
    if (hasKey()) start();
  });
  byId("forget-key").addEventListener("click", async () => {
    useKey("");
    await forget();
    location.assign(location.pathname); // a new page remembers nothing
  });
  window.addEventListener("popstate", () => {
    if (found) found.scroll = window.scrollY;
    state = withCollection(fromAddress(location.search));
    show();
  });
  hearImages(searchWithImage);
}

// --- beginning

/** The state, in the collection that it names or else in the first one. */
function withCollection(given) {
  const names = server.collections.map(({ name }) => name);
  return names.includes(given.collection) ? given : { ...given, collection: names[0] ?? "" };
}

async function start() {
  busy(true);
  try {
    server = await offered();
  } catch (error) {
    busy(false);
    return fail(error);
  }
  byId("forget-key").hidden = !hasKey();
  offer(server);
  ready = true;
  state = withCollection(state);
  const typed = byId("text").value; // while the page was loading
  await show();
  if (!asks(state)) byId("text").value = typed;
}

history.scrollRestoration = "manual";
hear();
listen(actions);
fill(state);
start();
