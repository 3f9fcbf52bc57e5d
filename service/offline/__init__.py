"""Many images at once, without a request for each: sources in, a tree of answers out, what is done written down."""
