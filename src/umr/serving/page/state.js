// What is searched for and how, and its form in the address of the page: a search can be shared, and Back returns to it.

export const DEFAULTS = Object.freeze({
  collection: "",
  text: "",
  image: "", // key of a picture that this browser keeps (images.js); pictures do not fit into an address
  like: "", // id of a row; in place of text and image
  minus: "",
  instruction: "",
  modalities: Object.freeze([]), // none: all of them
  where: Object.freeze([]), // {field, sign, value}
  mode: "vector",
  k: 24,
  group: "",
  reranker: "",
  depth: "",
  seconds: "",
});

const NAMES = {
  collection: "in",
  text: "q",
  image: "image",
  like: "like",
  minus: "without",
  instruction: "instruction",
  modalities: "kind",
  where: "where",
  mode: "by",
  k: "k",
  group: "group",
  reranker: "rerank",
  depth: "depth",
  seconds: "seconds",
};
const MODES = ["vector", "hybrid", "words"];
const MOST_K = 200;

/** Conditions of filters, as `umr search --where` writes them. */
export const SIGNS = [
  ["=", "is"],
  ["!=", "is not"],
  [">=", "at least"],
  ["<=", "at most"],
  [">", "above"],
  ["<", "below"],
  ["~", "contains"],
];
const WRITTEN = /^\s*([^=<>!~]+?)\s*(>=|<=|!=|==|=|>|<|~)\s*([^]*?)\s*$/;

/** `year>=2020`, or "" while the condition is incomplete. */
export function written({ field, sign, value }) {
  return field.trim() && value.trim() ? `${field.trim()}${sign}${value.trim()}` : "";
}

/** The condition of a text such as `year>=2020`; null when it is none. */
export function condition(text) {
  const found = WRITTEN.exec(text);
  return found && { field: found[1], sign: found[2] === "==" ? "=" : found[2], value: found[3] };
}

/** Whether there is something to search for. */
export function asks(state) {
  return Boolean(state.like || state.text.trim() || state.image);
}

/** The state that an address holds; what makes no sense in it counts as not given. */
export function fromAddress(query) {
  const given = new URLSearchParams(query);
  const state = { ...DEFAULTS };
  for (const [name, short] of Object.entries(NAMES)) {
    if (given.has(short)) state[name] = given.get(short);
  }
  state.modalities = given.getAll(NAMES.modalities);
  state.where = given.getAll(NAMES.where).map(condition).filter(Boolean);
  if (!MODES.includes(state.mode)) state.mode = DEFAULTS.mode;
  const k = Number(state.k);
  state.k = Number.isInteger(k) && k >= 1 && k <= MOST_K ? k : DEFAULTS.k;
  return state;
}

/** The address of a state, without what is as by default. */
export function toAddress(state) {
  const query = new URLSearchParams();
  for (const [name, short] of Object.entries(NAMES)) {
    if (name === "modalities") state.modalities.forEach((kind) => query.append(short, kind));
    else if (name === "where") state.where.map(written).filter(Boolean).forEach((text) => query.append(short, text));
    else if (String(state[name]) !== String(DEFAULTS[name])) query.set(short, state[name]);
  }
  const text = query.toString();
  return text ? `?${text}` : location.pathname;
}
