// What the page knows, in one object, and who wants to be told when a part of it changes.
//
// Topics: models (which serve, which is asked) · clusters (names, colors, merges, the tree) · classes · photos (the strip)
// · marks (places that were taught) · photo (another one is shown, or its answer came) · look (how it is painted) · rows (of the legend, made anew) · lit · selection · tool · busy · history

export const state = {
  models: [], // as GET /models has them, those that are ready
  model: "", // the ref in use, name@digest12
  clusters: new Map(), // id → as GET /clusters has it
  tree: [], // merges, as GET /clusters/tree has them
  treeBy: "centroids", // what the tree is built on
  classes: new Map(), // id → as GET /classes has it
  classWarnings: [], // sentences of the server about all of them
  photos: [], // {id, file, name, page, pages, answer, classAnswer, error, url: of its picture, familiar, marks, …}
  current: null, // the one that is shown
  of: "clusters", // what is painted: clusters or classes
  tool: "pick",
  fill: 0.25, // opacity of what is painted
  outlines: true,
  edges: "false", // crf= of the request
  k: null, // how many groups are left, null: all
  preview: null, // Map id → id: a merge that is only shown
  comparing: false, // held: the photo alone
  example: null, // {x, y}: a place that Teach is to ask the name of
  heat: null, // ImageBitmap in place of the labels
  lit: null, // id under the pointer, or focused
  selection: new Set(), // ids that are ticked
  picked: null, // {id, x, y}: the place that was clicked last with Pick
  busy: 0,
};

const watchers = new Map();
const waiting = new Set();

/** Call `work` after one of the topics changed; several changes in one go are one call. */
export function on(topics, work) {
  for (const topic of topics.split(" ")) {
    if (!watchers.has(topic)) watchers.set(topic, new Set());
    watchers.get(topic).add(work);
  }
}

/** These topics changed. */
export function tell(...topics) {
  if (!waiting.size) queueMicrotask(flush);
  for (const topic of topics) waiting.add(topic);
}

/** Set values, and tell. */
export function set(values, ...topics) {
  Object.assign(state, values);
  tell(...topics);
}

function flush() {
  const works = new Set([...waiting].flatMap((topic) => [...(watchers.get(topic) ?? [])]));
  waiting.clear();
  for (const work of works) work();
}

/** The answer that is painted now: {ids, width, height, found: Map id → what is there, …}, or null. */
export const answer = () => (state.of === "classes" ? state.current?.classAnswer : state.current?.answer) ?? null;
