#!/bin/sh
# label-studio-sdk 2.1.2 refuses a prediction that names a label by its `value` where the <Label> has an `alias`: the alias
# takes the value's place in results, and the value is no label of the control any more. The message lists the alias.
#
# Guess before running: `alias` is another word for the same label (the documentation: "label alias"), so both are taken.
#
# Seen (labels of the control; errors of a prediction by value, by alias):
#   ['cluster_03', 'Sky']
#   by value 'Road': 1 error
#   by alias 'cluster_03': 0 errors
#   by value 'Sky', which has no alias: 0 errors
#
# So: a model's predictions name labels by `alias or value`; an alias added to a project in use makes what was predicted
# before invalid, and exports then hold the alias.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet label-studio-sdk==2.1.2 2>/dev/null
"$folder/env/bin/python" - <<'PYTHON'
import sys

from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface(
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Road" alias="cluster_03"/><Label value="Sky"/></BrushLabels></View>'
)


def errors(label):
    value = {"format": "rle", "rle": [0, 0, 0, 4, 57, 27, 248, 0], "brushlabels": [label]}
    region = {"id": "a", "from_name": "brush", "to_name": "image", "type": "brushlabels", "value": value}
    prediction = {"result": [region], "score": 0.5, "model_version": "a"}
    return len(interface.validate_prediction(prediction, return_errors=True))


labels = interface.get_control("brush").labels
found = [errors(label) for label in ("Road", "cluster_03", "Sky")]
print(labels)
print("by value 'Road':", found[0], "error")
print("by alias 'cluster_03':", found[1], "errors")
print("by value 'Sky', which has no alias:", found[2], "errors")
sys.exit(0 if (labels, found) == (["cluster_03", "Sky"], [1, 0, 0]) else "changed: the behaviour is not what was seen")
PYTHON
