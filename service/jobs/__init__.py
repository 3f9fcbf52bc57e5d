"""Jobs: thousands of images segmented while nobody waits, kept through restarts, beside everybody's requests."""
