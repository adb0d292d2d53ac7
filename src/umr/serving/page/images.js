// Pictures that were searched with. An address cannot hold one, so the browser keeps the last of them, on this device only.

const STORE = "images";
const MOST = 30;
const here = new Map();
let opening = null;

function database() {
  opening ??= new Promise((resolve) => {
    const asked = indexedDB.open("umr-page", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "key" });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = asked.onblocked = () => resolve(null); // as in a private window: then they last as long as the page
  });
  return opening;
}

function settled(request) {
  return new Promise((resolve) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(undefined);
  });
}

/** Whether a file can be searched with, by what the browser says of it. */
export function isImage(file) {
  return file.type.startsWith("image/") || /\.(hei[cf]|tiff?)$/i.test(file.name ?? "");
}

/** Keep a picture; its key goes into the address. */
export async function keep(file) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const kept = { key, blob: file, name: file.name || "pasted image", at: Date.now() };
  here.set(key, kept);
  const open = await database();
  if (open) {
    const store = open.transaction(STORE, "readwrite").objectStore(STORE);
    store.put(kept);
    const all = (await settled(store.getAll())) ?? [];
    all.sort((one, other) => other.at - one.at);
    all.slice(MOST).forEach((old) => store.delete(old.key));
  }
  return key;
}

/** A picture by its key, `{blob, name}`; undefined where this device does not have it. */
export async function kept(key) {
  if (!here.has(key)) {
    const open = await database();
    const found = open && (await settled(open.transaction(STORE).objectStore(STORE).get(key)));
    if (found) here.set(key, found);
  }
  return here.get(key);
}

/** Forget all pictures. */
export async function forget() {
  here.clear();
  const open = await database();
  if (!open) return;
  const change = open.transaction(STORE, "readwrite");
  change.objectStore(STORE).clear();
  await new Promise((resolve) => (change.oncomplete = change.onabort = resolve)); // before that, leaving the page would undo it
}

/** A picture as the server takes it. */
export async function asDataUri(blob) {
  const whole = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The image cannot be read any more; choose it again."));
    reader.readAsDataURL(blob);
  });
  const type = /^image\/[a-z0-9.+-]+$/.test(blob.type) ? blob.type : "image/unknown"; // the server looks at the bytes
  return `data:${type};base64,${whole.slice(whole.indexOf(",") + 1)}`;
}
