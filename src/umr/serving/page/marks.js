// Marks on hits, right or wrong: shown as the collection has them, made and taken back.

import { judge } from "./api.js";
import { allowMarks, showMark } from "./cards.js";
import { judgedQuery, unmarkable } from "./request.js";
import { nameOf } from "./words.js";

let query = null; // of the search that is shown
let collection = "";
let reason = ""; // why there are no marks
let marks = {};
let turn = Promise.resolve(); // marks reach the server in the order they were made

/** Begin with the marks of another search; `cards` gives the cards that are shown when they are known. */
export async function begin(state, signal, cards) {
  collection = state.collection;
  marks = {};
  query = null;
  reason = unmarkable(state);
  if (reason) return;
  const asked = await judgedQuery(state);
  const found = await judge(collection, asked, signal);
  query = asked;
  marks = found;
  cards().forEach(dress);
}

/** The mark of a hit: true, false, or undefined for none. */
export function markOf(hit) {
  return marks[hit.id];
}

/** Show on a card what is known of it. */
export function dress(article) {
  showMark(article, marks[article.hit.id]);
  allowMarks(article, reason);
}

/**
 * Mark a hit, or take the mark back where it is marked so already.
 * @param {(text: string) => void} say
 */
export function mark(article, right, say) {
  if (reason) return say(reason);
  if (!query) return say("Marks are not available; see the message above.");
  const { id, source } = article.hit;
  const before = marks[id];
  const wanted = before === right ? null : right;
  const about = query;
  set(article, wanted ?? undefined);
  turn = turn.then(async () => {
    try {
      await judge(collection, { ...about, id, right: wanted });
      say(`${nameOf(source).name}: ${wanted === null ? "mark taken back" : wanted ? "marked right" : "marked wrong"}.`);
    } catch (error) {
      if (about === query) set(article, before);
      say(`The mark was not kept. ${error.message}`);
    }
  });
}

function set(article, right) {
  const { id } = article.hit;
  if (right === undefined) delete marks[id];
  else marks[id] = right;
  showMark(article, right);
}
