"""One metric a file: figure, sentence, flags."""
