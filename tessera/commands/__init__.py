"""Commands that look at what is there: bundles, servers, this machine."""
