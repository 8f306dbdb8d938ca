"""Where data come from: every source yields one sample at a time, checked against the model's inputs."""
