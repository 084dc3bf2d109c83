"""One program for each library: what it can do, by what its documentation says."""
