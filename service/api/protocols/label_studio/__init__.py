"""Label Studio's ML backend: its server asks for a project's version, and for predictions of its tasks.

`routes` at the root, as the protocol has it, and under /label-studio: `requests` are its bodies, `predicting` answers
the tasks of one. `labeling_config` reads what is labeled and how labels are called, `label_matching` which are meant
for which clusters, `task_images` and `fetching` where an image's bytes come from, `predictions` what they become;
`clicks` are a labeler's.
"""
