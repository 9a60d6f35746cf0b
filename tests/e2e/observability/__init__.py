"""What a running gateway tells of itself: metrics, traces, log lines, and never a secret."""
