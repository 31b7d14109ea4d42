"""Training: pictures drawn by a program, a vision half that learns to read them, and what is shipped of it."""
