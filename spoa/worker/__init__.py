"""A worker process: SPOP on one side, tokens on the other, the batch of the loop turn between."""
