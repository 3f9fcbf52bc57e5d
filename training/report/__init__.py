"""Pages for people: a run's report, an evaluation's."""
