"""`mezzo train documents`: a low-rank update of a checkpoint's decoder, learnt from conversations of one's own.

    lines     a line of the data file to a request, as the wire's types have it
    files     the pictures and documents that a line names
    samples   a request to token ids: prompts as serving makes them, answers to learn
    corpus    all lines of a file
    batches   what is held out, and what each step reads
    pictures  what the frozen eyes see, kept within a limit
    learner   the loss of a batch
    loop      the steps
    adapter   what was learnt, in PEFT's form and merged
    run       all of it, in one folder

Each file needs only those above it.
"""
