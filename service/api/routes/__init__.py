"""The routes, one file for each noun of the API: each has a `router`, and asks `state_of(request)`."""
