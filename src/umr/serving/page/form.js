// The form: shows a state, and reads one from what stands in it.

import { address, show } from "./api.js";
import { byId, counted, fromTemplate, icon, make } from "./dom.js";
import { kept } from "./images.js";
import { DEFAULTS, SIGNS, written } from "./state.js";
import { kindName, nameOf } from "./words.js";

const FIELDS = ["id", "source", "modality", "page", "start", "end"];
const VALUES = ["text", "minus", "instruction", "reranker", "depth", "seconds", "k"];
const OPTIONS = ["minus", "instruction", "mode", "reranker", "depth", "seconds", "k", "group"];
let shownImage = ""; // address of the picture in the chip
let held = { image: "", like: "" };
const thumbnails = new Map(); // of items that were seen, by id

/** Remember that an item has a thumbnail, for when it is what others are to be like. */
export function remember({ id, thumbnail }) {
  if (thumbnail) thumbnails.set(id, thumbnail);
}

/** Fill in what the server offers. */
export function offer({ collections, rerankers }) {
  byId("collection").replaceChildren(...collections.map(({ name }) => make("option", { value: name, textContent: name })));
  byId("collection").closest("label").hidden = collections.length === 0;
  const none = make("option", { value: "", textContent: rerankers.length ? "no reranker" : "this server has no reranker" });
  byId("reranker").replaceChildren(none, ...rerankers.map((name) => make("option", { value: name, textContent: name })));
  byId("reranker").disabled = rerankers.length === 0;
}

/** Show a state. `collection` is what the server says of the one that is searched. */
export async function fill(state, collection) {
  byId("collection").value = state.collection;
  for (const name of VALUES) byId(name).value = state[name];
  if (byId("reranker").selectedIndex < 0) byId("reranker").value = "";
  for (const radio of document.querySelectorAll("[name=mode]")) radio.checked = radio.value === state.mode;
  keepChoice(byId("k"), state.k);
  byId("group").checked = state.group === "source";
  fillModalities(state.modalities, collection);
  byId("conditions").replaceChildren(...state.where.map(conditionRow));
  byId("fields").replaceChildren(...[...(collection?.fields ?? []), ...FIELDS].map((value) => make("option", { value })));
  held = { image: state.image, like: state.like };
  await fillChip(state);
  byId("active").replaceChildren(...activeChips(state));
  effects();
  summary(state);
}

/** What narrows or bends the search, to be seen and taken away while the options are closed. */
function activeChips(state) {
  const chips = state.where.filter(written).map((one) => {
    const sign = SIGNS.find(([sign]) => sign === one.sign)[1];
    return chip(`${one.field} ${sign} ${one.value}`, { where: state.where.filter((other) => other !== one) });
  });
  if (state.minus.trim()) chips.push(chip(`without ${state.minus}`, { minus: "" }));
  return chips;
}

function chip(text, without) {
  const button = make("button", { type: "button", title: "Take away" }, text, icon("wrong"));
  button.setAttribute("aria-label", `${text}: take away`);
  button.without = without;
  return make("li", {}, button);
}

function keepChoice(select, value) {
  if (![...select.options].some((option) => option.value === String(value))) select.append(make("option", { textContent: value }));
  select.value = String(value);
}

function fillModalities(chosen, collection) {
  const counts = collection?.modalities ?? {};
  const kinds = [...new Set([...Object.keys(counts), ...chosen])];
  const chips = kinds.map((kind) => {
    const box = make("input", { type: "checkbox", name: "modality", value: kind, checked: chosen.includes(kind) });
    return make("label", {}, box, make("span", {}, `${kindName(kind)} `, make("small", { textContent: (counts[kind] ?? 0).toLocaleString("en") })));
  });
  byId("modalities").replaceChildren(byId("modalities").querySelector("legend"), ...(kinds.length > 1 ? chips : []));
}

async function fillChip({ image, like }) {
  const chip = byId("image-chip");
  const picture = chip.querySelector("img");
  const remove = byId("image-remove");
  if (shownImage) URL.revokeObjectURL(shownImage);
  shownImage = "";
  const found = image ? await kept(image) : undefined;
  chip.hidden = !(found || like);
  picture.hidden = !(found || thumbnails.has(like));
  picture.onerror = () => (picture.hidden = true); // a kind that the server reads and this browser does not show
  if (found) {
    shownImage = URL.createObjectURL(found.blob);
    picture.src = shownImage;
  } else if (thumbnails.has(like)) {
    show(picture, address(thumbnails.get(like))).then(null, picture.onerror);
  } else {
    picture.removeAttribute("src");
  }
  const name = found ? found.name : like ? `More like ${nameOf(like).name}` : "";
  chip.querySelector(".chip-name").textContent = name;
  chip.title = name;
  remove.setAttribute("aria-label", found ? `Take ${name} away` : "Stop looking for more like this");
  byId("text").placeholder = found ? "Add words, or search with the image alone" : like ? "Type to search for something else" : "Type, or drop an image here";
}

/** A row for one condition. */
export function conditionRow({ field, sign, value }) {
  const row = fromTemplate("condition");
  row.querySelector(".sign").append(...SIGNS.map(([sign, name]) => make("option", { value: sign, textContent: name })));
  row.querySelector(".field").value = field;
  row.querySelector(".sign").value = sign;
  row.querySelector(".value").value = value;
  return row;
}

/** What stands in the form; pictures and "more like" stay as they were shown. */
export function read() {
  const state = { ...DEFAULTS, ...held };
  for (const name of VALUES) state[name] = byId(name).value;
  state.text = state.text.trim();
  state.k = Number(state.k);
  state.collection = byId("collection").value;
  state.mode = document.querySelector("[name=mode]:checked")?.value ?? DEFAULTS.mode;
  state.group = byId("group").checked ? "source" : "";
  state.modalities = [...document.querySelectorAll("[name=modality]:checked")].map((box) => box.value);
  state.where = [...byId("conditions").children].map((row) => ({
    field: row.querySelector(".field").value,
    sign: row.querySelector(".sign").value,
    value: row.querySelector(".value").value,
  }));
  if (state.text || state.image) state.like = "";
  if (!state.reranker) state.depth = state.seconds = "";
  return state;
}

/** Switch off what would have no effect, and say why. */
export function effects() {
  const state = read();
  const words = state.mode === "words";
  byId("minus").disabled = Boolean(state.like) || words;
  byId("instruction").disabled = Boolean(state.like) || (words && !state.reranker);
  byId("ranking").disabled = Boolean(state.like);
  byId("rerank-settings").hidden = !state.reranker;
  byId("asking-hint").textContent = state.like
    ? "“More like this” goes by the stored vector alone."
    : words
      ? "A search by words alone reads neither of these without a model."
      : "";
}

/** How many options differ from the default, on the button that opens them. */
export function summary(state) {
  const set = OPTIONS.filter((name) => String(state[name]) !== String(DEFAULTS[name])).length + state.where.filter(written).length;
  byId("options-button").textContent = set ? `Options · ${counted(set, "set", "set")}` : "Options";
  return set;
}

/** Open or close the options. */
export function openOptions(open) {
  byId("options").hidden = !open;
  byId("options-button").setAttribute("aria-expanded", String(open));
}
