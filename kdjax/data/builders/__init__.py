"""Scripts that build the embedded data sets of `kdjax.data.assets`."""
