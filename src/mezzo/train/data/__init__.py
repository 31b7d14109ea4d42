"""Pictures with questions and answers, drawn by a program: seeded, parallel, without a download."""
