"""One module for each stage of the asset graph; a module's docstring is its asset's description."""
