"""Parts that all rewards share: samples, counting, combining, failures, worker processes."""
