"""Questions about the past of random logs, against brute force."""
