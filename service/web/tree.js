// The tree of clusters out of the merges that the server lists. Knows nothing of the page.

/**
 * The root of a binary tree: {id, height} of a leaf, {id, height, children: [two]} of a merge; null without clusters.
 *
 * ids  of the clusters;  merges  [{merge: [a, b], into, height}], the closest first; what they leave apart is joined on top
 */
export function treeOf(ids, merges) {
  const nodes = new Map(ids.map((id) => [id, { id, height: 0 }]));
  const join = (pair, into, height) => {
    const children = pair.map((id) => nodes.get(id));
    if (children.some((child) => !child) || children[0] === children[1]) return;
    for (const id of pair) nodes.delete(id);
    nodes.set(into, { id: into, height: Math.max(height, ...children.map((child) => child.height)), children });
  };
  for (const { merge, into, height } of merges) join(merge, into, height);
  while (nodes.size > 1) {
    const [[a, one], [b, other]] = nodes;
    join([a, b], a, Math.max(one.height, other.height));
  }
  return nodes.values().next().value ?? null;
}

/** Which others a cluster belongs to, the closest first: [{id, height: of the merge in which they meet}], those of one merge as they are drawn. */
export function closest(root, id) {
  const found = [];
  for (let node = root, side; node?.children; node = side) {
    side = node.children.find((child) => leaves(child).includes(id));
    const other = node.children.find((child) => child !== side);
    found.unshift(...leaves(other).map((one) => ({ id: one, height: node.height })));
  }
  return found;
}

// How far apart two groups may be for a word, as `by` of the tree measures it.
const WORDS = {
  belonging: [[0.25, "same"], [0.35, "alike"], [0.5, "somewhat"], [Infinity, "hardly"]],
  centroids: [[0.5, "alike"], [0.85, "far"], [Infinity, "very-far"]],
};

/** The word for a height of the tree, a key of the strings under "joining.". */
export const wordOf = (height, by) => WORDS[by === "belonging" ? by : "centroids"].find(([most]) => height < most)[1];

/** The ids of the clusters under a node, in the order in which they are drawn. */
export const leaves = (node) => (node.children ? node.children.flatMap(leaves) : [node.id]);
