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

/** The ids of the clusters under a node, in the order in which they are drawn. */
export const leaves = (node) => (node.children ? node.children.flatMap(leaves) : [node.id]);
