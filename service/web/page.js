// The first page: a photo in, its clusters over it, names by click. No build step, nothing from elsewhere.
import { paletteIds } from "./png.js";

const $ = (id) => document.getElementById(id);
const MOST_PX = 2048; // of the drawn label map's long side; the photo beneath may be larger

let file = null; // the photo as it was given
let shown = null; // the latest answer: {ids, width, height, clusters: Map id → cluster}
let lit = null; // the cluster under the pointer
let known = new Map(); // model's clusters by id, with exemplars
let asked = 0;
let started = null; // resolves once the models and their numbers of clusters are known

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

const keyed = () => (sessionStorage.key_ ? { "x-api-key": sessionStorage.key_ } : {});

async function api(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, ...keyed() } });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    const key = prompt("This server asks for a key:"); // kept until this tab closes
    if (key) {
      sessionStorage.key_ = key;
      return api(path, options);
    }
  }
  const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
  throw new Error(problem.detail);
}

const model = () => ($("model").value ? `model=${encodeURIComponent($("model").value)}` : "");

async function start() {
  const { models } = await (await api("models")).json();
  const served = models.filter((m) => m.state === "ready");
  $("model").replaceChildren(...served.map((m) => new Option(m.canary ? `${m.name} (canary)` : m.name, `${m.name}@${m.digest}`)));
  $("model").parentElement.hidden = served.length < 2;
  await learn();
}

const ready = () =>
  (started ??= start().catch((error) => {
    started = null; // the next photo asks once more
    throw error;
  }));

async function learn() {
  const list = await (await api(`clusters?${model()}`)).json();
  known = new Map(list.clusters.map((c) => [c.id, c]));
  $("about").textContent = `${list.model} · ${list.k} clusters`;
  Object.assign($("k"), { min: list.levels[0], max: list.k, value: list.k });
  $("k-value").textContent = list.k;
}

async function segment() {
  if (!file) return;
  const turn = ++asked;
  document.body.classList.add("busy");
  say(shown ? "" : "Looking …");
  try {
    await ready();
    const query = new URLSearchParams(model());
    query.set("nodata", "keep"); // what holds no data counts for no cluster, and is painted as none
    if ($("k").value !== $("k").max) query.set("k", $("k").value);
    if ($("crf").checked) query.set("crf", "true");
    const answer = await (await api(`segment?${query}`, { method: "POST", body: file, headers: { accept: "application/json" } })).json();
    if (turn !== asked) return; // a later question has been put meanwhile
    const data = Uint8Array.from(atob(answer.label_map.data), (c) => c.charCodeAt(0));
    shown = { ...(await paletteIds(data)), clusters: new Map(answer.clusters.map((c) => [c.id, c])) };
    $("download").href = URL.createObjectURL(new Blob([data], { type: "image/png" }));
    const ms = Object.values(answer.timings_ms).reduce((a, b) => a + b, 0);
    const held = answer.valid_fraction < 1 ? `, ${(Math.floor(answer.valid_fraction * 1000) / 10).toFixed(1)} % hold data,` : "";
    $("timing").textContent = `${answer.width} × ${answer.height} pixels${held} in ${ms.toFixed(0)} ms`;
    $("picture").style.setProperty("--aspect", answer.width / answer.height);
    for (const id of ["picture", "controls", "legend"]) $(id).hidden = false;
    $("main").classList.remove("empty");
    say(answer.warnings.join(" "));
    $("alike").checked = false;
    draw();
    list();
  } catch (error) {
    if (turn === asked) {
      say(error.message, true);
      if (!shown) clear();
    }
  } finally {
    if (turn === asked) document.body.classList.remove("busy");
  }
}

// Nothing is shown of a photo that could not be answered, and nothing of the one before it.
function clear() {
  for (const id of ["picture", "controls", "legend"]) $(id).hidden = true;
  $("timing").textContent = "";
  $("download").removeAttribute("href");
  $("main").classList.add("empty");
}

async function take(given) {
  if (!given) return;
  file = given;
  shown = null;
  lit = null;
  const photo = $("photo");
  URL.revokeObjectURL(photo.src);
  photo.onerror = async () => {
    // A browser opens no TIFF: let the server show the photo as it sees it.
    photo.onerror = null;
    const picture = await api("segment?format=overlay&alpha=0", { method: "POST", body: file }).catch(() => null);
    if (picture) photo.src = URL.createObjectURL(await picture.blob());
  };
  $("labels").getContext("2d").clearRect(0, 0, $("labels").width, $("labels").height);
  photo.src = URL.createObjectURL(file);
  await segment();
}

function draw() {
  const { ids, width, height, clusters } = shown;
  const scale = Math.min(1, MOST_PX / Math.max(width, height));
  const canvas = $("labels");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const paint = new Uint32Array(256); // ABGR, as ImageData lies in memory
  for (const c of clusters.values()) {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(c.color.slice(i, i + 2), 16));
    const opacity = c.hidden ? 0 : lit === null || lit === c.id ? 255 : 60;
    paint[c.id] = ((opacity << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  const picture = new ImageData(canvas.width, canvas.height);
  const out = new Uint32Array(picture.data.buffer);
  for (let y = 0, o = 0; y < canvas.height; y++) {
    const row = Math.min(height - 1, Math.floor((y + 0.5) / scale)) * width;
    for (let x = 0; x < canvas.width; x++) out[o++] = paint[ids[row + Math.min(width - 1, Math.floor((x + 0.5) / scale))]];
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  canvas.style.opacity = $("alpha").value;
}

function light(id) {
  if (lit === id) return;
  lit = id;
  for (const row of $("clusters").children) row.classList.toggle("lit", Number(row.dataset.id) === id);
  draw();
}

function list() {
  $("clusters").replaceChildren(...[...shown.clusters.values()].map(row));
}

function row(cluster) {
  const item = document.createElement("li");
  item.dataset.id = cluster.id;
  item.classList.toggle("unseen", Boolean(cluster.hidden));
  item.onpointerenter = () => light(cluster.id);
  item.onpointerleave = () => light(null);

  const color = Object.assign(document.createElement("input"), { type: "color", value: cluster.color, title: "Change the color" });
  color.setAttribute("aria-label", `Color of ${cluster.name}`);
  color.onchange = () => change(cluster, { color: color.value });

  const name = Object.assign(document.createElement("button"), { type: "button", className: "name", textContent: cluster.name, title: "Rename" });
  name.onclick = () => rename(cluster, name);

  const share = Object.assign(document.createElement("span"), { className: "share", textContent: `${(cluster.fraction * 100).toFixed(1)} %` });
  const eye = Object.assign(document.createElement("button"), { type: "button", className: "eye", textContent: cluster.hidden ? "◌" : "●" });
  eye.title = cluster.hidden ? "Show" : "Hide";
  eye.setAttribute("aria-label", `${eye.title} ${cluster.name}`);
  eye.onclick = () => change(cluster, { hidden: !cluster.hidden });

  const bar = Object.assign(document.createElement("div"), { className: "bar" });
  const filled = bar.appendChild(document.createElement("i"));
  filled.style.width = `${cluster.fraction * 100}%`;
  filled.style.background = cluster.color;

  const patches = Object.assign(document.createElement("div"), { className: "patches" });
  for (const source of known.get(cluster.id)?.exemplars.slice(0, 4) ?? []) {
    const patch = Object.assign(document.createElement("img"), { alt: "", loading: "lazy", title: "From the training images" });
    if (!sessionStorage.key_) patch.src = source;
    else api(source).then(async (answer) => (patch.src = URL.createObjectURL(await answer.blob()))).catch(() => patch.remove());
    patches.append(patch);
  }
  item.append(color, name, share, eye, bar, patches);
  return item;
}

function rename(cluster, button) {
  const field = Object.assign(document.createElement("input"), { className: "name", value: cluster.name, maxLength: 80 });
  field.setAttribute("aria-label", "New name");
  let done = false;
  const finish = async (keep) => {
    if (done) return;
    done = true;
    const name = field.value.trim();
    if (keep && name && name !== cluster.name) await change(cluster, { name });
    else field.replaceWith(button);
  };
  field.onkeydown = (event) => {
    if (event.key === "Enter") finish(true);
    if (event.key === "Escape") finish(false);
  };
  field.onblur = () => finish(true);
  button.replaceWith(field);
  field.focus();
  field.select();
}

async function change(cluster, what) {
  try {
    const path = `clusters/${cluster.id}?${model()}`;
    const answer = await api(path, { method: "PATCH", body: JSON.stringify(what), headers: { "content-type": "application/json" } });
    const { name, color, hidden } = await answer.json();
    Object.assign(cluster, { name, color, hidden });
    say("");
  } catch (error) {
    say(error.message, true);
  }
  list();
  draw();
}

function at(event) {
  const frame = $("labels").getBoundingClientRect();
  const x = Math.floor(((event.clientX - frame.left) / frame.width) * shown.width);
  const y = Math.floor(((event.clientY - frame.top) / frame.height) * shown.height);
  const inside = x >= 0 && y >= 0 && x < shown.width && y < shown.height;
  return { cluster: inside ? shown.clusters.get(shown.ids[y * shown.width + x]) : undefined, frame, x, y };
}

async function similar(x, y) {
  const turn = ++asked;
  const query = new URLSearchParams(model());
  query.set("x", x);
  query.set("y", y);
  try {
    const answer = await api(`similar?${query}`, { method: "POST", body: file });
    const heat = await createImageBitmap(await answer.blob());
    if (turn !== asked) return;
    const canvas = $("labels");
    canvas.getContext("2d").drawImage(heat, 0, 0, canvas.width, canvas.height);
    say("The brighter, the more alike it looks to the model.");
  } catch (error) {
    if (turn === asked) say(error.message, true);
  }
}

$("labels").onpointermove = (event) => {
  if (!shown || $("alike").checked) return;
  const { cluster, frame } = at(event);
  $("under").hidden = !cluster;
  if (!cluster) return;
  $("under").textContent = cluster.name;
  $("under").style.left = `${Math.min(event.clientX - frame.left, frame.width - 110)}px`;
  $("under").style.top = `${Math.min(event.clientY - frame.top, frame.height - 46)}px`;
  light(cluster.id);
};
$("labels").onpointerleave = () => {
  $("under").hidden = true;
  if (shown && !$("alike").checked) light(null);
};
$("labels").onclick = (event) => {
  const { cluster, x, y } = shown ? at(event) : {};
  if (!cluster) return;
  if ($("alike").checked) similar(x, y);
  else document.querySelector(`li[data-id="${cluster.id}"] .name`).click();
};
$("alpha").oninput = () => ($("labels").style.opacity = $("alpha").value);
$("k").oninput = () => ($("k-value").textContent = $("k").value);
$("k").onchange = segment;
$("crf").onchange = segment;
$("alike").onchange = () => {
  asked++;
  say($("alike").checked ? "Click a place in the photo." : "");
  draw();
};
$("model").onchange = () => learn().then(segment).catch((error) => say(error.message, true));
$("file").onchange = () => take($("file").files[0]).then(() => ($("file").value = ""));
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => take(event.clipboardData.files[0]));
ready().catch((error) => say(error.message, true));
