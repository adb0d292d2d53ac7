// Images that come into the page: dropped anywhere on it, pasted, or chosen.

import { byId } from "./dom.js";
import { isImage } from "./images.js";

/** Call `take` with every file that comes in; of what is pasted, only with images. */
export function hearImages(take) {
  const drop = byId("drop");
  document.addEventListener("dragenter", (event) => {
    if (holdsFiles(event)) drop.hidden = false;
  });
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true; // out of the window, not from element to element
  });
  document.addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!holdsFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(isImage);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  byId("image-choose").addEventListener("click", () => byId("image-file").click());
  byId("image-file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = ""; // the same file may be chosen again
  });
}

function holdsFiles(event) {
  return [...(event.dataTransfer?.types ?? [])].includes("Files");
}
