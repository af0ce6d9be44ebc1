"""Real-time facial-expression recognition: find, follow, classify, smooth, record."""
