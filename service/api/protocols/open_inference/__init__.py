"""The Open Inference Protocol v2 at /v2, as Triton, KServe and `tritonclient` speak it, with binary tensors.

`tensors` are what models take and give, `call` is what a body asks, `answer` what is sent back, `documents` the JSON of
everything else, `routes` where all of it is found.
"""
