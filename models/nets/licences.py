"""Under which licences timm's weights are given, and which of these ask for more than to be named.

Knows nothing of networks, files or bundles.
"""

import timm

_OPEN = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")
_TERMS = {
    "dinov3-license": "Meta's own: it limits uses, and what is passed on goes with it"
    " (https://ai.meta.com/resources/models-and-libraries/dinov3-license/)",
    "sapiens2-license": "Meta's own: it limits uses, and what is passed on goes with it"
    " (https://github.com/facebookresearch/sapiens2/blob/main/LICENSE.md)",
    "cc-by-nc-4.0": "no commercial use (https://creativecommons.org/licenses/by-nc/4.0/)",
    "fair-noncommercial-research-license": "noncommercial research alone",
    "apple-amlr": "research alone",
}


def licence_of(name: str) -> str:
    """As timm gives it for the weights of a name, of several the first; empty: it knows none."""
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return (known.license or "") if known is not None else ""


def terms(name: str) -> str:
    """What the licence of a name's weights asks beyond naming its owner: "cc-by-nc-4.0: …"; empty: nothing more."""
    found = licence_of(name)
    if not found or found in _OPEN:
        return ""
    return f"{found}: {_TERMS.get(found, 'not an open licence; read it before you use or pass on what comes of it')}"
