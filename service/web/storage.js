// What this browser keeps for the next visit. Where it may not, or has no room, things last as long as the page.
const here = new Map();

/** What was stored under a key, or null. */
export function recall(key) {
  if (here.has(key)) return here.get(key);
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Store a string, null takes it away. Returns whether it will still be there at the next visit. */
export function store(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
    here.delete(key);
    return true;
  } catch {
    here.set(key, value);
    return false;
  }
}
