"""What integers cost and save on this CPU, and the choice of kernels that follows."""
