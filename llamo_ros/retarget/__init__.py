"""Human frames to robot configurations to safe, time-parametrised trajectories. NumPy only: it starts fast."""
