"""The page of a bundle on the Hub: README.md, with the manifest's facts and pictures of the clusters.

Knows nothing of the Hub's protocol.
"""

import json
from html import escape

from models.bundle import Bundle

_PATCHES = 3


def model_card(bundle: Bundle, repository: str) -> str:
    """Markdown with the head that the Hub reads."""
    manifest = bundle.manifest
    made = manifest.provenance
    height, width = manifest.input.size
    head = {
        "library_name": "tessera",
        "pipeline_tag": "image-segmentation",
        "tags": ["tessera", "unsupervised", "semantic-segmentation", "onnx"],
        "license": "other",
        "license_name": "see-notice",
        "license_link": "NOTICE",
    }
    facts = {
        "method": manifest.method,
        "clusters": str(len(manifest.clusters)),
        "input": f"{width}×{height} ({manifest.input.resize})",
        "trained on": f"{made.images} images: {made.data}",
        "created": f"{made.created} by Tessera {made.tessera}, seed {made.seed}",
        "weights": made.licence,
        "digest": f"`{bundle.digest}`",
    }
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items())
    return "\n".join(
        [
            "---",
            *(f"{name}: {json.dumps(value)}" for name, value in head.items()),
            "---",
            "",
            f"# {manifest.name}",
            "",
            "Unsupervised semantic segmentation: clusters that were found without labels, served as label maps.",
            "",
            "```bash",
            f"tessera pull {repository} --digest {bundle.digest[:12]}",
            f"tessera serve --bundle bundles/{repository.rpartition('/')[2]}",
            "```",
            "",
            "| | |",
            "|---|---|",
            rows,
            "",
            "## Clusters",
            "",
            "| id | name | share | patches |",
            "|---|---|---|---|",
            *_clusters(bundle),
            "",
        ]
    )


def _clusters(bundle: Bundle) -> list[str]:
    clusters = bundle.manifest.clusters
    rows = []
    for k in sorted(range(len(clusters)), key=lambda k: -clusters[k].fraction):
        names = [path.relative_to(bundle.path).as_posix() for path in bundle.exemplars(k)[:_PATCHES]]
        pictures = " ".join(f"![{k}]({name})" for name in names) or "none was kept"
        rows.append(
            f"| {k} | {_cell(clusters[k].name)} `{clusters[k].color}` | {clusters[k].fraction:.1%} | {pictures} |"
        )
    return rows


def _cell(text: str) -> str:
    """A text in a table: no markup of its own."""
    plain = escape(" ".join(text.split()))
    return "".join(f"&#{ord(letter)};" if letter in "|*_[]!\\~" else letter for letter in plain)
