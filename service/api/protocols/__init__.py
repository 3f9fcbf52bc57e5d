"""Other people's protocols, so that their clients need no change: each reads requests, and answers, in its own way.

One module or folder for each; its `router` is mounted in `service/app.py`, the shape of its refusals stands in
`service/api/error_shapes.py`, and its probes among those of `service/api/middleware.py`. What they share is here:
`raw_body` (a body of whatever type, compressed or empty) and `parameters` (words of theirs → our options). Images go
through `request.begun` and the pipeline like all others, with a Renderer of the dialect's own.
"""
