// What is shown of a row, in words and figures.

const KINDS = { text: "Text", image: "Image", "image,text": "Image with text", video: "Video", "video,text": "Video with text" };
const CLOCK = { h: 3600, m: 60 };

/** The name of a modality. */
export function kindName(modality) {
  return KINDS[modality] ?? modality;
}

/** Name and icon of what a hit is. */
export function badge(hit) {
  if (hit.page != null) return ["Page", "page"];
  const first = hit.modality.split(",")[0];
  return [KINDS[hit.modality] ?? hit.modality, first in { text: 1, image: 1, video: 1 } ? first : "text"];
}

/** Where in its file a hit is: `page 3`, `0:10–0:20`; "" for a whole file and for texts. */
export function place(hit) {
  if (hit.page != null) return `page ${hit.page}`;
  if (hit.modality.startsWith("video") && hit.start != null) {
    return hit.end == null ? `from ${clock(hit.start)}` : `${clock(hit.start)}–${clock(hit.end)}`;
  }
  return "";
}

/** `1:02:03`. */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / CLOCK.h);
  const minutes = Math.floor((whole % CLOCK.h) / CLOCK.m);
  const rest = String(whole % CLOCK.m).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** The last part of a path, and the folder before it. */
export function nameOf(source) {
  const end = source.lastIndexOf("/");
  return { name: source.slice(end + 1) || source, folder: end > 0 ? source.slice(0, end) : "" };
}

/** Everything that a screen reader should say of a card first. */
export function label(hit) {
  const { name } = nameOf(hit.source);
  return [`${hit.rank}. ${name}`, badge(hit)[0], place(hit), `score ${figure(hit.score)}`].filter(Boolean).join(", ");
}

/** A score, three digits after the point, or enough to tell small ones apart. */
export function figure(score) {
  if (score === 0 || Math.abs(score) >= 0.1) return Math.abs(score) >= 100 ? score.toFixed(1) : score.toFixed(3);
  return score.toFixed(4);
}

/** A value of a metadata field. */
export function valueText(value) {
  return Array.isArray(value) ? value.join(", ") : typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

/** The words that a text is searched for, longest first. */
export function wordsOf(text) {
  const found = text.toLowerCase().match(/[\p{L}\p{N}]{2,}/gu) ?? [];
  return [...new Set(found)].sort((one, other) => other.length - one.length).slice(0, 20);
}

/** A text as nodes in which some words are marked. */
export function marked(text, words) {
  if (!words.length) return [text];
  const pieces = text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})`, "giu"));
  return pieces.map((piece, index) => {
    if (index % 2 === 0) return piece;
    const node = document.createElement("mark");
    node.textContent = piece;
    return node;
  });
}

/** At most `length` characters of a text, beginning a little before the first of the words. */
export function excerpt(text, words, length) {
  const at = words.length ? text.search(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})`, "iu")) : 0;
  const start = at > 80 ? text.lastIndexOf(" ", at - 40) + 1 : 0;
  const cut = text.slice(start, start + length);
  return `${start ? "… " : ""}${cut}${start + length < text.length ? " …" : ""}`;
}
