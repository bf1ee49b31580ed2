"""Files of weights in the layouts of other families, and what another implementation computes with them."""
