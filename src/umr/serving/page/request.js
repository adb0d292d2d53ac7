// From a state to what the server is asked: the search itself, and the query that marks are about.

import { asDataUri, kept } from "./images.js";
import { written } from "./state.js";

/** The picture of a search is not on this device. */
export class MissingImage extends Error {}

const DEPTHS = { vector: 10_000, words: 10_000, hybrid: 200 }; // what the server looks through at most

/** What is really searched by: words need words, and "more like this" has a vector alone. */
export function modeOf(state) {
  return state.text.trim() && !state.like ? state.mode : "vector";
}

/** How many results may be asked for after the first `offset`. */
export function room(state, offset) {
  return Math.min(state.k, DEPTHS[modeOf(state)] - offset);
}

/** The body of a search. Throws `MissingImage`. */
export async function searchRequest(state, offset) {
  const request = { collection: state.collection, k: room(state, offset) };
  if (offset) request.offset = offset;
  if (state.modalities.length) request.modalities = state.modalities;
  const where = state.where.map(written).filter(Boolean);
  if (where.length) request.where = where;
  if (state.group) request.group_by = state.group;
  if (state.like) return { ...request, like: state.like };
  request.query = await item(state);
  request.mode = modeOf(state);
  const words = request.mode === "words";
  if (state.minus.trim() && !words) request.minus = state.minus.trim();
  if (state.instruction.trim() && !(words && !state.reranker)) request.instruction = state.instruction.trim();
  if (state.reranker) {
    request.rerank = { model: state.reranker };
    if (state.depth) request.rerank.depth = Number(state.depth);
    if (state.seconds) request.rerank.seconds = Number(state.seconds);
  }
  return request;
}

/** The query that a mark is about. */
export async function judgedQuery(state) {
  if (state.like) return { like: state.like };
  const query = { query: await item(state) };
  return state.instruction.trim() ? { ...query, instruction: state.instruction.trim() } : query;
}

/** Why hits of a search cannot be marked; "" where they can. */
export function unmarkable(state) {
  return state.minus.trim() && !state.like && modeOf(state) !== "words"
    ? "Cannot be marked: benchmarks have no queries with something to avoid. Empty “Without” first."
    : "";
}

async function item(state) {
  const query = {};
  if (state.text.trim()) query.text = state.text.trim();
  if (state.image) {
    const found = await kept(state.image);
    if (!found) throw new MissingImage("An address does not hold images. Choose the image again, or search without it.");
    query.image = await asDataUri(found.blob);
  }
  return query;
}
