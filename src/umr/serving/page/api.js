// The server: every request of the page goes through here, to the address that the page came from and to no other.

const ROOT = new URL("..", import.meta.url);
const KEY = "umr-key";
let key = sessionStorage.getItem(KEY) ?? "";

/** An answer that is none: what to tell the reader, in words. `status` is 0 where the server did not answer at all. */
export class Refusal extends Error {
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function hasKey() {
  return key !== "";
}

/** Keep the key that the reader has typed; "" forgets it. */
export function useKey(given) {
  key = given;
  if (given) sessionStorage.setItem(KEY, given);
  else sessionStorage.removeItem(KEY);
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function answered(path, options = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), { ...options, headers: { ...headers(), ...options.headers }, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer. Is umr serve still running?");
  }
  if (answer.ok) return answer;
  throw await refusal(answer);
}

async function refusal(answer) {
  let said = {};
  try {
    said = (await answer.json()).error ?? {};
  } catch {
    // not our error shape: something between the page and the server has answered
  }
  const wait = answer.headers.get("Retry-After");
  if (answer.status === 429 || answer.status === 503) {
    return new Refusal(answer.status, `The server is busy${wait ? `; try again in ${wait} s` : "; try again in a moment"}.`, said.code);
  }
  return new Refusal(answer.status, sentence(said.message ?? `The server answered ${answer.status} ${answer.statusText}`), said.code);
}

function sentence(text) {
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}

async function post(path, body, signal) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
  return (await answered(path, options)).json();
}

/** Collections and rerankers that this server has. */
export async function offered() {
  const { data, rerankers } = await (await answered("v1/collections")).json();
  return { collections: data, rerankers };
}

/** The hits of a search. */
export function search(request, signal) {
  return post("v1/search", request, signal);
}

/** Marks of a query by row id; with `id` and `right`, after that mark is made. */
export async function judge(collection, judgement, signal) {
  return (await post(`v1/collections/${encodeURIComponent(collection)}/judgements`, judgement, signal)).marks;
}

/** The address of a path that an answer names. */
export function address(path) {
  return new URL(path.replace(/^\//, ""), ROOT).href;
}

/** The address of a hit's picture in full, or of its page. */
export function pictureOf({ media }) {
  return address(media.replace("/media?", "/picture?"));
}

/**
 * Show what is at an address. With a key it has to be fetched by hand, since pictures and films cannot send one.
 * @returns {Promise<() => void>} frees what is held, when the element is not shown any more
 */
export async function show(element, url, fragment = "") {
  if (!key) {
    element.src = url + fragment;
    return () => {};
  }
  const held = await fetched(url);
  element.src = held + fragment;
  return () => URL.revokeObjectURL(held);
}

/** An address within this page of what the server sends, to be revoked. */
export async function fetched(url) {
  return URL.createObjectURL(await (await answered(url)).blob());
}
