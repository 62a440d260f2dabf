"""Transfer of trained networks: several encoders on several stores with few or all labels, next to training from scratch."""
