"""From motion capture with captions to a checkpoint: packing, data sets, losses, one training loop."""
