"""From a histogram to the range its integers should cover: pure functions, so another method costs no run."""
